"""Spending a number of queries: which images and views to ask about, in one round or in two.

The budget counts every query that the run uses, those that the cache holds already included (they cost nothing), so
the same command chooses the same queries whatever is in the cache, and never buys a second budget. Texts come first:
nothing trains without them. Then first views before second ones, in the order of the selector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.errors import BudgetExhausted, RunError, UsageError
from vl2v_client.core.progress import Progress, silent
from vl2v_client.planning.buyer import PurchaseReport
from vl2v_client.planning.plan import QueryPlan
from vl2v_client.planning.selection import PROBABILITY_SELECTORS, RANDOM, select
from vl2v_client.planning.spending import Spending
from vl2v_client.recipes.purchase import Buying, PlannedRun, buy_planned, cut_planned
from vl2v_client.recipes.run_folder import RunFolder
from vl2v_client.recipes.targets import asked_targets, text_classifier
from vl2v_client.teacher.linear_map import LinearMap, fit_linear_map
from vl2v_client.teacher.targets import mixed_targets

Features = Callable[[], NDArray[np.float32]]
"""Makes the frozen student's features `[N, F]` of the training images' canonical views; called if they are needed."""

_ALIGN_IMAGE_WEIGHT = 0.5


@dataclass(frozen=True)
class ChosenRun:
    """A run within its budget.

    Attributes:
        planned: with its plan cut to what is used.
        first_purchase: what the first of two rounds has bought; None if there was one round.
    """

    planned: PlannedRun
    first_purchase: PurchaseReport | None


@dataclass(frozen=True)
class FirstRound:
    """What can be said before anything is bought.

    Attributes:
        planned: the run with its plan cut to the first round; to the whole choice if there is one round.
        later: image queries that a second round will choose.
    """

    planned: PlannedRun
    later: int


def first_round(spending: Spending, planned: PlannedRun, *, seed: int, features: Features) -> FirstRound:
    """Choose what is bought first; all of it if there is one round, or no selection at all.

    Raises:
        BudgetExhausted: the budget cannot hold the texts.
        UsageError: there is no image to choose, or no further view for a second round.
    """
    if spending.select is None:
        return FirstRound(planned, 0)
    _check_images(planned)
    chooser = _Chooser(spending, planned, seed, features)
    keys = chooser.first()
    return FirstRound(cut_planned(planned, keys), chooser.budget - len(keys) if spending.in_two_rounds else 0)


def choose_queries(
    spending: Spending,
    planned: PlannedRun,
    buying: Buying,
    *,
    seed: int,
    features: Features,
    folder: RunFolder | None = None,
    progress: Progress = silent,
) -> ChosenRun:
    """The run with its plan cut to what it may spend; of two rounds, the first is bought here.

    Args:
        spending: how.
        planned: with every query.
        buying: for the first of two rounds.
        seed: of the selection.
        features: of the images, in the order of the split.
        folder: keeps the choice, so that a run that goes on uses the same; None keeps none.
        progress: told of the first purchase.

    Raises:
        BudgetExhausted: the budget cannot hold the texts.
        UsageError: there is no image to choose, or no further view for a second round.
        RunError: the images have changed since the folder's choice.
    """
    if spending.select is None:
        return ChosenRun(planned, None)
    _check_images(planned)
    chosen = [] if folder is None else _read(folder, planned.plan)
    chooser = _Chooser(spending, planned, seed, features)
    if not chosen:
        chosen.append(chooser.first())
        _write(folder, chosen)
    first_purchase = None
    if spending.in_two_rounds and len(chosen) == 1:
        first = cut_planned(planned, chosen[0])
        try:
            first_purchase = buy_planned(first.plan, buying, progress=progress)
        except BudgetExhausted as error:
            if not buying.allow_partial:
                raise
            buying.notify(f"{error}. There is no second round")
            return ChosenRun(first, None)
        chosen.append(chooser.second(chosen[0], buying))
        _write(folder, chosen)
    return ChosenRun(cut_planned(planned, [key for keys in chosen for key in keys]), first_purchase)


def _check_images(planned: PlannedRun) -> None:
    if not planned.plan.image_keys:
        raise UsageError("--views 0 asks about no image: leave --select out")


class _Chooser:
    """Names image queries by cache key, each content once. Rows are those of the first image of each content."""

    def __init__(self, spending: Spending, planned: PlannedRun, seed: int, features: Features) -> None:
        self._spending, self._planned, self._seed, self._make_features = spending, planned, seed, features
        plan, self._views = planned.plan, planned.queries.asked_views
        assert spending.max_queries is not None
        texts = len(set(plan.text_keys))
        lacking = sum(item.modality == "text" and not item.is_expired for item in plan.missing)
        if lacking > spending.max_queries:
            raise BudgetExhausted(
                f"--max-queries {spending.max_queries:,} cannot hold the {texts:,} texts of the classes, and nothing "
                f"trains without them: raise it to {texts:,} for text alone, and to more for images"
            )
        if spending.rounds == 2 and self._views < 2:
            raise UsageError("--rounds 2 spends the rest on further views, and there are none: use --views 2 or more")
        self.budget = min(max(0, spending.max_queries - texts), len(set(plan.image_keys)))
        train = planned.queries.split.train
        firsts = {plan.image_keys[row * self._views]: row for row in reversed(range(len(train)))}
        self._rows = sorted(firsts.values())
        self._labels = np.array([train[row].class_index for row in self._rows], dtype=np.int64)
        self._domains = [train[row].domain for row in self._rows]

    def first(self) -> list[str]:
        """The whole choice, or that of the first of two rounds: half of the budget, of first views only."""
        spending = self._spending
        budget = -(-self.budget // 2) if spending.in_two_rounds else self.budget
        name = RANDOM if spending.select in PROBABILITY_SELECTORS or spending.select is None else spending.select
        places = self._select(name, min(budget, len(self._rows)))
        views = 1 if spending.in_two_rounds else self._views
        return self._fill((), [(place, view) for view in range(views) for place in places], budget)

    def second(self, first: Sequence[str], buying: Buying) -> list[str]:
        """What is left of the budget, after the first round's embeddings have come."""
        place_of = {self._planned.plan.image_keys[row * self._views]: place for place, row in enumerate(self._rows)}
        taken = [place_of[key] for key in first]
        if self._spending.rounds == 2:  # all views of the hardest image, then of the next
            hardest = self._by_gap(taken, buying)
            queries = [(place, view) for place in hardest for view in range(1, self._views)]
        else:
            order = self._by_probability(taken, buying)
            queries = [(place, view) for view in range(self._views) for place in order]
        return self._fill(first, queries, self.budget - len(first))

    @cached_property
    def _features(self) -> NDArray[np.float32]:
        """`[n, F]`, of the rows."""
        return self._make_features()[self._rows]

    def _select(self, name: str, budget: int, **known: Any) -> list[int]:
        if name != RANDOM and name not in PROBABILITY_SELECTORS:
            known["features"] = self._features
        return select(name, labels=self._labels, domains=self._domains, budget=budget, seed=self._seed, **known)

    def _by_probability(self, taken: Sequence[int], buying: Buying) -> list[int]:
        """All places: those that the selector names, closest call first, then those of the first round."""
        aligned = self._align(taken, buying)
        name, teacher = str(self._spending.select), self._planned.plan.teacher
        if aligned is None:
            rest = [place for place in self._select(RANDOM, len(self._rows)) if place not in set(taken)]
            return [*rest, *taken]
        linear, classifier, _, _ = aligned
        cosines = _unit(linear(self._features)) @ classifier.T
        probabilities = _softmax(teacher.logit_scale * cosines + teacher.logit_bias)
        budget = min(self.budget, len(self._rows)) - len(taken)
        return [*self._select(name, budget, probabilities=probabilities, chosen=taken), *taken]

    def _by_gap(self, taken: Sequence[int], buying: Buying) -> list[int]:
        """The first round's places, the largest gap between its target and a student that never saw it first."""
        aligned = self._align(taken, buying)
        if aligned is None:
            return list(taken)
        linear, _, known, targets = aligned
        gaps = 1 - (_unit(linear.left_out) * _unit(targets)).sum(axis=1)
        hardest = [known[i] for i in np.argsort(-gaps, kind="stable").tolist()]
        return [*hardest, *(place for place in taken if place not in set(known))]

    def _align(
        self, taken: Sequence[int], buying: Buying
    ) -> tuple[LinearMap, NDArray[np.float64], list[int], NDArray[np.float64]] | None:
        """The projection that aligns the frozen student to the bought targets, in closed form.

        Returns:
            It, the classifier `[C, D]`, the places whose embedding came, `[n]`, and their mixed targets `[n, D]`;
            None if fewer than two came.
        """
        queries, plan = self._planned.queries, self._planned.plan
        vectors = buying.cache.get_many([*plan.image_keys, *plan.text_keys])
        bought = asked_targets(queries, plan, vectors, allow_missing=True)
        known = [place for place in taken if bought.bought[self._rows[place], 0]]
        if len(known) < 2:
            return None
        classifier = text_classifier(self._planned, vectors)
        labels = np.array([sample.class_index for sample in queries.split.train], dtype=np.int64)
        rows = [self._rows[place] for place in known]
        targets = mixed_targets(bought, classifier, labels, _ALIGN_IMAGE_WEIGHT)[rows, 0].astype(np.float64)
        return fit_linear_map(self._features[known], targets), classifier.astype(np.float64), known, targets

    def _fill(self, before: Iterable[str], queries: Iterable[tuple[int, int]], budget: int) -> list[str]:
        """Keys of the queries `(place, view)`, in order, each once and none of `before`, as many as fit."""
        taken, keys = set(before), list[str]()
        for place, view in queries:
            key = self._planned.plan.image_keys[self._rows[place] * self._views + view]
            if len(keys) < budget and key not in taken:
                taken.add(key)
                keys.append(key)
        return keys


def _read(folder: RunFolder, plan: QueryPlan) -> list[list[str]]:
    """The rounds that this run has chosen already; none if it has not, or if the choice is of other settings."""
    record = folder.recall(folder.choice)
    if record is None:
        return []
    rounds: list[list[str]] = record["rounds"]
    if not {key for keys in rounds for key in keys} <= set(plan.image_keys):
        raise RunError(f"{folder.path} chose images that have changed since: put them back, or choose another --out")
    return rounds


def _write(folder: RunFolder | None, rounds: Sequence[Sequence[str]]) -> None:
    if folder is not None:
        folder.keep(folder.choice, {"rounds": rounds})


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return scaled


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return scaled
