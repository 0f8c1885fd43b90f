"""Fresh views for a local teacher, drawn and asked about when a step needs them, as the published loop does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v_client.cache.store import FileContent
from vl2v_client.core.values import EmbeddingMatrix, RGBImage, Sample
from vl2v_client.data.views import RENDERER_VERSION, drawn_view, load_rgb, render_view
from vl2v_client.local.teacher import LocalTeacher
from vl2v_client.planning.choice import QueryChoice
from vl2v_contract.identity import sha256_hex


@dataclass(frozen=True)
class OnlineViews:
    """The fresh views of a run: each a function of its number, the image's content and the run's seed and recipe.

    Implements `student.train.fresh_views.FreshViews`.

    Attributes:
        samples: Training images, by row.
        contents: Contents of their files.
        choice: Seed and recipe of the views.
        teacher: Teacher that sees them.
    """

    samples: Sequence[Sample]
    contents: Sequence[FileContent]
    choice: QueryChoice
    teacher: LocalTeacher

    @property
    def of(self) -> str:
        """Name of all that decides pixels and answers."""
        facts = self.teacher.facts
        named = [RENDERER_VERSION, self.choice.seed, self.choice.recipe, facts.image_size, facts.weights_sha]
        named += [facts.precision, facts.preprocessing_id, *(content.file_sha for content in self.contents)]
        return sha256_hex(json.dumps(named).encode())

    def render(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Render the views of those numbers of the images in those rows, `[B, S, S, 3]` uint8, on every core."""
        with ThreadPoolExecutor() as pool:  # Pillow releases the interpreter lock
            return np.stack(list(pool.map(self._render, rows.tolist(), views.tolist())))

    def ask(self, pixels: NDArray[np.uint8]) -> EmbeddingMatrix:
        """Return the teacher's embeddings of them, `[B, D]`, unit norm."""
        return self.teacher.encode_images(pixels)

    def _render(self, row: int, number: int) -> RGBImage:
        content, choice = self.contents[row], self.choice
        view = drawn_view(content.file_sha, (content.width, content.height), number + 1, choice.seed, choice.recipe)
        return render_view(load_rgb(self.samples[row].path), view, self.teacher.facts.image_size)
