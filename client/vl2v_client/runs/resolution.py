"""A run's options, resolved and checked, without loading a model; planning and buying need no more."""

from collections.abc import Mapping, Sequence
from typing import Any

from vl2v_client.config.presets import resolve
from vl2v_client.config.run import AUTO, LITE0, TINY, RunConfig
from vl2v_client.core.errors import UsageError
from vl2v_client.data.drawn import is_drawn
from vl2v_client.planning.choice import QueryChoice
from vl2v_client.student.loss.methods import METHODS, WHITE_BOX, asks_about_images, check_additions, check_effects
from vl2v_client.teacher.imputation import NO_IMPUTATION
from vl2v_client.teacher.text_classifier import PromptTemplateSet


def pick_student(config: RunConfig, recorded: str | None = None) -> RunConfig:
    """Return the configuration with a student by name, where nobody named one.

    The packaged student of the run that goes on, if it has one; `tiny` for drawn shapes; else the one for photographs.
    """
    if config.student.name != AUTO:
        return config
    root = config.data.root
    picked = TINY if root is not None and is_drawn(root) else LITE0
    return config.replace(student=config.student.replace(name=recorded or picked))


def resolve_run(config: RunConfig, before: Mapping[str, Any] | None = None) -> RunConfig:
    """Resolve a configuration; refuse options that contradict each other or change nothing.

    Args:
        config: Configuration of a run.
        before: Options of the run that goes on, from `runs.run_folder.options_of_before`.

    Raises:
        UsageError: Names the options and the remedy.
    """
    resolved = resolve(pick_student(config, (before or {}).get("student")), before)
    for is_wrong, why in (*_method_faults(config, resolved), *_purchase_faults(resolved)):
        if is_wrong:
            raise UsageError(why)
    methods, named = resolved.training.methods, config.training.named()
    check_additions(resolved.training, named, methods)
    check_effects(methods, named)
    return resolved


def run_choice(config: RunConfig) -> QueryChoice:
    """Return what decides the queries of a resolved run; image queries only if one of its methods reads their answers.

    Raises:
        UsageError: No data set is named, or a prompt template is none.
    """
    data, purchase, training = config.data, config.purchase, config.training
    if data.root is None:
        raise UsageError("no data set is named: give data.root")
    if purchase.views is None or purchase.view_recipe is None or data.seed is None:
        raise ValueError("the configuration is not resolved")
    return QueryChoice(
        data.root,
        target_domain=data.target_domain,
        views=purchase.views,
        train_views=training.train_views,
        seed=data.seed,
        prompts=PromptTemplateSet(data.prompts),
        recipe=purchase.view_recipe,
        skip_broken=data.skip_broken,
        ask_images=any(asks_about_images(METHODS[name](training), training) for name in training.methods),
    )


_Faults = Sequence[tuple[bool, str]]  # whether each rule is broken, and what to say then


def _method_faults(config: RunConfig, resolved: RunConfig) -> _Faults:
    methods, of_student = resolved.training.methods, config.student.named()
    if config.student.name in (AUTO, TINY) or config.training.preset == "paper":
        of_student.pop("name", None)  # `paper` takes a student's row of the scripts
    white_box = WHITE_BOX.intersection(methods)
    options = ", ".join(f"student.{name}" for name in sorted(of_student))
    return (
        (
            resolved.training.quick and resolved.training.method in WHITE_BOX,
            f"training.quick leaves nothing of {resolved.training.method}, whose backbone trains from the first step: "
            "leave it out",
        ),
        (
            bool(config.training.named().get("soft_label_weight")) and resolved.purchase.views == 0,
            "training.soft_label_weight needs answers about images, and purchase.views 0 buys none: leave one out",
        ),
        (min(resolved.training.extend, default=1) < 1, "training.extend takes numbers of steps from 1: raise it"),
        (len(set(methods)) < len(methods), f"a method is named twice in {', '.join(methods)}: name each once"),
        (
            bool(white_box) and resolved.purchase.local_teacher is None,
            f"{', '.join(white_box)} trains the teacher's own image tower: it needs the teacher's weights here; "
            "give purchase.local_teacher",
        ),
        (
            bool(of_student) and WHITE_BOX.issuperset(methods),
            f"{', '.join(methods)} trains the teacher's own tower, and no other student: leave {options} out",
        ),
    )


def _purchase_faults(config: RunConfig) -> _Faults:
    purchase, training = config.purchase, config.training
    local, selects = purchase.local_teacher is not None, purchase.select is not None
    chooses = selects or purchase.impute != NO_IMPUTATION
    leave_out = "leave purchase.select and purchase.impute out"
    of_local = "belongs to a local teacher: name purchase.local_teacher"
    return (
        (
            purchase.online and not local,
            "purchase.online asks about every view of every step: it needs purchase.local_teacher, not a vendor",
        ),
        (
            purchase.online and training.train_views != purchase.views,
            "purchase.online trains on fresh views at every step: leave training.train_views out",
        ),
        (
            purchase.online and training.align == "ridge",
            "training.align ridge is fitted to stored views, and purchase.online draws fresh ones: leave one out",
        ),
        (
            (training.train_views or 0) < (purchase.views or 0),
            f"training.train_views {training.train_views} is less than purchase.views {purchase.views}: all that is "
            "bought is used",
        ),
        (not local and "local_weights" in purchase.model_fields_set, f"purchase.local_weights {of_local}"),
        (not local and purchase.local_precision != "fp32", f"purchase.local_precision {of_local}"),
        (
            selects and purchase.max_queries is None,
            "purchase.select chooses among images within purchase.max_queries: give both",
        ),
        (chooses and local, f"a local teacher answers for free: {leave_out}"),
        (chooses and not purchase.views, f"purchase.views 0 asks about no image: {leave_out}"),
        (
            chooses and not run_choice(config).ask_images,
            f"no image embedding is read by {', '.join(training.methods)} with an image weight of "
            f"{training.image_weight:g}: {leave_out}",
        ),
    )
