"""Leave one domain out, over targets and seeds, by the commands that a user types; as resumable as they are."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from local_vendor import CONSOLE, run

from vl2v_client.evaluation.spread import spread

PUBLISHED_VIEWS = ("--train-views", "4", "--view-recipe", "standard")
"""The published method trains on the views that are bought; the default preset adds more to both rows."""

TEACHER, ERM, ADIP = "zero-shot teacher", "ERM", "VL2V-ADiP"


@dataclass(frozen=True)
class Outcome:
    """One target and seed: accuracy on the unseen domain by row of the report, and what it took."""

    target: str
    seed: int
    accuracy: Mapping[str, float]
    queries: int
    amount_micro: int
    currency: str


def measure(
    environment: dict[str, str], data: Path, target: str, seed: int, out: Path, options: Sequence[str]
) -> Outcome:
    """Distil with ERM beside it, then ask the teacher about the unseen domain."""
    CONSOLE.print(f"[bold]{target}, seed {seed}[/]")
    words = ("--data", str(data), "--target-domain", target, "--seed", str(seed), "--out", str(out))
    run(environment, "vl2v-client", "distill", *words, "--baseline", "erm", "--yes", *PUBLISHED_VIEWS, *options)
    run(environment, "vl2v-client", "evaluate", str(out), "--teacher", "--yes")
    report = json.loads((out / "report.json").read_text())
    purchase = report["purchase"]
    return Outcome(
        target=target,
        seed=seed,
        accuracy={row["name"]: row["target"] for row in report["rows"]},
        queries=purchase["images"] + purchase["texts"],
        amount_micro=purchase["amount_micro"],
        currency=purchase["currency"],
    )


def table(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """A row per target: mean accuracy over seeds in percent, with the spread of the gain."""
    rows = []
    for target in dict.fromkeys(outcome.target for outcome in outcomes):
        rows.append(_row(target, [outcome for outcome in outcomes if outcome.target == target]))
    return [*rows, _row("mean", outcomes)]


def gains(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """VL2V-ADiP over ERM, paired by target and seed: mean and standard error, in points."""
    differences = [100 * (outcome.accuracy[ADIP] - outcome.accuracy[ERM]) for outcome in outcomes]
    found = spread(differences)
    return found.mean, math.nan if found.standard_error is None else found.standard_error


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """A benchmark's own words, and those after `--`, which are for `vl2v-client distill`."""
    if "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def _row(name: str, outcomes: Sequence[Outcome]) -> dict[str, object]:
    gain, error = gains(outcomes)
    accuracies = {row: 100 * mean(outcome.accuracy[row] for outcome in outcomes) for row in (TEACHER, ERM, ADIP)}
    return {
        "unseen domain": name,
        "runs": len(outcomes),
        **accuracies,
        "gain over ERM": gain,
        "standard error": error,
        "queries a run": round(mean(outcome.queries for outcome in outcomes)),
        "price a run, micro": round(mean(outcome.amount_micro for outcome in outcomes)),
        "currency": outcomes[0].currency,
    }
