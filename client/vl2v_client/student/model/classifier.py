"""A student with its head: from the pixels of a view to what the backbone is fed, and on to logits."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import EmbeddingMatrix, PixelSource
from vl2v_client.student.model.card import InputFormat
from vl2v_client.student.model.network import Student, build_student
from vl2v_client.student.model.spec import StudentCard, StudentSpec


def student_input(
    pixels: NDArray[np.uint8], wanted: InputFormat, device: torch.device, *, channels_last: bool = False
) -> Tensor:
    """Resize, then normalise with the student's own mean and deviation.

    Args:
        pixels: `[B, S, S, 3]` uint8, views.
        wanted: Size and normalisation of the student.
        device: Device of the result; the bytes travel, the floats do not.
        channels_last: Memory format, faster for convolutions.

    Returns:
        `[B, 3, size, size]` float32.
    """
    return normalised(pixel_tensor(pixels).to(device), wanted, channels_last=channels_last)


def pixel_tensor(pixels: NDArray[np.uint8], *, pinned: bool = False) -> Tensor:
    """Return the same bytes as a tensor, copied only if they are read-only or are to be pinned."""
    tensor = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    return tensor.pin_memory() if pinned else tensor


def normalised(pixels: Tensor, wanted: InputFormat, *, channels_last: bool = False) -> Tensor:
    """Return `student_input` of pixels `[B, S, S, 3]` uint8 that lie where the result shall."""
    images = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
    if images.shape[-1] != wanted.size:
        mode = wanted.interpolation if wanted.interpolation in ("bilinear", "bicubic") else "bicubic"
        images = functional.interpolate(images, (wanted.size, wanted.size), mode=mode, antialias=True).clamp(0, 1)
    mean = torch.tensor(wanted.mean, device=pixels.device).view(1, 3, 1, 1)
    std = torch.tensor(wanted.std, device=pixels.device).view(1, 3, 1, 1)
    normal = (images - mean) / std
    return normal.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def in_chunks(outputs: Callable[[slice], Tensor], count: int, size: int, device: torch.device) -> Iterator[Tensor]:
    """Yield what a network on `device` says of `count` views, without gradients: the outputs of each chunk, in order.

    Args:
        outputs: Runs the network on a slice of the views; on a CPU it is called in several threads at once.
        count: Views.
        size: Views in a chunk; the last may be smaller.
        device: Device of the network.
    """
    cuts = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    cores = torch.get_num_threads()
    threads = min(len(cuts), cores) if device.type == "cpu" else 1

    @torch.no_grad()
    def run(cut: slice) -> Tensor:
        return outputs(cut)

    if threads < 2:
        yield from map(run, cuts)
        return
    try:
        with ThreadPoolExecutor(threads, "chunk", initializer=lambda: torch.set_num_threads(1)) as pool:
            yield from pool.map(run, cuts)
    finally:
        torch.set_num_threads(cores)  # for this thread it never changed, but for those to come


def in_even_chunks(outputs: Callable[[slice], Tensor], count: int, most: int, device: torch.device) -> Iterator[Tensor]:
    """Yield the same as `in_chunks`, of `most` views at most each, so that no thread of a CPU waits for another."""
    threads, size = torch.get_num_threads() if device.type == "cpu" else 1, most
    if threads > 1 and count:
        rounds = math.ceil(count / (most * threads))
        size = math.ceil(count / (rounds * threads))
    return in_chunks(outputs, count, size, device)


_PIXELS_AT_ONCE = 2**18
"""What a network is given at once on a CPU: five images of 224 pixels. Of more, the activations are so large that the C
library fetches them from the kernel anew for every layer: EfficientNet-lite0 then answers a fourth as many images."""


def a_few_at_once(
    outputs: Callable[[NDArray[np.uint8]], Tensor], pixels: NDArray[np.uint8], size: int, device: torch.device
) -> Tensor:
    """Return what a network says of views, joined; on a CPU it is given a few of them at a time.

    Args:
        outputs: Runs the network on views, without gradients.
        pixels: Views `[B, S, S, 3]`.
        size: Width and height of the network's input.
        device: Device of the network.
    """
    count = max(1, _PIXELS_AT_ONCE // size**2)
    if device.type != "cpu" or len(pixels) <= count:
        return outputs(pixels)
    return torch.cat([outputs(pixels[start : start + count]) for start in range(0, len(pixels), count)])


VIEWS_AT_ONCE = 128
"""Views in a batch where a student predicts."""


@dataclass(frozen=True)
class TextHead:
    """The frozen classifier `logit_scale * cos(z, txt_c) + logit_bias`.

    Attributes:
        matrix: `[C, D]` unit text embeddings, from `teacher.text_classifier.zero_shot_classifier`.
        logit_scale: The teacher's.
        logit_bias: The teacher's; 0 for CLIP.
    """

    matrix: EmbeddingMatrix
    logit_scale: float
    logit_bias: float = 0.0

    def logits(self, outputs: Tensor) -> Tensor:
        """Return `z [B, D]` to `[B, C]`."""
        matrix = torch.from_numpy(self.matrix).to(outputs.device, outputs.dtype)
        return self.logit_scale * functional.normalize(outputs, dim=-1) @ matrix.T + self.logit_bias


@dataclass(frozen=True)
class StudentClassifier:
    """A student with its head and input format: all that prediction needs.

    Attributes:
        student: Network, on the device where it runs.
        input: Size and normalisation of its input.
        head: `None` if the student's own outputs are the logits.
    """

    student: Student
    input: InputFormat
    head: TextHead | None

    @property
    def device(self) -> torch.device:
        """Where the student lies."""
        return self.student.projection.weight.device

    def logits_of(self, outputs: Tensor) -> Tensor:
        """Return the student's outputs `[B, D]` to logits `[B, C]`."""
        return outputs if self.head is None else self.head.logits(outputs)

    def logits(
        self, pixels: PixelSource, *, batch_size: int = VIEWS_AT_ONCE, progress: Progress = silent
    ) -> NDArray[np.float32]:
        """Return logits of views at the size that the student was trained on.

        Takes pixels `[N, S, S, 3]` uint8, as `render_view` makes them; returns `[N, C]` float32, whose last
        bits may depend on the batch size, which is the most at once, and on a CPU on the number of threads.
        """
        was_training = self.student.training
        self.student.eval()

        def of_few(few: NDArray[np.uint8]) -> Tensor:
            return self.logits_of(self.student(student_input(few, self.input, self.device, channels_last=True)))

        def outputs(cut: slice) -> Tensor:
            return a_few_at_once(of_few, pixels[cut], self.input.size, self.device)

        parts: list[Tensor] = []
        for part in in_even_chunks(outputs, len(pixels), batch_size, self.device):
            parts.append(part)
            progress("score", sum(map(len, parts)), len(pixels))
        self.student.train(was_training)
        if not parts:
            classes = self.student.projection.out_features if self.head is None else len(self.head.matrix)
            return np.zeros((0, classes), dtype=np.float32)
        joined: NDArray[np.float32] = torch.cat(parts).float().cpu().numpy()
        return joined


