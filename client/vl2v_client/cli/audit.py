"""`vl2v-client audit`: check the bill. Exit code 0 clean, 1 differences, 2 could not verify."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vl2v_client.audit.bill import audit_bill
from vl2v_client.audit.report import EXIT_UNVERIFIED, REMEDIES, AuditReport, Difference
from vl2v_client.cli.bars import bars
from vl2v_client.cli.console import PlainConsole, show_error
from vl2v_client.cli.vendor_options import (
    DEFAULT_VENDOR_URL,
    ApiKey,
    AsJson,
    CachePath,
    VendorUrl,
    open_cache,
    open_vendor,
)
from vl2v_client.core.errors import ClientError
from vl2v_client.core.values import format_micro

_EXAMPLES_SHOWN = 5


def audit(
    vendor_url: VendorUrl = DEFAULT_VENDOR_URL,
    api_key: ApiKey = None,
    cache: CachePath = None,
    recover: Annotated[bool, typer.Option("--recover", help="Fetch paid answers that never arrived, free.")] = False,
    as_json: AsJson = False,
) -> None:
    """Verify every entry of the vendor's ledger and compare it with your own, item by item."""
    try:
        with (
            open_cache(cache) as opened,
            open_vendor(vendor_url, api_key) as vendor,
            bars(quiet=as_json) as progress,
        ):
            report = audit_bill(vendor, opened, recover=recover, progress=progress)
    except ClientError as error:
        if as_json:
            typer.echo(json.dumps({"clean": False, "exit_code": EXIT_UNVERIFIED, "error": str(error)}))
        show_error("could not verify", str(error))
        raise typer.Exit(EXIT_UNVERIFIED) from error
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        PlainConsole().print(audit_table(report))
    raise typer.Exit(report.exit_code)


def audit_table(report: AuditReport) -> Group:
    """The audit for people: totals, then each difference with its remedy and first examples."""
    totals = Table("audit", f"account {report.account_id}", box=None, header_style="bold")
    totals.add_row("entries verified", f"{report.entries:,}, up to number {report.head_seq:,}")
    totals.add_row("billed", f"{report.units:,} queries, {format_micro(report.amount_micro, report.currency or '')}")
    totals.add_row("matched items", f"{report.matched_items:,}")
    for key, other in sorted(report.other_keys.items()):
        money = format_micro(other.amount_micro, report.currency)
        totals.add_row("other key", f"{key}: {other.units:,} queries, {money}")
    if report.lost_by_restore.units:
        lost = report.lost_by_restore
        money = format_micro(lost.amount_micro, report.currency)
        totals.add_row("lost by vendor", f"{lost.units:,} queries, {money}: kept here, not billed any more")
    if report.recovered_items:
        totals.add_row("recovered", f"{report.recovered_items:,} paid answers fetched, free")
    if report.is_clean:
        totals.add_row("result", Text.assemble(("clean", "green"), ": both books agree"))
        return Group(totals)
    differences = Table("difference", "count", "what to do", header_style="bold")
    for kind, count in report.findings.counts.items():
        differences.add_row(str(kind), f"{count:,}", REMEDIES[kind])
    examples = Table("where", "what", header_style="bold")
    shown: Counter[Difference] = Counter()
    for one in report.findings.examples:
        shown[one.difference] += 1
        if shown[one.difference] > _EXAMPLES_SHOWN:
            continue
        place = "statement" if one.seq is None else f"entry {one.seq}"
        item = "" if one.item_key is None else f" item {one.item_key[:12]}"
        examples.add_row(place + item, f"{one.difference}: {one.detail}")
    return Group(totals, differences, examples)
