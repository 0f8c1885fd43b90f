"""Score a classifier once it is finished: on the source hold-out, and on the target domain if there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import Sample
from vl2v_client.data.splits import Split
from vl2v_client.evaluation.accuracy import (
    Choices,
    Evaluation,
    ImagePrediction,
    calibration_error,
    choose,
    evaluate,
    fit_temperature,
    negative_log_likelihood,
    read_predictions,
    write_predictions,
)
from vl2v_client.export.report import DomainRow, ReportRow
from vl2v_client.runs.run_folder import RunFolder
from vl2v_client.student.model.classifier import StudentClassifier
from vl2v_client.student.train.labelled_views import LabelledViews

ZERO_SHOT = "zero-shot teacher"


@dataclass(frozen=True)
class Score:
    """A classifier's row in the report, and what the card and the confusion table need.

    Attributes:
        temperature: Fitted on source validation.
        shown: The evaluation that the report shows in full: the target's, else source validation's.
        by_domain: Rows of the source domains on the hold-out, then of the target.
        on_target: Predictions for the target's images, in the split's order; None without a target.
    """

    row: ReportRow
    temperature: float
    shown: Evaluation
    by_domain: tuple[DomainRow, ...]
    on_target: Choices | None = None


def score_classifier(
    name: str,
    classifier: StudentClassifier,
    validation: LabelledViews,
    target: LabelledViews | None,
    split: Split,
    *,
    note: str = "",
    progress: Progress = silent,
) -> Score:
    """Score a trained student; the temperature is fitted on `validation` alone.

    Args:
        name: Name of its row.
        classifier: What was trained.
        validation: Hold-out of the source domains.
        target: Images of the held-out domain, in the split's order; None if there is none.
        split: Says which of the target's images DomainBed's tables use.
        note: Note for its row.
        progress: Gets every batch.
    """
    on_validation = classifier.logits(validation.first(), progress=progress)
    temperature = fit_temperature(on_validation, validation.labels)
    source = evaluate(on_validation, validation.labels, validation.domains)
    logits, labels, shown, judged = on_validation, validation.labels, source, [(source, True)]
    if target is not None:
        logits, labels = classifier.logits(target.first(), progress=progress), target.labels
        shown = evaluate(logits, labels, target.domains)
        judged.append((shown, False))
    in_table = logits.argmax(axis=1)[: len(split.target_in)] == labels[: len(split.target_in)]
    row = ReportRow(
        name=name,
        source_validation=source.domain_mean,
        target=None if target is None else shown.accuracy,
        target_in=None if target is None else float(in_table.mean()),
        nll=negative_log_likelihood(logits, labels, temperature),
        calibration_error=calibration_error(logits, labels, temperature),
        uncalibrated_error=calibration_error(logits, labels),
        note=note,
    )
    by_domain = tuple(
        DomainRow(domain, seen, count.total, count.accuracy)
        for scored, seen in judged
        for domain, count in scored.by_domain.items()
    )
    return Score(row, temperature, shown, by_domain, None if target is None else choose(logits, temperature))


def zero_shot_row(logits: NDArray[np.float32], labels: NDArray[np.int64], *, target_in: int) -> ReportRow:
    """Return the teacher's row on the target domain, whose first `target_in` images DomainBed's tables use."""
    right = logits.argmax(axis=1) == labels
    return ReportRow(ZERO_SHOT, None, target=float(right.mean()), target_in=float(right[:target_in].mean()))


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
