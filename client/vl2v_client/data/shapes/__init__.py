"""The procedural domain-generalisation data set "shapes": ten object classes drawn in several styles."""

from vl2v_client.data.shapes.drawing_styles import DEVELOPMENT_STYLES, STYLES
from vl2v_client.data.shapes.objects import CLASS_NAMES
from vl2v_client.data.shapes.samples import (
    RESERVED_SEED_START,
    SHORTCUT_PROBABILITY,
    Sample,
    render_sample,
    write_shapes,
)

__all__ = [
    "CLASS_NAMES",
    "DEVELOPMENT_STYLES",
    "RESERVED_SEED_START",
    "SHORTCUT_PROBABILITY",
    "STYLES",
    "Sample",
    "render_sample",
    "write_shapes",
]
