"""What the tiny teacher makes of styled views.

Run without arguments: 30 pictures per class of `shapes` in its three development styles, each drawn in every style at
its smallest and largest strength. Per style: the teacher's zero-shot accuracy, and the mean cosine of the styled view's
embedding to the canonical view's.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from result import write_result

import vl2v_vendor
from vl2v_client.core.values import EmbeddingMatrix
from vl2v_client.data.folder import open_dataset
from vl2v_client.data.images import load_rgb
from vl2v_client.data.rendering import render_view
from vl2v_client.data.shapes import write_shapes
from vl2v_client.data.shapes.drawing_styles import DEVELOPMENT_STYLES
from vl2v_client.data.styles import STYLES
from vl2v_client.data.views import View
from vl2v_client.teacher.text_classifier import PromptTemplateSet
from vl2v_vendor.engine.models.open_clip_files import ModelSpec
from vl2v_vendor.engine.models.open_clip_model import OpenClipModel
from vl2v_vendor.engine.models.tokenizer import OpenClipTokenizer

IMAGES_PER_CLASS = 30


class Teacher:
    """The vendor's tiny model, in this process."""

    def __init__(self) -> None:
        files = Path(vl2v_vendor.__file__).parent / "assets" / "tiny-teacher"
        config, weights = files.with_suffix(".json"), files.with_suffix(".safetensors")
        spec = ModelSpec(model_id="tiny-teacher", config_file=config, checkpoint_file=weights, device="cpu")
        self._model = OpenClipModel(spec)
        self.size = self._model.info.image_size
        self._tokenizer = OpenClipTokenizer(spec, context_length=self._model.info.context_length)

    def images(self, pixels: NDArray[np.uint8]) -> EmbeddingMatrix:
        """`[N, S, S, 3]` to `[N, D]`."""
        return np.concatenate(
            [self._model.encode_images(part) for part in np.array_split(pixels, len(pixels) // 64 + 1)]
        )

    def texts(self, texts: list[str]) -> EmbeddingMatrix:
        """`[N, D]`."""
        tokens = [self._tokenizer.tokenize(text, truncate=False).model_input for text in texts]
        return np.concatenate([self._model.encode_tokens(np.asarray(ids)[None]) for ids in tokens])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images-per-class", type=int, default=IMAGES_PER_CLASS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_shapes(root, seed=0, styles=DEVELOPMENT_STYLES, images_per_class=arguments.images_per_class)
        rows = measure(root)
    write_result("style_views", rows, [], out=arguments.out)


def measure(root: Path) -> list[dict[str, object]]:
    """A row for the canonical view, then one per style."""
    teacher, dataset = Teacher(), open_dataset(root)
    labels = np.array([sample.class_index for sample in dataset.samples])
    pictures = [load_rgb(sample.path) for sample in dataset.samples]

    def look(view: View) -> EmbeddingMatrix:
        return teacher.images(np.stack([render_view(picture, view, teacher.size) for picture in pictures]))

    classifier = teacher.texts([text for (text,) in PromptTemplateSet().prompts(dataset.class_names)])
    canonical = look(View())
    rows = [_row("as it is", [canonical], canonical, classifier, labels)]
    for name, style in STYLES.items():
        drawn = [look(View(style=name, style_strength=strength)) for strength in style.strengths]
        rows.append(_row(name, drawn, canonical, classifier, labels))
    return rows


def _row(
    name: str,
    drawn: list[EmbeddingMatrix],
    canonical: EmbeddingMatrix,
    classifier: EmbeddingMatrix,
    labels: NDArray[np.int64],
) -> dict[str, object]:
    accuracy = np.mean([(embeddings @ classifier.T).argmax(axis=1) == labels for embeddings in drawn])
    cosine = np.mean([(embeddings * canonical).sum(axis=1).mean() for embeddings in drawn])
    return {
        "style": name,
        "teacher accuracy": round(float(accuracy), 3),
        "cosine to the canonical view": round(float(cosine), 3),
    }


if __name__ == "__main__":
    main()
