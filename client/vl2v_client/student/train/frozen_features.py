"""What a frozen student says of views: each view passes it once, for this run and for later ones."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import cast

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vl2v_client.cache.feature_store import FeatureFolder, FeatureStore
from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.errors import DataError
from vl2v_client.core.values import PixelSource
from vl2v_client.local.teacher import hash_weights
from vl2v_client.student.model.classifier import StudentClassifier, a_few_at_once, in_chunks, student_input
from vl2v_client.student.model.network import cut_backbone

MOST = torch.finfo(torch.float16).max


def halved(values: Tensor) -> Tensor:
    """Return values in the half precision in which they are kept; those beyond its range at its ends."""
    return values.clamp(-MOST, MOST).half()


class Activations:
    """What the first blocks of a frozen student said of views while it said their features: these need no second pass.

    In memory, in half precision, each handed out once.

    Args:
        blocks: First blocks, the stem included.
        max_bytes: Bound on what is kept; threads that add at once may exceed it by what they add.
    """

    def __init__(self, blocks: int, max_bytes: int) -> None:
        self.blocks = blocks
        self._max_bytes = max_bytes
        self._kept: dict[bytes, Tensor] = {}

    def put(self, names: Sequence[bytes], said: Tensor) -> None:
        """Keep the activations `[B, ...]` of views, all of them or none."""
        if (len(self._kept) + len(said)) * said[0].nbytes <= self._max_bytes:
            self._kept.update(zip(names, said, strict=True))

    def take(self, name: bytes) -> Tensor | None:
        """Hand out the activations of a view; None if they are not here."""
        return self._kept.pop(name, None)

    def clear(self) -> None:
        """Forget those that nobody asked for."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


class FrozenFeatures:
    """Features of a backbone with the weights that it has now.

    They are rounded to half precision whether the store has them or not, so that a run which goes on reads the same.

    Args:
        classifier: Student, on its device; of its parts the backbone alone is read.
        config: Hyper-parameters of the run: precision, memory format and views per forward pass.
        store: Keeps them by weights, input format and view; None keeps nothing.
        activations: Keeps what the first blocks say where features are computed; None keeps nothing.
    """

    def __init__(
        self,
        classifier: StudentClassifier,
        config: TrainingConfig,
        store: FeatureStore | FeatureFolder | None,
        activations: Activations | None = None,
    ) -> None:
        self._classifier, self._config, self._store, self._activations = classifier, config, store, activations
        weights_sha = hash_weights(classifier.student.backbone.state_dict())
        facts = [weights_sha, asdict(classifier.input), classifier.device.type, config.bfloat16, config.channels_last]
        facts += [torch.__version__, timm.__version__]  # another version may round, or build the network, otherwise
        self._of = json.dumps(facts).encode()

    def parts(
        self, images: PixelSource, keys: Sequence[bytes], count: int | None = None, *, start: int = 0
    ) -> Iterator[Tensor]:
        """Yield the features `[B, F]` float16 of some images, some at a time and in order, on the device.

        Args:
            images: `[M, S, S, 3]`, at the student's input size or any other.
            keys: Name of each image's pixels, `M`; empty if they have none, and nothing is looked up or kept.
            count: Number of the images; all that follow by default.
            start: Place of the first of them.

        Raises:
            DataError: An image is broken, or its features are not finite.
        """

        def outputs(of_these: slice) -> Tensor:
            cut = slice(start + of_these.start, start + of_these.stop)
            names = self._names(keys[cut])
            if self._store is None or not keys:
                return self._computed(images[cut], names)
            if isinstance(self._store, FeatureFolder):
                name = hashlib.sha256(self._of + b"".join(keys[cut])).digest()
                features = self._store.part(name, lambda: self._computed(images[cut], names).cpu().numpy())
                return torch.from_numpy(features).to(self._classifier.device)
            return self._looked_up(images, cut.start, names, self._store)

        size, device = self._config.evaluation_batch_size, self._classifier.device
        self._classifier.student.eval()
        yield from in_chunks(outputs, len(images) - start if count is None else count, size, device)

    def noted(self, keys: Sequence[bytes]) -> dict[int, Tensor]:
        """Return what the first blocks said of those views, as far as it was noted: activations float16 by place."""
        if self._activations is None:
            return {}
        found = {place: self._activations.take(name) for place, name in enumerate(self._names(keys))}
        return {place: said for place, said in found.items() if said is not None}

    def _names(self, keys: Sequence[bytes]) -> list[bytes]:
        return [hashlib.sha256(self._of + key).digest() for key in keys]

    def _looked_up(self, images: PixelSource, start: int, names: Sequence[bytes], store: FeatureStore) -> Tensor:
        known = store.get(names)
        missing = np.array([place for place, name in enumerate(names) if name not in known], dtype=np.int64)
        if len(missing):
            computed = self._computed(images[start + missing], [names[place] for place in missing]).cpu().numpy()
            new = {names[place]: vector for place, vector in zip(missing.tolist(), computed, strict=True)}
            store.put(new.items())
            known |= new
        return torch.from_numpy(np.stack([known[name] for name in names])).to(self._classifier.device)

    @torch.no_grad()
    def _computed(self, pixels: NDArray[np.uint8], names: Sequence[bytes]) -> Tensor:
        student, device, input_format = self._classifier.student, self._classifier.device, self._classifier.input
        kept, said = self._activations if names else None, list[Tensor]()
        forward = student.features if kept is None else _noting(said, *cut_backbone(student.backbone, kept.blocks))

        def of_few(few: NDArray[np.uint8]) -> Tensor:
            inputs = student_input(few, input_format, device, channels_last=self._config.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=self._config.bfloat16):
                return halved(forward(inputs).float())

        features = a_few_at_once(of_few, pixels, input_format.size, device)
        if kept is not None:
            kept.put(names, torch.cat(said))
        if not features.isfinite().all():
            raise DataError(
                "the student gives features that are not finite: name another student.name or student.weights"
            )
        return features


def _noting(said: list[Tensor], lower: nn.Module, upper: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return both parts of a backbone as one, which notes what the first says."""

    def forward(inputs: Tensor) -> Tensor:
        below = lower(inputs)
        said.append(halved(below.float()))
        return cast(Tensor, upper(below))

    return forward
