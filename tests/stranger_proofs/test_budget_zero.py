"""Whoever has a key and no money: bodies without end, and work that nobody paid for, at its worst in each way."""

from __future__ import annotations

import pytest

from support.proofs.proof_figures import Prove
from support.proofs.proof_vendor import Size
from support.proofs.siege import Siege
from support.proofs.siege_verdicts import Judge

UNPAID = {"402", "503"}
ATTACKS = {
    "large_pictures": UNPAID,
    "large_pictures_at_once": UNPAID,
    "nested_entities": UNPAID,
    "malformed_items": UNPAID,
    "half_sent_pictures": UNPAID,
    "full_bodies": UNPAID | {"413", "422", "closed"},
    "unknown_replays": {"422", "503"},
    "unfinished_bodies": {"408", "503", "closed"},
    "dripping_bodies": {"408", "503", "closed"},
    "endless_chunks": {"413", "503", "closed"},
}
"""Each attack, and how its acts may end."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("attack", ATTACKS)
def test_who_has_no_money_delays_nobody(
    attack: str, siege: Siege, size: Size, prove: Prove, prove_speed: Prove
) -> None:
    Judge(prove, prove_speed, size).withstands(siege, attack, ATTACKS[attack])


@pytest.mark.timeout(600)
def test_after_all_of_it_memory_bill_and_log_are_as_before(
    siege: Siege, size: Size, prove: Prove, prove_speed: Prove
) -> None:
    Judge(prove, prove_speed, size).is_unharmed(siege)
