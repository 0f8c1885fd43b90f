"""What the teacher's text side is asked: each class name in one or more templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vl2v_client.core.errors import DataError, UsageError

CLASS_FIELD = "{class}"
DEFAULT_TEMPLATE = "a photo of a {class}"


@dataclass(frozen=True, slots=True)
class PromptTemplateSet:
    """Templates that hold `{class}`; one text query per class and template.

    Attributes:
        templates: Templates, at least one; the published method uses the default alone.

    Raises:
        UsageError: There is no template, or one twice, or one that holds something else in braces than `{class}`.
    """

    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)

    def __post_init__(self) -> None:
        if not self.templates:
            raise UsageError(f"at least one prompt template is needed, such as {DEFAULT_TEMPLATE!r}")
        for template in self.templates:
            around = template.replace(CLASS_FIELD, "")
            if around == template or "{" in around or "}" in around:
                raise UsageError(
                    f"the prompt template {template!r} must hold {CLASS_FIELD} and nothing else in braces, "
                    f"as in {DEFAULT_TEMPLATE!r}"
                )
        if len(set(self.templates)) < len(self.templates):
            raise UsageError(f"a prompt template is named twice in {', '.join(self.templates)}: name each once")

    def prompts(self, class_names: Sequence[str]) -> list[list[str]]:
        """Return the texts to buy, one list of `T` templates per class; underscores of a folder name become spaces.

        Raises:
            DataError: Two classes have the same texts, so that no text tells them apart.
        """
        spoken = [name.replace("_", " ") for name in class_names]
        double = next((name for name in spoken if spoken.count(name) > 1), None)
        if double is not None:
            alike = [name for name, words in zip(class_names, spoken, strict=True) if words == double]
            raise DataError(
                f"the classes {' and '.join(map(repr, alike))} have the same prompts: rename one, or join them"
            )
        return [[template.replace(CLASS_FIELD, name) for template in self.templates] for name in spoken]
