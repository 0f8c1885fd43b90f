"""The settings of a sweep: one run's, varied over targets, seeds and methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vl2v_client.config.presets import resolve
from vl2v_client.config.run import RunConfig
from vl2v_client.core.errors import UsageError
from vl2v_client.core.values import TeacherModel
from vl2v_client.data.folder import DomainDataset, open_dataset
from vl2v_client.planning.choice import QueryChoice, query_choice
from vl2v_client.planning.hashing import file_facts
from vl2v_client.runs.settings import RunSettings, settle
from vl2v_client.student.model.spec import StudentSpec
from vl2v_contract.canonical import sha256_hex

_OF_ONE_RUN = ("stages", "student", "erm_learning_rates")


@dataclass(frozen=True)
class SweepSettings:
    """What a sweep runs.

    Attributes:
        run: Settings of each run; its target domain, method and training seed are replaced. The seed of split and
            views stays, so that one purchase serves all.
        targets: Domains to hold out in turn.
        seeds: Seeds of the trainings.
        methods: Keys of `student.loss.methods.METHODS`.
    """

    run: RunSettings
    targets: tuple[str, ...]
    seeds: tuple[int, ...]
    methods: tuple[str, ...]

    def runs(self) -> list[tuple[str, int, str]]:
        """Return target, seed and method of every run, those of a target together."""
        return [(target, seed, method) for target in self.targets for seed in self.seeds for method in self.methods]

    def of(self, target: str, seed: int, method: str) -> RunSettings:
        """Return the settings of one run."""
        return self.run.with_method(method, target_domain=target, seed=seed)

    def describe(self) -> str:
        """Return the numbers of runs, targets, seeds and methods as words."""
        parts = f"{len(self.targets)} targets, {len(self.seeds)} seeds, {len(self.methods)} methods"
        return f"{len(self.runs())} runs ({parts})"

    def describe_views(self) -> str:
        """Return how many views there are, and how they are chosen, as words."""
        choice = self.run.choice
        if self.run.online:
            return f"fresh at every step, {choice.recipe}"
        further = "" if choice.rendered_views == choice.views else f", {choice.views} of them asked about"
        return f"{choice.rendered_views}{further}, {choice.recipe}"

    @cached_property
    def shared_choice(self) -> QueryChoice:
        """What all runs together ask: the training images of every domain that is a source of one of them.

        A domain's split does not depend on the target, so with two targets or more that is all.
        """
        target = self.targets[0] if len(self.targets) == 1 else None
        return replace(self.run.choice, target_domain=target)

    def to_json(self, teacher: TeacherModel, dataset: DomainDataset) -> dict[str, Any]:
        """Return what all runs share; more targets, seeds and methods may be added to a sweep's folder later.

        The data set's files by name and size are a part of it: another file would split its domain anew.
        """
        shared = {name: value for name, value in self.run.to_json(teacher).items() if name not in _OF_ONE_RUN}
        for group, options in {"data": ("target_domain",), "training": ("seed", "method", "baselines")}.items():
            shared[group] = {name: value for name, value in shared[group].items() if name not in options}
        sizes = ((one.path, file_facts(str(one.path))[0]) for one in dataset.samples)
        files = sorted(f"{path.relative_to(dataset.root)} {size_bytes}" for path, size_bytes in sizes)
        files_sha = sha256_hex("\n".join(files).encode())
        return {"sweep": True, **shared, "student": self.run.student.to_json(), "files_sha": files_sha}


def settle_sweep(
    config: RunConfig,
    targets: tuple[str, ...],
    seeds: tuple[int, ...],
    methods: tuple[str, ...],
    tower: Callable[[], StudentSpec | None] = lambda: None,
) -> SweepSettings:
    """Resolve a sweep and refuse what cannot be run.

    Args:
        config: Configuration of each run.
        targets: Domains to hold out in turn; empty is all.
        seeds: Seeds of the trainings.
        methods: Keys of `student.loss.methods.METHODS`.
        tower: Description of the local teacher's image tower, as in `runs.settings.settle`.

    Raises:
        UsageError: Something is named twice or not at all, the data set has no domains, or as `settle`.
    """
    for what, values in (("target domain", targets), ("seed", seeds), ("method", methods)):
        if len(set(values)) < len(values):
            raise UsageError(f"a {what} is named twice in {', '.join(map(str, values))}: name each once")
    if not seeds or not methods:
        raise UsageError("a sweep needs at least one seed and one method")
    if config.data.seed is None:
        config = config.replace(data=config.data.replace(seed=0))
    *others, last = methods
    training = config.training.replace(method=last, baselines=tuple(others))
    run = settle(config.replace(training=training), tower)  # all methods at once, so that each is checked
    return SweepSettings(run, _targets(run, targets), seeds, methods)


def default_sweep_folder(config: RunConfig) -> Path:
    """Return the folder of a sweep where nobody names one."""
    return Path("runs") / f"{query_choice(resolve(config)).data.resolve().name}-sweep"


def _targets(run: RunSettings, targets: tuple[str, ...]) -> tuple[str, ...]:
    dataset = open_dataset(run.choice.data)
    if not dataset.has_domains:
        raise UsageError(f"{dataset.root} has no domains to leave out: give a data set of domain/class/file")
    for target in targets:
        dataset.source_domains(target)  # it names the domains that there are
    return targets or dataset.domains
