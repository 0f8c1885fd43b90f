"""What is kept of a run image by image: its predictions on the unseen domain and on the source domains' hold-out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vl2v_client.core.values import Sample
from vl2v_client.data.folder import DomainDataset
from vl2v_client.data.splits import Split
from vl2v_client.evaluation.accuracy import (
    HOLD_OUT_FILE,
    PREDICTIONS_FILE,
    Choices,
    ImagePrediction,
    read_predictions,
    write_predictions,
)
from vl2v_client.runs.reporting import Score
from vl2v_client.runs.run_folder import RunFolder


def keep_predictions(
    folder: RunFolder,
    root: Path,
    samples: Sequence[Sample],
    class_names: Sequence[str],
    choices: Mapping[str, Choices | None],
    *,
    keep_others: bool,
    name: str = PREDICTIONS_FILE,
) -> None:
    """Write the predictions of some classifiers for images that they were not trained on.

    Args:
        folder: The run.
        root: Folder of the data set.
        samples: `N` images.
        class_names: Names by class index.
        choices: Predictions `[N]` by the name of the classifier's row; None adds nothing.
        keep_others: Keep what the file holds of other classifiers; else they are dropped.
        name: Name of the file, which tells the unseen domain from the hold-out.

    Raises:
        CacheError: The folder cannot be written.
        RunError: The file that is there is damaged.
    """
    new = {name: made for name, made in choices.items() if made is not None}
    rows = [row for row in read_predictions(folder.path, name) if row.classifier not in new] if keep_others else []
    for classifier, made in new.items():
        for sample, index, probability in zip(samples, made.classes, made.probabilities, strict=True):
            path, label = sample.path.relative_to(root).as_posix(), class_names[sample.class_index]
            rows.append(ImagePrediction(classifier, path, label, class_names[index], float(probability)))
    if rows:
        write_predictions(folder.path, rows, name)


def keep_all_predictions(
    folder: RunFolder,
    dataset: DomainDataset,
    split: Split,
    scores: Sequence[Score],
    teacher: Mapping[str, Choices | None],
    *,
    keep_others: bool,
) -> None:
    """Write what every classifier, and the teacher by its row's name, says of the unseen domain and of the hold-out.

    `keep_others` keeps what the file of the unseen domain holds of other classifiers.

    Raises:
        CacheError: The folder cannot be written.
        RunError: A file that is there is damaged.
    """
    root, classes = dataset.root, dataset.class_names
    on_target = {**teacher, **{one.row.name: one.on_target for one in scores}}
    on_validation = {one.row.name: one.on_validation for one in scores}
    keep_predictions(folder, root, split.target, classes, on_target, keep_others=keep_others)
    keep_predictions(folder, root, split.validation, classes, on_validation, keep_others=False, name=HOLD_OUT_FILE)
