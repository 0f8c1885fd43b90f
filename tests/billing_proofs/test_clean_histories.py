"""No false alarms: an audit of an honest vendor's books is clean, whatever crashes and losses went before."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from support.proofs.random_history import History
from support.vendor.vendor_in_process import open_vendor, vendor_settings

HISTORIES_PER_VENDOR = 5


@pytest.mark.timeout(3600)
def test_an_honest_history_with_crashes_raises_no_alarm(
    tmp_path: Path, migrated_sqlite: Path, scale: Callable[[int, int], int], prove: Callable[..., None]
) -> None:
    """Each opening of the vendor ends with a new signing key, half way through a history."""
    wanted = scale(15, 1000)
    settings = vendor_settings(tmp_path / "vendor", migrated_sqlite, max_items=4)
    tally: Counter[str] = Counter()
    clean = 0
    interrupted: History | None = None
    while clean < wanted:
        with open_vendor(settings) as vendor:
            if interrupted is not None:
                interrupted.move_to(vendor)
                interrupted.run(steps=5)
                clean += 1
            for _ in range(min(HISTORIES_PER_VENDOR, wanted - clean)):
                History(vendor, random.Random(clean), tmp_path, f"history-{clean}", tally).run(steps=12)
                clean += 1
            interrupted = History(vendor, random.Random(-clean), tmp_path, f"rotated-{clean}", tally)
            interrupted.live(steps=7)
            interrupted.rotate_key()
        if clean % 50 < HISTORIES_PER_VENDOR:
            sys.stderr.write(f"{clean} of {wanted} histories are clean\n")
    for name in ("clients killed", "lost responses found", "lost responses recovered"):
        prove(f"clean histories: {name}", tally[name], goal="> 0", met=tally[name] > 0)
    prove("false alarms in clean histories with crashes", 0, goal=f"0 in {wanted:,}", met=clean >= wanted)
