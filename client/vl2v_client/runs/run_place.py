"""Where a run lies if nobody names its folder: by data set, target, student, seed, and what else decides its result.

Version 0.1 named it by data set, target and seed alone. A run that lies there with the same settings goes on there.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from vl2v_client.config.run import RunConfig
from vl2v_client.core.errors import ClientError
from vl2v_client.data.folder import open_dataset
from vl2v_client.runs.resolution import resolve_run, run_choice
from vl2v_client.runs.run_folder import holds_run, options_of_before
from vl2v_client.runs.settings import RunSettings, SweepSettings, settle, settle_sweep
from vl2v_client.student.model.spec import StudentSpec
from vl2v_contract.identity import sha256_hex

Tower = Callable[[], StudentSpec | None]
_Settings = TypeVar("_Settings")

_RUNS = Path("runs")
_IN_THE_NAME = {"data": ("root", "target_domain"), "training": ("seed", "extend"), "student": ("name",)}
"""Options that the name shows, by group, and further steps, which go on in the same folder."""


def place_run(config: RunConfig, tower: Tower) -> tuple[RunSettings, Path]:
    """Return the settings of a run, and its folder, where it may go on.

    Raises:
        ClientError: As `runs.settings.settle`.
    """

    def settle_in(folder: Path) -> RunSettings:
        return settle(config, tower, options_of_before(folder))

    return _place(config, default_folders(config), settle_in, lambda settings: settings.to_json(None))


def place_sweep(
    config: RunConfig, targets: tuple[str, ...], seeds: tuple[int, ...], methods: tuple[str, ...], tower: Tower
) -> tuple[SweepSettings, Path]:
    """Return the settings of a sweep, and its folder.

    Raises:
        ClientError: As `runs.settings.settle_sweep`.
    """

    def settle_in(folder: Path) -> SweepSettings:
        return settle_sweep(config, targets, seeds, methods, tower, options_of_before(folder))

    def record(settings: SweepSettings) -> dict[str, Any]:
        return settings.to_json(None, open_dataset(settings.run.choice.data))

    return _place(config, default_folders(config, sweep=True), settle_in, record)


def _place(
    config: RunConfig,
    names: tuple[Path, Path],
    settle_in: Callable[[Path], _Settings],
    record: Callable[[_Settings], Mapping[str, Any]],
) -> tuple[_Settings, Path]:
    new, old = names
    if config.report.out is not None:
        return settle_in(config.report.out), config.report.out
    if old.is_dir():
        with suppress(ClientError):  # it is another run's, or what is wrong is found again below
            settings = settle_in(old)
            if holds_run(old, record(settings)):
                return settings, old
    return settle_in(new), new


def default_folders(config: RunConfig, *, sweep: bool = False) -> tuple[Path, Path]:
    """Return where a run or a sweep lies if nobody names its folder, and where version 0.1 would have put it.

    Raises:
        UsageError: Options contradict each other, or no data set is named.
    """
    resolved = resolve_run(config)
    data = run_choice(resolved).data.resolve().name
    seed = f"seed{config.training.seed}"
    run = "sweep" if sweep else f"{config.data.target_domain or 'all'}-{seed}"
    student = re.sub(r"[^\w.-]+", "-", resolved.student.name)
    middle = "sweep" if sweep else (config.data.target_domain or "all")
    words = [data, middle, student, *([] if sweep else [seed]), *_others(config, resolved)]
    return _RUNS / "-".join(words), _RUNS / f"{data}-{run}"


def _others(config: RunConfig, resolved: RunConfig) -> list[str]:
    """Return a hash of all other options that decide the result; nothing if they are as they are left out."""
    plain = {
        group: {name: value for name, value in getattr(config, group).named().items() if name in names}
        for group, names in _IN_THE_NAME.items()
    }
    mine, usual = (_deciding(one) for one in (resolved, resolve_run(RunConfig.model_validate(plain))))
    return [] if mine == usual else [sha256_hex(json.dumps(mine, sort_keys=True).encode())[:6]]


def _deciding(resolved: RunConfig) -> dict[str, Any]:
    options = {group: getattr(resolved, group).result_options() for group in ("data", "purchase", "training")}
    student = resolved.student.model_dump(mode="json")
    options["student"] = {name: value for name, value in student.items() if value is not None}
    if resolved.purchase.select is None:
        options["purchase"]["max_queries"] = None  # a cap, which decides nothing
    for group, names in _IN_THE_NAME.items():
        options[group] = {name: value for name, value in options[group].items() if name not in names}
    return options
