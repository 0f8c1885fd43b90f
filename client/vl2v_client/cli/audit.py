"""`vl2v-client audit`: check the bill, item by item."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

from vl2v_client.cli.bars import bars
from vl2v_client.cli.console import plain_table, show, show_error, stacked, write_json
from vl2v_client.cli.options import PURCHASE_OPTIONS, ApiKey, AsJson, takes, with_flags
from vl2v_client.cli.vendor import open_cache, open_vendor
from vl2v_client.config.run import RunConfig
from vl2v_client.core.errors import ClientError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from vl2v_client.audit.audit_report import AuditReport, Difference


_EXAMPLES_SHOWN = 5
_OTHER_SOFTWARE = (
    "everything else agrees, and nothing here can tell who bought this with your key. Bring it in with `vl2v-client "
    "cache import`; if the count is yours, run audit --accept-others; if nothing else has your key, dispute it. A key "
    "of its own, with a limit, keeps other software apart"
)


@takes(PURCHASE_OPTIONS.only("vendor_url", "cache"))
def audit(
    *,
    config: RunConfig,
    api_key: ApiKey = None,
    recover: Annotated[
        bool, Parameter(show_default=False, help="Fetch paid answers that never arrived, free.")
    ] = False,
    only_ours: Annotated[
        bool,
        Parameter(
            show_default=False, help="Nothing else buys with this key: call what other software bought an error."
        ),
    ] = False,
    accept_others: Annotated[
        bool,
        Parameter(
            show_default=False, help="What other software has bought so far is yours: later audits name the new."
        ),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Verify every entry of the vendor's ledger and compare it with your own, item by item.

    Raises:
        UsageError: Charges of other software cannot be both errors and accepted.
    """
    from vl2v_client.audit.audit_report import EXIT_UNVERIFIED
    from vl2v_client.audit.bill import audit_bill

    if only_ours and accept_others:
        raise UsageError(
            "--only-ours calls other software's charges errors, and --accept-others accepts them: give one"
        )
    terms = config.purchase
    try:
        with (
            open_cache(terms.cache) as cache,
            open_vendor(terms.vendor_url, api_key) as vendor,
            bars(quiet=as_json) as progress,
        ):
            options = {"recover": recover, "only_ours": only_ours, "accept_others": accept_others}
            report = audit_bill(vendor, cache, **options, progress=progress)
    except ClientError as error:
        message = with_flags(str(error))
        if as_json:
            write_json({"clean": False, "exit_code": EXIT_UNVERIFIED, "error": message})
        show_error("could not verify", message)
        return EXIT_UNVERIFIED
    show(report.to_json(), audit_table(report), as_json=as_json)
    return report.exit_code


def audit_table(report: AuditReport) -> Group:
    """Return the audit for people: totals, then each difference with its remedy and first examples."""
    totals = plain_table("audit", f"account {report.account_id}", rows=report.facts())
    if report.is_clean:
        totals.add_row("result", Text.assemble(("clean", "green"), ": both books agree"))
    elif not report.findings.counts:
        totals.add_row("result", Text.assemble(("bought by other software", "yellow"), f": {_OTHER_SOFTWARE}"))
    return stacked(totals, *(_difference_tables(report) if report.findings.counts else ()))


def _difference_tables(report: AuditReport) -> tuple[Table, Table]:
    from vl2v_client.audit.audit_report import REMEDIES, Difference

    differences = plain_table("difference", "count", "what to do")
    for kind, count in report.findings.counts.items():
        how = " (vl2v-client audit --recover)" if kind is Difference.LOST_RESPONSE else ""
        differences.add_row(str(kind), f"{count:,}", REMEDIES[kind] + how)
    examples = plain_table("where", "what")
    shown: Counter[Difference] = Counter()
    for one in report.findings.examples:
        shown[one.difference] += 1
        if shown[one.difference] <= _EXAMPLES_SHOWN:
            place = "statement" if one.seq is None else f"entry {one.seq}"
            item = "" if one.item_key is None else f" item {one.item_key[:12]}"
            examples.add_row(place + item, f"{one.difference}: {one.detail}")
    return differences, examples
