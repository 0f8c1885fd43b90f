"""The teacher's text side: the prompts of each class, and the zero-shot classifier that their embeddings make."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.core.values import EmbeddingMatrix

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


def unit_rows(vectors: ArrayLike) -> NDArray[np.float32]:
    """Return vectors along the last axis, `[..., D]`, scaled to length one, as float32.

    Raises:
        DataError: A vector is zero or not finite.
    """
    array = np.asarray(vectors, dtype=np.float64)
    lengths: NDArray[np.float64] = np.linalg.norm(array, axis=-1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise DataError("an embedding is zero or not finite: verify the cache, then buy it again")
    return np.asarray(array / lengths, dtype=np.float32)


def zero_shot_classifier(text_embeddings: ArrayLike) -> EmbeddingMatrix:
    """Average the unit embeddings of each class's templates, and scale the average to length one, as CLIP does.

    Takes `[C, T, D]`, `T` templates for each of `C` classes, in any scale; returns `[C, D]` float32 of unit rows.
    """
    return unit_rows(unit_rows(text_embeddings).astype(np.float64).mean(axis=1))


def zero_shot_logits(
    image_embeddings: NDArray[np.float32], classifier: EmbeddingMatrix, *, logit_scale: float, logit_bias: float = 0.0
) -> NDArray[np.float32]:
    """Return `logit_scale * cos(img, txt_c) + logit_bias`, `[N, C]` float32, with the teacher's scale and bias.

    Images are `[N, D]` embeddings of canonical views in any scale, the classifier is `[C, D]` unit text embeddings.
    """
    return (logit_scale * (unit_rows(image_embeddings) @ classifier.T) + logit_bias).astype(np.float32)
