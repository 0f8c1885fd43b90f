"""The real server with a model that is loaded once the test says so: `python -m support.vendor.gated_vendor PORT`.

The model process waits for the file `gate` in the data folder. If that holds words, the model cannot be loaded, and
they are the reason. The file `importing` says that the server imports what it needs beside the model.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from support.vendor.tiny_clip import FragileModel
from vl2v_vendor import bootstrap
from vl2v_vendor.cli.app import run
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.engine.models.tokenizer import WordTokenizer


def load_behind_gate(_spec: object, *, golden_folder: Path, **_options: Any) -> FragileModel:
    gate = golden_folder.with_name("gate")
    while not gate.exists():
        time.sleep(0.01)
    if reason := gate.read_text():
        raise ModelLoadFailed(reason)
    return FragileModel()


if __name__ == "__main__":
    changed = {
        "load_model": load_behind_gate,
        "import_open_clip": Path(os.environ["VL2V_VENDOR_DATA_DIR"], "importing").touch,
        "OpenClipTokenizer": lambda _spec, context_length: WordTokenizer(context_length),
    }
    for name, stand_in in changed.items():
        setattr(bootstrap, name, stand_in)
    sys.exit(run(["serve", "--port", sys.argv[1]]))
