"""Options of commands that can have a teacher of their own on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vl2v_client.cli.bars import Bars, bars
from vl2v_client.cli.purchase_options import purchase_context
from vl2v_client.cli.vendor_options import open_cache, open_vendor
from vl2v_client.core.errors import UsageError

if TYPE_CHECKING:
    from vl2v_client.local.teacher import LocalTeacher
    from vl2v_client.recipes.local import LocalSource
    from vl2v_client.recipes.purchase import PurchaseContext

_PRECISIONS = ("fp32", "fp16", "bf16")

LocalTeacherName = Annotated[
    str | None,
    typer.Option(
        "--local-teacher", help="A teacher on this machine, no vendor: open_clip's NAME/TAG, or a config JSON."
    ),
]
LocalWeights = Annotated[
    Path | None, typer.Option("--local-weights", help="Its checkpoint, instead of a tag or beside a config.")
]
LocalPrecision = Annotated[str, typer.Option("--local-precision", help="fp32; on a GPU also fp16 or bf16.")]
Online = Annotated[
    bool, typer.Option("--online", help="The local teacher sees fresh views at every step: the published loop.")
]


def load_teacher(model: str | None, weights: Path | None, precision: str, device: str) -> LocalTeacher | None:
    """Loads the teacher that the options name; `None` if they name none.

    Raises:
        UsageError: weights without a teacher, no such precision, or as `LocalTeacher`.
        DataError: as there.
    """
    if model is None:
        if weights is not None:
            raise UsageError("--local-weights belong to a --local-teacher: name it")
        if precision != _PRECISIONS[0]:
            raise UsageError("--local-precision belongs to a --local-teacher: name it")
        return None
    from vl2v_client.local.files import LocalModel
    from vl2v_client.local.teacher import LocalTeacher
    from vl2v_client.student.training import resolve_device

    if precision not in _PRECISIONS:
        raise UsageError(f"no precision {precision!r}; there are: {', '.join(_PRECISIONS)}")
    return LocalTeacher(LocalModel(model, weights, str(resolve_device(device)), precision))  # type: ignore[arg-type]


def local_settings(teacher: LocalTeacher | None, methods: Sequence[str], *, online: bool) -> dict[str, Any]:
    """The fields of `RunSettings` that say who teaches.

    Raises:
        UsageError: a method trains the teacher's image tower, and that cannot be a student.
    """
    from vl2v_client.recipes.local import tower_spec
    from vl2v_client.student.methods import WHITE_BOX

    tower = tower_spec(teacher) if teacher is not None and WHITE_BOX & set(methods) else None
    return {"local": teacher is not None, "online": online, "tower": tower}


def check_student_options(methods: Sequence[str], preset: str, student: str, **others: object) -> None:
    """Refuse what names a student that no method of a run trains; `paper` takes a student's row of the scripts.

    Args:
        methods: of the run.
        preset: of the run.
        student: its name; the default says nothing.
        others: options of a student by name, None if nobody named them.

    Raises:
        UsageError: every method trains the teacher's own tower.
    """
    from vl2v_client.recipes.preset_views import PAPER_PRESET
    from vl2v_client.student.methods import WHITE_BOX
    from vl2v_client.student.spec import TINY

    named = [name for name, value in others.items() if value is not None]
    named += ["student"] if student != TINY and preset != PAPER_PRESET else []
    if named and WHITE_BOX.issuperset(methods):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(named))
        raise UsageError(
            f"{', '.join(methods)} trains the teacher's own tower, and no other student: leave {options} out"
        )


@contextmanager
def open_source(
    teacher: LocalTeacher | None,
    cache: Path | None,
    vendor_url: str,
    api_key: str | None,
    *,
    as_json: bool,
    **purchase: Any,
) -> Iterator[tuple[PurchaseContext | LocalSource, Bars]]:
    """Where a run's embeddings come from, and the bars that show its progress.

    Args:
        teacher: answers by itself if there is one; else the vendor is asked.
        cache: where they are kept.
        vendor_url: of the vendor.
        api_key: for it.
        as_json: for a machine, so without bars.
        purchase: the terms, as `purchase_context` takes them.

    Raises:
        UsageError: terms of a purchase, and a local teacher, who sells nothing.
    """
    from vl2v_client.recipes.local import LocalSource

    with ExitStack() as stack:
        opened = stack.enter_context(open_cache(cache))
        if teacher is not None:
            _check_free(purchase)
            yield LocalSource(teacher, opened), stack.enter_context(bars(quiet=as_json))
            return
        vendor = stack.enter_context(open_vendor(vendor_url, api_key))
        progress = stack.enter_context(bars(quiet=as_json))
        yield purchase_context(vendor, opened, as_json=as_json, progress=progress, **purchase), progress


def _check_free(purchase: Mapping[str, Any]) -> None:
    named = [name for name, value in purchase.items() if value not in (None, False) and name != "yes"]
    if named:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in named)
        raise UsageError(f"a local teacher answers for free: leave {options} out")
