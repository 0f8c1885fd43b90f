"""How a folder says that `vl2v-client shapes` has drawn it; reading that needs no Pillow."""

from pathlib import Path

from vl2v_client.core.files import read_json

RECORD = "shapes.json"
"""Name of the file in the data set's folder: its seed and size."""

_FACTS = {"format", "seed", "size", "shortcut"}
_MAX_BYTES = 2**16


def is_drawn(root: Path) -> bool:
    """Tell whether a data set is one of drawn shapes, of whatever version."""
    try:
        facts = read_json(root / RECORD, _MAX_BYTES)
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and facts.keys() >= _FACTS
