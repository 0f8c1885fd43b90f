"""What the teacher is asked about: a view of an image, or a text."""

from __future__ import annotations

from dataclasses import dataclass

from vl2v_client.core.values import Sample
from vl2v_client.data.views import View


@dataclass(frozen=True, slots=True)
class ImageQuery:
    """One view of one image."""

    sample: Sample
    view: View

    @property
    def name(self) -> str:
        """What to call it in a message."""
        view = self.view.to_json()
        return str(self.sample.path) if not view else f"{self.sample.path} (view {view})"


@dataclass(frozen=True, slots=True)
class TextQuery:
    """One text, such as a class name in a prompt template."""

    text: str

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return f"text {self.text!r}"


Query = ImageQuery | TextQuery
