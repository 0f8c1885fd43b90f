"""What a frozen student says of views: each view passes it once, for this run and for later ones."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor

from vl2v_client.cache.feature_store import FeatureFolder, FeatureStore
from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.errors import DataError
from vl2v_client.core.values import PixelSource
from vl2v_client.local.teacher import hash_weights
from vl2v_client.student.model.classifier import StudentClassifier, a_few_at_once, in_chunks, student_input

MOST = torch.finfo(torch.float16).max


def halved(values: Tensor) -> Tensor:
    """Return values in the half precision in which they are kept; those beyond its range at its ends."""
    return values.clamp(-MOST, MOST).half()


class FrozenFeatures:
    """Features of a backbone with the weights that it has now.

    They are rounded to half precision whether the store has them or not, so that a run which goes on reads the same.

    Args:
        classifier: Student, on its device; of its parts the backbone alone is read.
        config: Hyper-parameters of the run: precision, memory format and views per forward pass.
        store: Keeps them by weights, input format and view; None keeps nothing.
    """

    def __init__(
        self, classifier: StudentClassifier, config: TrainingConfig, store: FeatureStore | FeatureFolder | None
    ) -> None:
        self._classifier, self._config, self._store = classifier, config, store
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
            if self._store is None or not keys:
                return self._computed(images[cut])
            if isinstance(self._store, FeatureFolder):
                name = hashlib.sha256(self._of + b"".join(keys[cut])).digest()
                features = self._store.part(name, lambda: self._computed(images[cut]).cpu().numpy())
                return torch.from_numpy(features).to(self._classifier.device)
            names = [hashlib.sha256(self._of + key).digest() for key in keys[cut]]
            return self._looked_up(images, cut.start, names, self._store)

        size, device = self._config.evaluation_batch_size, self._classifier.device
        self._classifier.student.eval()
        yield from in_chunks(outputs, len(images) - start if count is None else count, size, device)

    def _looked_up(self, images: PixelSource, start: int, names: Sequence[bytes], store: FeatureStore) -> Tensor:
        known = store.get(names)
        missing = np.array([place for place, name in enumerate(names) if name not in known], dtype=np.int64)
        if len(missing):
            computed = self._computed(images[start + missing]).cpu().numpy()
            new = {names[place]: vector for place, vector in zip(missing.tolist(), computed, strict=True)}
            store.put(new.items())
            known |= new
        return torch.from_numpy(np.stack([known[name] for name in names])).to(self._classifier.device)

    @torch.no_grad()
    def _computed(self, pixels: NDArray[np.uint8]) -> Tensor:
        student, device, input_format = self._classifier.student, self._classifier.device, self._classifier.input

        def of_few(few: NDArray[np.uint8]) -> Tensor:
            inputs = student_input(few, input_format, device, channels_last=self._config.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=self._config.bfloat16):
                return halved(student.features(inputs).float())

        features = a_few_at_once(of_few, pixels, input_format.size, device)
        if not features.isfinite().all():
            raise DataError(
                "the student gives features that are not finite: name another student.name or student.weights"
            )
        return features
