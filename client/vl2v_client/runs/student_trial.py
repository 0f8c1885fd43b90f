"""A trial of the student before anything is bought for it: its weights are loaded, and it is shown a few images."""

import time

from vl2v_client.core.errors import DataError
from vl2v_client.core.progress import format_seconds
from vl2v_client.data.view_pixels import ViewSequence, canonical_pixels
from vl2v_client.planning.choice import RunQueries
from vl2v_client.runs.settings import RunSettings
from vl2v_client.student.loss.methods import WHITE_BOX
from vl2v_client.student.model.classifier import StudentClassifier
from vl2v_client.student.model.network import build_student
from vl2v_client.student.train.devices import resolve_device
from vl2v_client.student.train.frozen_features import FrozenFeatures

_IMAGES = 8


def try_student(settings: RunSettings, queries: RunQueries) -> str:
    """Load the student, show it the first training images, and return a sentence on how long the run's views take.

    Raises:
        UsageError: There is no such device.
        DataError: The weights cannot be had, the student does not run here, or its features are no numbers.
    """
    spec, name = settings.student, settings.config.student.name
    if WHITE_BOX.issuperset(settings.training.methods):
        return f"The student is the {settings.exported_student.architecture}."
    device, train = resolve_device(settings.training.device), queries.split.train[:_IMAGES]
    student = build_student(spec, outputs=1, seed=0)
    try:
        classifier = StudentClassifier(student.to(device), spec.input, None)
        frozen = FrozenFeatures(classifier, settings.training, None)
        images = ViewSequence(canonical_pixels(train, spec.input.size))
        for _ in range(2):  # the first time is slower
            start = time.perf_counter()
            list(frozen.parts(images, ()))
            seconds = (time.perf_counter() - start) / len(train)
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"the student {name!r} does not run on {device} ({reason}): choose another with student.name, or another "
            "training.device; nothing was bought"
        ) from error
    views = len(queries.split.validation) + len(queries.split.train) * max(1, len(queries.views[0]))
    return (
        f"The student {name} reads {1 / seconds:,.0f} images a second on {device.type}: about "
        f"{format_seconds(views * seconds)} for this run's {views:,} views, once."
    )
