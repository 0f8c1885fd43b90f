"""Fresh views for a local teacher, drawn and asked about when a step needs them, as the published loop does."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vl2v_client.cache.store import FileContent
from vl2v_client.core.values import EmbeddingMatrix, RGBImage, Sample
from vl2v_client.data.images import load_rgb
from vl2v_client.data.views import RENDERER_VERSION, View, drawn_view, render_view
from vl2v_client.local.teacher import LocalTeacher
from vl2v_client.planning.choice import QueryChoice
from vl2v_contract.identity import sha256_hex


@dataclass(frozen=True)
class OnlineViews:
    """The fresh views of a run: each a function of its number, the image's content and the run's seed and recipe.

    Implements `student.train.training_data.FreshViews`.
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

    def draw(
        self, rows: NDArray[np.int64], views: NDArray[np.int64], size: int, *, ask: bool
    ) -> tuple[NDArray[np.uint8], EmbeddingMatrix | None]:
        """Render the views of those numbers of the images in those rows, and ask the teacher; see `FreshViews`.

        A file is decoded once and rendered at both sizes, in threads on every core.
        """
        asked_size = self.teacher.facts.image_size
        sizes = {size, asked_size} if ask else {size}

        def render(row: int, number: int) -> dict[int, RGBImage]:
            image, view = load_rgb(self.samples[row].path), self._view(row, number)
            return {each: render_view(image, view, each) for each in sizes}

        with ThreadPoolExecutor() as pool:  # Pillow releases the interpreter lock
            drawn = list(pool.map(render, rows.tolist(), views.tolist()))
        answers = self.teacher.encode_images(np.stack([one[asked_size] for one in drawn])) if ask else None
        return np.stack([one[size] for one in drawn]), answers

    def _view(self, row: int, number: int) -> View:
        content, choice = self.contents[row], self.choice
        return drawn_view(content.file_sha, (content.width, content.height), number + 1, choice.seed, choice.recipe)
