"""Leave one domain out, over all targets and several seeds: one purchase, then a run folder for each student."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vl2v_client.core.errors import BudgetExhausted, RunError, UsageError
from vl2v_client.core.progress import Progress, renamed
from vl2v_client.core.values import TeacherModel
from vl2v_client.data.folder import DomainDataset, open_dataset
from vl2v_client.evaluation.leave_one_out import Outcome
from vl2v_client.evaluation.zero_shot import zero_shot_logits
from vl2v_client.export.report import RunReport, read_report
from vl2v_client.export.sweep_report import SharedPurchase, SweepReport, write_sweep_report
from vl2v_client.planning.contents import file_facts
from vl2v_client.planning.plan import QueryPlan
from vl2v_client.recipes.distill import distill
from vl2v_client.recipes.local import LocalSource, plan_local
from vl2v_client.recipes.purchase import PlannedRun, PurchaseContext, buy_planned, check_hold_out, cut_planned, plan_run
from vl2v_client.recipes.queries import QueryChoice
from vl2v_client.recipes.readings import billable_image_keys, billable_text_keys
from vl2v_client.recipes.run_folder import claim_run_folder
from vl2v_client.recipes.scoring import ZERO_SHOT
from vl2v_client.recipes.settings import RunSettings
from vl2v_client.recipes.targets import text_classifier
from vl2v_client.recipes.used import keep_left_out, read_left_out
from vl2v_client.student.methods import METHODS, asks_about_images
from vl2v_client.student.stages import online_queries
from vl2v_contract.canonical import sha256_hex

_OF_ONE_RUN = ("target_domain", "method", "baselines", "stages", "student", "erm_learning_rates")


@dataclass(frozen=True)
class SweepSettings:
    """What a sweep runs.

    Attributes:
        run: of each run; its target domain, method and training seed are replaced. The seed of split and views stays,
            so that one purchase serves all.
        targets: domains to hold out in turn; empty is all.
        seeds: of the trainings.
        methods: keys of `student.methods.METHODS`.

    Raises:
        UsageError: something is named twice or not at all, or the runs would spend on their own.
    """

    run: RunSettings
    targets: tuple[str, ...]
    seeds: tuple[int, ...]
    methods: tuple[str, ...]

    def __post_init__(self) -> None:
        for what, values in (("target domain", self.targets), ("seed", self.seeds), ("method", self.methods)):
            if len(set(values)) < len(values):
                raise UsageError(f"a {what} is named twice in {', '.join(map(str, values))}: name each once")
        if not self.seeds or not self.methods:
            raise UsageError("a sweep needs at least one seed and one method")
        if self.run.spending.select is not None or self.run.baselines:
            raise UsageError("a sweep trains each method on one shared purchase: leave --select and --baseline out")
        for method in self.methods:
            replace(self.run, method=method)  # it refuses what it cannot do before anything is bought

    def of(self, target: str, seed: int, method: str) -> RunSettings:
        """One run."""
        choice = replace(self.run.choice, target_domain=target)
        return replace(self.run, choice=choice, training=replace(self.run.training, seed=seed), method=method)

    def shared_choice(self, targets: tuple[str, ...]) -> QueryChoice:
        """What all runs together ask: the training images of every domain that is a source of one of them.

        A domain's split does not depend on the target, so with two targets or more that is all.
        """
        asks = any(asks_about_images(METHODS[name](self.run.training), self.run.training) for name in self.methods)
        return replace(
            self.run.choice,
            target_domain=targets[0] if len(targets) == 1 else None,
            ask_images=self.run.choice.ask_images and asks,
        )

    def to_json(self, teacher: TeacherModel, dataset: DomainDataset) -> dict[str, Any]:
        """What all runs share; more targets, seeds and methods may be added to a sweep's folder later.

        The data set's files by name and size are a part of it: another file would split its domain anew.
        """
        shared = {name: value for name, value in self.run.to_json(teacher).items() if name not in _OF_ONE_RUN}
        shared["training"] = {name: value for name, value in shared["training"].items() if name != "seed"}
        sizes = ((one.path, file_facts(str(one.path))[0]) for one in dataset.samples)
        files = sorted(f"{path.relative_to(dataset.root)} {size_bytes}" for path, size_bytes in sizes)
        files_sha = sha256_hex("\n".join(files).encode())
        return {"sweep": True, **shared, "student": self.run.student.to_json(), "files_sha": files_sha}


def sweep(
    settings: SweepSettings, source: PurchaseContext | LocalSource, out: Path, *, progress: Progress
) -> SweepReport:
    """Buy once, then train and score every student; called again, it goes on where it stopped.

    Buying for several targets buys training images of every domain; a run reads those of its source domains alone,
    and opens its own target after training and selection.

    Args:
        settings: what to run.
        source: the vendor, or a local teacher.
        out: `TARGET/seedN/METHOD` under it are run folders; the report is in it.
        progress: told of every run, as `i/n PHASE`.

    Raises:
        ClientError: see `core.errors`; whatever was bought and trained so far is kept.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("a sweep runs in one process: under torchrun, use `distill` for each run")
    targets = _targets(settings)
    choice = settings.shared_choice(targets)
    if isinstance(source, LocalSource):
        shared = plan_local(choice, source, progress=progress)
    else:
        shared = plan_run(choice, source, progress=progress)
    with claim_run_folder(out, settings.to_json(shared.plan.teacher, shared.queries.dataset)) as folder:
        if not isinstance(source, LocalSource):
            left_out = read_left_out(folder)
            shared = cut_planned(shared, [key for key in shared.plan.used_image_keys if key not in left_out])
            source.notify(_announcement(settings, targets, shared))
            check_hold_out(shared, source, progress=progress)
            buy_planned(shared.plan, source, progress=progress)
            text_classifier(shared, source.cache.get_many(shared.plan.text_keys))  # it names a text that failed
            left_out = keep_left_out(folder, left_out.union(source.cache.missing(shared.plan.used_image_keys)))
            refuse = partial(_refuse, left_out)
            source = replace(
                source, approve=refuse, notify=lambda _sentence: None, caps=None, allow_partial=bool(left_out)
            )
        reports = dict(_run_all(settings, targets, source, folder.path, progress))
        report = _report(settings, targets, source, shared, reports)
        write_sweep_report(folder.path, report)
        return report


