"""The predictions that a run folder keeps, for every row of the report that was scored on the unseen domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vl2v_client.core.values import Sample
from vl2v_client.evaluation.accuracy import Choices
from vl2v_client.export.predictions import ImagePrediction, read_predictions, write_predictions
from vl2v_client.runs.run_folder import RunFolder


def keep_predictions(
    folder: RunFolder,
    root: Path,
    samples: Sequence[Sample],
    class_names: Sequence[str],
    choices: Mapping[str, Choices | None],
    *,
    keep_others: bool,
) -> None:
    """Write the predictions of some classifiers for the images of the unseen domain.

    Args:
        folder: The run.
        root: Folder of the data set.
        samples: `N` images of the unseen domain.
        class_names: Names by class index.
        choices: Predictions `[N]` by the name of the classifier's row; None adds nothing.
        keep_others: Keep what the file holds of other classifiers; else they are dropped.

    Raises:
        CacheError: The folder cannot be written.
        RunError: The file that is there is damaged.
    """
    new = {name: made for name, made in choices.items() if made is not None}
    rows = [row for row in read_predictions(folder.path) if row.classifier not in new] if keep_others else []
    for name, made in new.items():
        for sample, index, probability in zip(samples, made.classes, made.probabilities, strict=True):
            path, label = sample.path.relative_to(root).as_posix(), class_names[sample.class_index]
            rows.append(ImagePrediction(name, path, label, class_names[index], float(probability)))
    if rows:
        write_predictions(folder.path, rows)
