"""A run of `vl2v-client distill` from Python: the same options, folder, report and student."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vl2v.approval import Approval, gate, notify
from vl2v.embedding_client import Client
from vl2v.inference import Student, load
from vl2v.messages import keyword_names
from vl2v.progress_display import progress_display
from vl2v_client.buying.context import purchase_context
from vl2v_client.config.names import config_of
from vl2v_client.config.run import AUTO, RunConfig
from vl2v_client.core.errors import UsageError
from vl2v_client.core.progress import Progress
from vl2v_client.data.inspection import tell_ignored
from vl2v_client.recipes.distill import distill as run_distill
from vl2v_client.reports.report import RunReport
from vl2v_client.runs.local_source import LocalSource, load_local_teacher
from vl2v_client.runs.run_place import place_run
from vl2v_client.runs.source import Source
from vl2v_client.runs.vendor_source import VendorSource

_OF_THE_CLIENT = ("vendor_url", "model", "cache")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        report: Accuracies, what they cost, and how they were measured.
        folder: The run folder, with `report.md`, `report.json` and the student.
    """

    report: RunReport
    folder: Path

    @cached_property
    def student(self) -> Student:
        """The student that was exported, read back from the folder.

        Raises:
            DataError: The folder has lost it.
        """
        return load(self.folder)

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


def distill(
    config: RunConfig | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    target_domain: str | None = None,
    client: Client | None = None,
    approve: Approval | None = None,
    progress: Progress | bool = True,
    **options: Any,
) -> Run:
    """Plan, buy, align, distil, evaluate on the unseen domain, export; called again, go on where it stopped.

    Args:
        config: The whole configuration; options beside it take the place of its own.
        data: Data set folder: domain/class/file, or class/file.
        target_domain: Domain to hold out; it is never bought or trained on.
        client: Where to buy. If left out, `vendor_url`, `cache` and `model` say so, as in `Client`.
        approve: Gets the plan before anything is spent and says whether to buy it; the client's, if left out.
            The options `max_queries` and `max_cost` are caps, and stand for it.
        progress: Whether to show how far it is, or what to call instead.
        options: Every option of `vl2v-client distill`, by its flag without dashes, such as `views` and `distill_steps`.

    Raises:
        UsageError: An option is unknown, out of range, or contradicts another.
        NotApproved: Nobody has agreed to the purchase.
        ClientError: See `vl2v_client.core.errors`; whatever was bought and trained so far is kept.
    """
    named = {"data": data, "target_domain": target_domain}
    with keyword_names():
        given = {name: value for name, value in named.items() if value is not None}
        config = config_of({**given, **options}, config)
        tell_ignored(config.data.root, notify)
        with _open_source(config, client, approve) as source:
            settings, folder = place_run(config, source.tower)
            if config.student.name == AUTO:
                notify(f"Student: {settings.config.student.name}, picked by the data; `student` names another")
            report = run_distill(settings, source, folder, progress=progress_display(progress), notify=notify)
    return Run(report, folder)


@contextmanager
def _open_source(config: RunConfig, client: Client | None, approve: Approval | None) -> Iterator[Source]:
    terms = config.purchase
    named = terms.named()
    if client is not None and (double := [name for name in _OF_THE_CLIENT if name in named]):
        raise UsageError(f"`client` says where to buy: leave {', '.join(double)} out")
    with (
        Client(named.get("vendor_url"), model=terms.model, cache=terms.cache) if client is None else nullcontext(client)
    ) as opened:
        if terms.local_teacher is not None:
            yield LocalSource(load_local_teacher(terms, config.training.device), opened.cache)
            return
        check = gate(approve or opened.approve, terms)
        context = purchase_context(terms, opened.vendor, opened.cache, check, notify)
        yield VendorSource(replace(context, model=opened.model))