def _announcement(settings: SweepSettings, targets: tuple[str, ...], shared: PlannedRun) -> str:
    runs = len(targets) * len(settings.seeds) * len(settings.methods)
    sources = len(shared.queries.dataset.domains) - 1
    published = online_queries(settings.run.training, sources) * len(targets) * len(settings.seeds)
    return (
        f"One purchase serves all {runs} runs ({len(targets)} targets, {len(settings.seeds)} seeds, "
        f"{len(settings.methods)} methods): {shared.plan.units:,} new queries. "
        f"The published loop would ask {published:,}"
    )


Run = tuple[str, int, str]
"""Target, seed and method."""


def _targets(settings: SweepSettings) -> tuple[str, ...]:
    dataset = open_dataset(settings.run.choice.data)
    if not dataset.has_domains:
        raise UsageError(f"{dataset.root} has no domains to leave out: give a data set of domain/class/file")
    for target in settings.targets:
        dataset.source_domains(target)  # it names the domains that there are
    return settings.targets or dataset.domains


def _run_all(
    settings: SweepSettings,
    targets: tuple[str, ...],
    source: PurchaseContext | LocalSource,
    out: Path,
    progress: Progress,
) -> Iterator[tuple[Run, RunReport]]:
    """Every run's report; the rendered views of a target are shared by its runs, and removed after the last."""
    runs = [(target, seed, method) for target in targets for seed in settings.seeds for method in settings.methods]
    for number, run in enumerate(runs, start=1):
        target, seed, method = run
        place, renders = out / target / f"seed{seed}" / method, out / target / "renders"
        run_progress = _numbered(progress, f"{number}/{len(runs)}")
        yield run, _finished(place) or distill(settings.of(*run), source, place, progress=run_progress, renders=renders)
        if run[1:] == (settings.seeds[-1], settings.methods[-1]):
            shutil.rmtree(renders, ignore_errors=True)


def _numbered(progress: Progress, number: str) -> Progress:
    return renamed(progress, lambda phase: f"{number} {phase}")


def _finished(place: Path) -> RunReport | None:
    """The report of a run that is done; the sweep's own settings and the place decide what it ran with."""
    try:
        return read_report(place)
    except RunError:
        return None


