"""Options that say how many queries a run may use, and what chooses them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from vl2v_client.core.progress import Progress
from vl2v_client.planning.selection import SELECTORS
from vl2v_client.planning.spending import Spending
from vl2v_client.recipes.purchase import PlannedRun
from vl2v_client.recipes.spending import Features
from vl2v_client.teacher.imputation import IMPUTATIONS

MaxQueries = Annotated[
    int | None,
    typer.Option(
        "--max-queries", min=0, help="Refuse to buy more new queries; with --select, use no more than these in all."
    ),
]
Select = Annotated[
    str | None,
    typer.Option("--select", help=f"What chooses images within --max-queries: {', '.join(SELECTORS)}."),
]
Impute = Annotated[
    str, typer.Option("--impute", help=f"Targets of views that are not bought: {', '.join(IMPUTATIONS)}.")
]
Student = Annotated[
    str, typer.Option("--student", help="`tiny`, or any timm name: what --select looks at images with.")
]
StudentWeights = Annotated[
    Path | None, typer.Option("--student-weights", help="Its local safetensors, instead of a pretrained tag.")
]
StudentSize = Annotated[int | None, typer.Option("--student-size", min=16, help="Its input size, if not the usual.")]


def spending_from(select: str | None, max_queries: int | None) -> Spending:
    """How to spend; without `select`, `max_queries` is a cap and nothing is chosen."""
    return Spending(select, None if select is None else max_queries)


def features_for(
    planned: PlannedRun,
    name: str,
    weights: Path | None,
    size: int | None,
    *,
    seed: int,
    progress: Progress,
) -> Features:
    """Makes the features of the student's frozen backbone when a selector asks for them."""

    def features() -> NDArray[np.float32]:
        from vl2v_client.recipes.features import canonical_features
        from vl2v_client.student.spec import resolve_student

        spec = resolve_student(name, weights=weights, size=size)
        samples, view_size = planned.queries.split.train, planned.plan.teacher.image_size
        return canonical_features(spec, samples, view_size, seed=seed, progress=progress)

    return features
