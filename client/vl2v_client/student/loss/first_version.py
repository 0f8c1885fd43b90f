"""Settings as version 0.1.0 knew them: what it had no name for, and how it hashed the others."""

from collections.abc import Mapping
from typing import Any

SINCE_OF_TRAINING: Mapping[str, Any] = {
    "align": "adam",
    "trust": "all",
    "unbought": "borrow",
    "schedule": "constant",
    "warmup": 0.0,
    "freeze_until": 0,
    "optimizer": "adam",
    "extend": (),
    "threads": None,
    "soft_label_weight": 0.0,
}
"""Options of training that 0.1.0 did not have, at the values that stand for what it did."""

SINCE_OF_STAGES: Mapping[str, Any] = {"closed_form": False, "freeze_until": 0}
"""The same of a stage."""

_SINCE = (*SINCE_OF_TRAINING.items(), *SINCE_OF_STAGES.items())


def as_first_named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as version 0.1.0 hashed them, so that its checkpoints are read."""
    first = {"carries" if name == "final_weights" else name: value for name, value in settings.items()}
    return {name: value for name, value in first.items() if (name, value) not in _SINCE}
