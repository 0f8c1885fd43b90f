"""What a command opens: the vendor and the cache that the command line names, with progress bars and approval."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl2v_client.cli.bars import Bars, Lines, bars
from vl2v_client.cli.console import STDERR, plain_table, show_notice
from vl2v_client.cli.options import as_command, as_flags, with_flags
from vl2v_client.config.run import AUTO, STRONGER, TINY, PurchaseConfig, RunConfig
from vl2v_client.core.errors import CacheError, ClientError, UsageError
from vl2v_client.core.progress import Progress
from vl2v_client.data.drawn import is_drawn

if TYPE_CHECKING:
    from vl2v_client.api.client import VendorClient
    from vl2v_client.buying.context import PurchaseContext
    from vl2v_client.cache.store import EmbeddingCache
    from vl2v_client.planning.query_plan import QueryPlan
    from vl2v_client.runs.settings import RunSettings
    from vl2v_client.runs.source import Source


UPLOAD_VARIABLE = "VL2V_UPLOAD"


class Declined(ClientError):
    """The user does not approve the purchase."""


def open_cache(path: Path | None, *, must_exist: bool = False) -> EmbeddingCache:
    """Open the cache at `path`, or at its default place; make it, unless it must exist.

    Raises:
        CacheError: It must exist and does not, or it cannot be opened.
    """
    from vl2v_client.cache.store import EmbeddingCache, default_cache_path

    place = path or default_cache_path(os.environ)
    if must_exist and not place.exists():
        raise CacheError(f"there is no cache {place}: name the file that holds your purchases with purchase.cache")
    return EmbeddingCache(place)


def open_vendor(url: str, api_key: str | None) -> VendorClient:
    """Open the vendor at `url`; warn if the API key could be read on the way there.

    `VL2V_UPLOAD` is how images are sent: it changes the bytes on the way and nothing else.

    Raises:
        UsageError: `VL2V_UPLOAD` names no way.
    """
    from vl2v_client.api.client import UPLOADS, VendorClient

    upload = os.environ.get(UPLOAD_VARIABLE, "auto")
    if upload not in UPLOADS:
        raise UsageError(f"{UPLOAD_VARIABLE} is {upload!r}; set it to one of {', '.join(UPLOADS)}, or not at all")
    vendor = VendorClient(url, api_key, upload=upload)
    vendor.on_away = notify
    if vendor.exposes_key:
        notify(
            f"warning: the API key travels unencrypted to {vendor.url}, where anybody on the way can read it and spend "
            "with it; use the vendor's https:// address, or a tunnel to this machine"
        )
    return vendor


@contextmanager
def open_purchase(
    terms: PurchaseConfig, api_key: str | None, *, as_json: bool, yes: bool
) -> Iterator[tuple[PurchaseContext, Progress]]:
    """Open vendor, cache and progress bars; a person sees each plan and approves it, unless `yes`.

    The caps of `terms` hold for all that is bought while they are open.
    """
    from vl2v_client.buying.context import purchase_context, remaining_units

    with (
        open_cache(terms.cache) as cache,
        open_vendor(terms.vendor_url, api_key) as vendor,
        bars(quiet=as_json) as progress,
    ):

        def approve(plan: QueryPlan) -> None:
            if as_json and not yes:
                raise UsageError("--json asks no question, so spending needs --yes beside it")
            if not isinstance(progress, Bars | Lines):
                return
            with progress.paused():
                STDERR.print(plain_table("plan", plan.teacher.id, rows=plan.facts(remaining_units(vendor)).items()))
                if yes:
                    return
                try:
                    answer = STDERR.input("Buy this? [y/N]: ")
                except (EOFError, RuntimeError):  # standard input is at its end, or closed
                    raise Declined(
                        "nothing was bought: there is no terminal to ask on; add --yes to spend without being asked"
                    ) from None
                if answer.strip().lower() not in ("y", "yes"):
                    raise Declined("nothing was bought")

        context = purchase_context(terms, vendor, cache, approve, notify)
        yield context, progress


@contextmanager
def open_source(
    config: RunConfig, api_key: str | None, *, as_json: bool, yes: bool
) -> Iterator[tuple[Source, Progress]]:
    """Open the source of a run's answers, and the progress bars."""
    from vl2v_client.runs.local_source import LocalSource, load_local_teacher
    from vl2v_client.runs.vendor_source import VendorSource

    if config.purchase.local_teacher is None:
        with open_purchase(config.purchase, api_key, as_json=as_json, yes=yes) as (context, progress):
            yield VendorSource(context), progress
        return
    teacher = load_local_teacher(config.purchase, config.training.device)
    with open_cache(config.purchase.cache) as cache, bars(quiet=as_json) as progress:
        yield LocalSource(teacher, cache), progress


def notify(sentence: str) -> None:
    """Show a sentence on standard error."""
    show_notice(with_flags(sentence))


def say_student(config: RunConfig, settings: RunSettings, command: str | None = None) -> None:
    """Show which student was picked and why, and how to take a stronger one; of one that was named, what to wait for.

    The configuration is as somebody described it, and has all options of the command, if one is given.
    """
    name, root = settings.config.student.name, config.data.root
    if config.student.name != AUTO:
        if name == TINY and root is not None and not is_drawn(root):
            notify(f"warning: {TINY} was trained on drawn shapes, and data.root {root} holds others: name no student")
        if settings.student.tag is not None:
            notify(f"The weights of {name} are fetched now, unless this machine has them: that may take minutes.")
        return
    if name == TINY:
        notify(f"Student: {name}, for the drawn shapes of {root}.")
        return
    other: dict[str, dict[str, Any]] = {"student": {"name": STRONGER}}
    in_its_own_folder = {**other, "report": {"out": None}}
    stronger = f"add {as_flags(other)}" if command is None else as_command(command, config, in_its_own_folder)
    notify(
        f"Student: {name}, for photographs, with ImageNet's weights; {root} is not from `vl2v-client shapes`. A "
        f"stronger one, whose weights are fetched: {stronger}"
    )