@dataclass(frozen=True)
class StudentBundle:
    """A student ready to be used or exported: it, and the card that says what it is and how it came about."""

    classifier: StudentClassifier
    card: StudentCard

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the `C` classes, in the order of the logits."""
        return self.card.class_names

    @property
    def view_size(self) -> int:
        """Images are rendered at this size."""
        return self.card.view_size

    @property
    def largest_size(self) -> int:
        """Size of an image where it takes the most memory."""
        return max(self.card.view_size, self.card.student.input.size)

    @property
    def temperature(self) -> float:
        """Probabilities are `softmax(logits / temperature)`."""
        return self.card.temperature

    def logits(self, pixels: PixelSource) -> NDArray[np.float32]:
        """Return logits `[N, C]` of views `[N, S, S, 3]` uint8."""
        return self.classifier.logits(pixels)


def new_classifier(spec: StudentSpec, head: TextHead | None, *, class_count: int, seed: int) -> StudentClassifier:
    """Build an untrained student with its head; its projection's first weights are drawn from the seed.

    Without a text head, the student's own outputs are the logits of a linear one.

    Raises:
        DataError: The backbone's weights cannot be fetched, or do not fit the architecture.
    """
    outputs = class_count if head is None else head.matrix.shape[1]
    return StudentClassifier(build_student(spec, outputs=outputs, seed=seed), spec.input, head)
