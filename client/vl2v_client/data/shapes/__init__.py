"""The procedural domain-generalisation data set "shapes": ten object classes drawn in several styles."""

from vl2v_client.data.shapes.arrays import ShapeArrays, render_arrays
from vl2v_client.data.shapes.catalogue import (
    CLASS_NAMES,
    DEVELOPMENT_STYLES,
    PRETRAINING_CLASS_NAMES,
    STYLES,
)
from vl2v_client.data.shapes.folder_writer import write_shapes
from vl2v_client.data.shapes.sample import RESERVED_SEED_START, SHORTCUT_PROBABILITY, Sample, render_sample

__all__ = [
    "CLASS_NAMES",
    "DEVELOPMENT_STYLES",
    "PRETRAINING_CLASS_NAMES",
    "RESERVED_SEED_START",
    "SHORTCUT_PROBABILITY",
    "STYLES",
    "Sample",
    "ShapeArrays",
    "render_arrays",
    "render_sample",
    "write_shapes",
]