def _refuse(left_out: frozenset[str], plan: QueryPlan) -> None:
    """No run buys: it goes on without what the purchase left out, and ends if it misses anything else."""
    if left_out.issuperset(item.cache_key for item in plan.missing):
        raise BudgetExhausted("left out of the sweep's one purchase")
    raise RunError(
        f"a run wants {plan.units:,} queries beyond the sweep's one purchase: files or the vendor's model have changed "
        "since; choose another --out, and what is bought already costs nothing"
    )


def _report(
    settings: SweepSettings,
    targets: tuple[str, ...],
    source: PurchaseContext | LocalSource,
    shared: PlannedRun,
    reports: dict[Run, RunReport],
) -> SweepReport:
    run, dataset = settings.run, shared.queries.dataset
    purchase = None if isinstance(source, LocalSource) else _paid(source, shared.plan)
    sources = len(dataset.domains) - 1
    return SweepReport(
        dataset=dataset.root.name,
        targets=targets,
        seeds=settings.seeds,
        teacher=shared.plan.teacher.id,
        student=f"{run.student.architecture} at {run.student.input.size} px",
        views=_views(run),
        outcomes=tuple(_outcome(key, report) for key, report in reports.items()),
        teacher_target_in=_teacher(targets, source, shared, reports),
        purchase=purchase,
        queries={} if isinstance(source, LocalSource) else _queries(settings, source, shared),
        published_queries=online_queries(run.training, sources) * len(targets),
    )


def _views(run: RunSettings) -> str:
    choice = run.choice
    if run.online:
        return f"fresh at every step, {choice.recipe}"
    further = "" if choice.rendered_views == choice.views else f", {choice.views} of them asked about"
    return f"{choice.rendered_views}{further}, {choice.recipe}"


def _outcome(run: Run, report: RunReport) -> Outcome:
    target, seed, _ = run
    row = report.rows[-1]
    if row.source_validation is None or row.target is None or row.target_in is None:
        raise RunError(f"the report of target {target}, seed {seed} has no accuracy: remove its folder, and run again")
    return Outcome(row.name, target, seed, row.source_validation, row.target_in, row.target)


def _paid(buying: PurchaseContext, plan: QueryPlan) -> SharedPurchase:
    paid = buying.cache.records.paid([*plan.used_image_keys, *plan.text_keys])
    amount_micro = sum(of_kind.amount_micro for of_kind in paid.values())
    return SharedPurchase(paid["image"].units, paid["text"].units, amount_micro, plan.currency)


def _queries(settings: SweepSettings, buying: PurchaseContext, shared: PlannedRun) -> dict[str, int]:
    """What each method reads of the shared purchase, counted as a run's report does, by the method's name."""
    found, config = {}, settings.run.training
    for key in settings.methods:
        method = METHODS[key](config)
        keys = (*billable_image_keys(method, config, shared), *billable_text_keys(method, shared))
        found[method.name] = sum(of_kind.units for of_kind in buying.cache.records.paid(keys).values())
    return found


def _teacher(
    targets: tuple[str, ...], source: PurchaseContext | LocalSource, shared: PlannedRun, reports: dict[Run, RunReport]
) -> dict[str, float]:
    """The zero-shot teacher on each target: a local one says so in every report.

    Of a vendor's, the first views of a target's training part, which DomainBed's tables report, were bought for the
    runs where it is a source.
    """
    if isinstance(source, LocalSource):
        said = {key[0]: row for key, report in reports.items() for row in report.rows if row.name == ZERO_SHOT}
        return {target: row.target_in for target, row in said.items() if row.target_in is not None}
    queries, plan, teacher = shared.queries, shared.plan, shared.plan.teacher
    if not queries.asked_views:
        return {}
    first_views = plan.image_keys[:: queries.asked_views]
    vectors = source.cache.get_many([*first_views, *plan.text_keys])
    classifier = text_classifier(shared, vectors)
    found = {}
    for target in targets:
        places = enumerate(queries.split.train)
        rows = [row for row, sample in places if sample.domain == target and first_views[row] in vectors]
        if not rows:
            continue
        logits = zero_shot_logits(
            np.stack([vectors[first_views[row]] for row in rows]).astype(np.float32),
            classifier,
            logit_scale=teacher.logit_scale,
            logit_bias=teacher.logit_bias,
        )
        labels = np.array([queries.split.train[row].class_index for row in rows])
        found[target] = float((logits.argmax(axis=1) == labels).mean())
    return found
