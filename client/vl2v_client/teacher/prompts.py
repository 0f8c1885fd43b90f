"""What the teacher's text side is asked: each class name in one or more templates."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

from vl2v_client.core.errors import UsageError

CLASS_FIELD = "{class}"
DEFAULT_TEMPLATE = "a photo of a {class}"


@dataclass(frozen=True, slots=True)
class PromptTemplateSet:
    """Templates that hold `{class}`; one text query per class and template.

    Attributes:
        templates: at least one; the published method uses the default alone.

    Raises:
        UsageError: there is no template, or one without `{class}`, or one with another field.
    """

    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)

    def __post_init__(self) -> None:
        if not self.templates:
            raise UsageError(f"at least one prompt template is needed, such as {DEFAULT_TEMPLATE!r}")
        for template in self.templates:
            if _field_names(template) != {"class"}:
                raise UsageError(
                    f"the prompt template {template!r} must hold {CLASS_FIELD} and no other field, "
                    f"as in {DEFAULT_TEMPLATE!r}"
                )

    def prompts(self, class_names: Sequence[str]) -> list[list[str]]:
        """The texts to buy, one list of `T` templates per class; underscores of a folder name become spaces."""
        spoken = [name.replace("_", " ") for name in class_names]
        return [[template.replace(CLASS_FIELD, name) for template in self.templates] for name in spoken]


def prompt_templates(named: Sequence[str] | None) -> PromptTemplateSet:
    """The templates that somebody named, or the published one.

    Raises:
        UsageError: as `PromptTemplateSet`.
    """
    return PromptTemplateSet(tuple(named)) if named else PromptTemplateSet()


def _field_names(template: str) -> set[str | None]:
    try:
        return {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError:  # a brace that is never closed
        return {None}
