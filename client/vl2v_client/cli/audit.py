"""`vl2v-client audit`: check the bill. Exit code 0 clean, 1 differences, 2 could not verify."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vl2v_client.cli.bars import bars
from vl2v_client.cli.console import PlainConsole, show_error, write_json
from vl2v_client.cli.options import PURCHASE_OPTIONS, ApiKey, AsJson, Named, run_config, takes
from vl2v_client.cli.vendor import open_cache, open_vendor
from vl2v_client.core.errors import ClientError
from vl2v_client.core.progress import format_micro

if TYPE_CHECKING:
    from vl2v_client.audit.audit_report import AuditReport, Difference

_EXAMPLES_SHOWN = 5
_RECOVER = " (vl2v-client audit --recover)"


@takes(PURCHASE_OPTIONS.only("vendor_url", "cache"))
def audit(
    *,
    named: Named,
    api_key: ApiKey = None,
    recover: Annotated[
        bool, Parameter(show_default=False, help="Fetch paid answers that never arrived, free.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Verify every entry of the vendor's ledger and compare it with your own, item by item."""
    from vl2v_client.audit.audit_report import EXIT_UNVERIFIED
    from vl2v_client.audit.bill import audit_bill

    terms = run_config(named).purchase
    try:
        with (
            open_cache(terms.cache) as cache,
            open_vendor(terms.vendor_url, api_key) as vendor,
            bars(quiet=as_json) as progress,
        ):
            report = audit_bill(vendor, cache, recover=recover, progress=progress)
    except ClientError as error:
        if as_json:
            write_json({"clean": False, "exit_code": EXIT_UNVERIFIED, "error": str(error)})
        show_error("could not verify", str(error))
        return EXIT_UNVERIFIED
    if as_json:
        write_json(report.to_json())
    else:
        PlainConsole().print(audit_table(report))
    return report.exit_code


def audit_table(report: AuditReport) -> Group:
    """Return the audit for people: totals, then each difference with its remedy and first examples."""
    from vl2v_client.audit.audit_report import REMEDIES, Difference

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
        differences.add_row(
            str(kind), f"{count:,}", REMEDIES[kind] + (_RECOVER if kind is Difference.LOST_RESPONSE else "")
        )
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
