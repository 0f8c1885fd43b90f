"""A student that has left training: the classifier and the card that says what it is and how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vl2v_client.student.model.card import CARD_FORMAT, read_card
from vl2v_client.student.model.classifier import StudentClassifier
from vl2v_client.student.model.spec import StudentSpec


@dataclass(frozen=True)
class StudentCard:
    """Everything about a student but its weights.

    Attributes:
        student: Architecture and input.
        view_size: Images are rendered at this size first (the teacher's input size), as they were for training.
        class_names: Names of the classes in the order of the logits.
        method: Name of the method in the literature.
        seed: Seed of the run.
        prompt_templates: Templates that the text classifier was made with; empty for a linear head.
        logit_scale: Logit scale of the text classifier; `None` for a linear head.
        logit_bias: Logit bias of the text classifier.
        temperature: Fitted on source validation; probabilities are `softmax(logits / temperature)`.
        teacher: The vendor's model, `id` and `weights_sha`; empty if there was none.
        queries: Numbers of `images` and `texts` bought for this student.
        scores: Accuracies by name, 0 to 1.
        target_domain: What was held out, if anything.
        weights_sha256: SHA-256 of the file beside the card; filled in on export.
    """

    student: StudentSpec
    view_size: int
    class_names: tuple[str, ...]
    method: str
    seed: int
    prompt_templates: tuple[str, ...] = ()
    logit_scale: float | None = None
    logit_bias: float = 0.0
    temperature: float = 1.0
    teacher: Mapping[str, str] = field(default_factory=dict)
    queries: Mapping[str, int] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    target_domain: str | None = None
    weights_sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the card as JSON values."""
        values = {**vars(self), "student": self.student.to_json()}
        return {"format": CARD_FORMAT, **{name: _plain(value) for name, value in values.items()}}

    @classmethod
    def from_json(cls, data: bytes) -> StudentCard:
        """Return the card of which `to_json` made the JSON values in `data`.

        Raises:
            DataError: It is no card, one of another version, or has an entry that no card has; the entry is named.
        """
        values = dict(read_card(data))
        del values["format"]
        values["student"] = StudentSpec.from_entry(values["student"])
        values["class_names"] = tuple(values["class_names"])
        values["prompt_templates"] = tuple(values["prompt_templates"])
        return cls(**values)


@dataclass(frozen=True)
class StudentBundle:
    """A student ready to be used or exported."""

    classifier: StudentClassifier
    card: StudentCard


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value
