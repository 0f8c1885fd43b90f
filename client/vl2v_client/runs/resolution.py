"""A run's options, resolved and checked, without loading a model; planning and buying need no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vl2v_client.config.presets import resolve
from vl2v_client.config.run import TINY, RunConfig
from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.errors import UsageError
from vl2v_client.planning.choice import QueryChoice, query_choice
from vl2v_client.student.loss.methods import METHODS, WHITE_BOX, asks_about_images, check_effects, check_label_weight
from vl2v_client.teacher.targets import NO_IMPUTATION


def resolve_run(config: RunConfig) -> RunConfig:
    """Resolve a configuration; refuse options that contradict each other or change nothing.

    Raises:
        UsageError: Names the options and the remedy.
    """
    resolved = resolve(config)
    methods = methods_of(resolved.training)
    _check_methods(methods, local=resolved.purchase.local_teacher is not None)
    _check_purchase(resolved)
    _check_student(config, methods)
    named = config.training.named()
    check_label_weight(named.get("label_weight"), methods)
    check_effects(methods, named)
    return resolved


def methods_of(training: TrainingConfig) -> tuple[str, ...]:
    """Return the names of all methods that are trained, the exported one last."""
    return (*training.baselines, training.method)


def run_choice(config: RunConfig) -> QueryChoice:
    """Return what decides a run's queries; image queries only if one of its methods reads their answers.

    Args:
        config: A resolved configuration.

    Raises:
        UsageError: As `planning.choice.query_choice`.
    """
    training = config.training
    asks = any(asks_about_images(METHODS[name](training), training) for name in methods_of(training))
    return replace(query_choice(config), ask_images=asks)


def default_folder(config: RunConfig) -> Path:
    """Return the run folder where nobody names one: by data set, target and seed."""
    name = query_choice(resolve(config)).data.resolve().name
    return Path("runs") / f"{name}-{config.data.target_domain or 'all'}-seed{config.training.seed}"


def _check_methods(names: Sequence[str], *, local: bool) -> None:
    if len(set(names)) < len(names):
        raise UsageError(f"a method is named twice in {', '.join(names)}: name each once")
    white_box = sorted(WHITE_BOX.intersection(names))
    if white_box and not local:
        raise UsageError(
            f"{white_box[0]} trains the teacher's own image tower: it needs the teacher's weights here; "
            "give purchase.local_teacher"
        )


def _check_purchase(config: RunConfig) -> None:
    purchase, local = config.purchase, config.purchase.local_teacher is not None
    if purchase.online and not local:
        raise UsageError(
            "purchase.online asks about every view of every step: it needs purchase.local_teacher, not a vendor"
        )
    if purchase.online and config.training.train_views != purchase.views:
        raise UsageError("purchase.online trains on fresh views at every step: leave training.train_views out")
    if not local and "local_weights" in purchase.model_fields_set:
        raise UsageError("purchase.local_weights belongs to a local teacher: name purchase.local_teacher")
    if not local and purchase.local_precision != "fp32":
        raise UsageError("purchase.local_precision belongs to a local teacher: name purchase.local_teacher")
    if (purchase.select is not None) and purchase.max_queries is None:
        raise UsageError("purchase.select chooses among images within purchase.max_queries: give both")
    if purchase.select is not None or purchase.impute != NO_IMPUTATION:
        _check_selection(config, local=local)


def _check_selection(config: RunConfig, *, local: bool) -> None:
    """Refuse a choice among images where none is asked about."""
    leave_out = "leave purchase.select and purchase.impute out"
    if local:
        raise UsageError(f"a local teacher answers for free: {leave_out}")
    if not config.purchase.views:
        raise UsageError(f"purchase.views 0 asks about no image: {leave_out}")
    if not run_choice(config).ask_images:
        raise UsageError(
            f"no image embedding is read by {', '.join(methods_of(config.training))} with an image weight of "
            f"{config.training.image_weight:g}: {leave_out}"
        )


def _check_student(config: RunConfig, methods: Sequence[str]) -> None:
    """Refuse options of a student that no method trains; `paper` takes a student's row of the scripts."""
    named = config.student.named()
    if config.student.name == TINY or config.training.preset == "paper":
        named.pop("name", None)
    if named and WHITE_BOX.issuperset(methods):
        options = ", ".join(f"student.{name}" for name in sorted(named))
        raise UsageError(
            f"{', '.join(methods)} trains the teacher's own tower, and no other student: leave {options} out"
        )
