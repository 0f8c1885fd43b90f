"""`vl2v-vendor ledger`: checking the books, copying and restoring them, and pruning what they need not keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from vl2v_vendor.cli.books import open_books
from vl2v_vendor.cli.console import DatabaseOption, JsonOption, print_line, show_items, show_json, show_table
from vl2v_vendor.cli.ledger_export import export

if TYPE_CHECKING:
    from vl2v_vendor.keys.published_heads import PublishedHead
    from vl2v_vendor.ledger_sql.restoration import Acknowledgement
    from vl2v_vendor.ledger_sql.sqlite_backup import LedgerCopy
    from vl2v_vendor.service.verification import VerificationReport

_SHOWN_PROBLEMS = 20

ledger_app = App(name="ledger", help="The append-only ledger.", help_epilogue="Example: `vl2v-vendor ledger verify`")
ledger_app.command(export, help_epilogue="Example: `vl2v-vendor ledger export --month 2026-11 --out november.csv`")


@ledger_app.command(help_epilogue="Example: `vl2v-vendor ledger backup /backup/vendor.db`")
def backup(
    file: Annotated[Path, Parameter(help="A new file to write.")],
    /,
    *,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Copy a SQLite ledger beside a server that goes on selling; keep the secrets file with the copy."""
    from vl2v_vendor.ledger_sql.sqlite_backup import back_up, require_sqlite
    from vl2v_vendor.settings import load_settings

    copy = back_up(require_sqlite(load_settings(database_url=database).database, "backup"), file)
    if as_json:
        show_json(_copy_document(copy))
        return
    print_line(f"{file}: ledger {copy.ledger_id}, {len(copy.heads)} accounts")
    _show_heads(copy.heads)


@ledger_app.command(help_epilogue="Example: `vl2v-vendor ledger restore /backup/vendor.db`")
def restore(
    file: Annotated[Path, Parameter(help="A file that `ledger backup` wrote.")],
    /,
    *,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Put a backup in the place of a SQLite ledger, server stopped; the replaced database is kept beside it."""
    from vl2v_vendor.keys.published_heads import HeadsFile
    from vl2v_vendor.keys.secrets import load_secrets
    from vl2v_vendor.ledger_sql.sqlite_backup import require_sqlite
    from vl2v_vendor.ledger_sql.sqlite_backup import restore as restore_copy
    from vl2v_vendor.settings import load_settings

    settings = load_settings(database_url=database)
    path = require_sqlite(settings.database, "restore")
    copy = restore_copy(file, path, load_secrets(settings.secrets_path).signer())
    published = HeadsFile(settings.published_heads_path, copy.ledger_id).read()
    behind = sorted(
        account_id
        for account_id, head in published.items()
        if account_id not in copy.heads or copy.heads[account_id].seq < head.seq
    )
    if as_json:
        show_json({**_copy_document(copy), "behind_account_ids": behind})
        return
    print_line(f"{path}: ledger {copy.ledger_id}, {len(copy.heads)} accounts")
    if copy.replaced is not None:
        print_line(f"the replaced database is {copy.replaced}")
    _show_heads(copy.heads)
    if behind:
        print_line(
            f"behind what was signed: {', '.join(behind)}; run `vl2v-vendor ledger acknowledge-restore` before `serve`"
        )


@ledger_app.command(help_epilogue="Example: `vl2v-vendor ledger acknowledge-restore --note 'disk failed'`")
def acknowledge_restore(
    *,
    note: Annotated[
        str | None, Parameter(allow_leading_hyphen=True, help="Goes into the ledger, such as what happened.")
    ] = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Say by a signed entry per account which published entries a restored ledger has lost; then it can serve."""
    from vl2v_vendor.keys.published_heads import HeadsFile
    from vl2v_vendor.ledger_sql.reading import read_ledger_id
    from vl2v_vendor.ledger_sql.restoration import AcknowledgeContext, acknowledge

    with open_books(database) as books:
        with books.engine.connect() as connection:
            file = HeadsFile(books.settings.published_heads_path, read_ledger_id(connection))
        acts = acknowledge(books.engine, file, AcknowledgeContext(books.signer, books.clock, books.actor, note))
    if as_json:
        show_json([asdict(act) for act in acts])
    elif not acts:
        print_line("nothing to acknowledge: the ledger holds all that was signed")
    else:
        _show_acts(acts)


@ledger_app.command(help_epilogue="Example: `vl2v-vendor ledger verify`")
def verify(*, as_json: JsonOption = False, database: DatabaseOption = None) -> int:
    """Recompute every hash chain and every sum; exit code 1 if anything does not add up."""
    from vl2v_vendor.keys.published_heads import HeadsFile
    from vl2v_vendor.ledger_sql.restoration import find_lost
    from vl2v_vendor.ledger_sql.scan import open_scan
    from vl2v_vendor.service.verification import verify_ledger

    with open_books(database) as books:
        with open_scan(books.engine) as scan:
            ledger_id = scan.ledger_id()
            report = verify_ledger(scan)
        published = HeadsFile(books.settings.published_heads_path, ledger_id).read()
        for lost in find_lost(books.engine, published):
            report.add(lost.account_id, lost.published.seq, "published_entry_lost", "signed, and not in the ledger")
    if as_json:
        show_json({"clean": report.clean, **asdict(report)})
    else:
        _show(report)
    return 0 if report.clean else 1


@ledger_app.command(help_epilogue="Example: `vl2v-vendor ledger prune`")
def prune(*, as_json: JsonOption = False, database: DatabaseOption = None) -> None:
    """Delete vectors that are past their retention; what was paid stays paid."""
    from vl2v_vendor.ledger_sql.sql_ledger import prune_results

    with open_books(database) as books:
        pruned = prune_results(books.engine, books.clock)
    if as_json:
        show_json({"pruned": pruned})
    else:
        print_line(f"{pruned} vectors pruned")


def _show(report: VerificationReport) -> None:
    from vl2v_vendor.service.verification import MAX_PROBLEMS

    checked = f"accounts {report.accounts}, entries {report.entries}, items {report.items}"
    if report.clean:
        print_line(f"clean; checked: {checked}")
        return
    print_line(f"problems: {report.problem_count}; checked: {checked}")
    shown = report.problems[:_SHOWN_PROBLEMS]
    show_items(shown, {"ACCOUNT": "account_id", "ENTRY": "seq", "PROBLEM": "code", "DETAIL": "detail"})
    if report.problem_count > len(shown):
        print_line(f"... and {report.problem_count - len(shown)} more; `--json` lists up to {MAX_PROBLEMS}")


def _show_acts(acts: list[Acknowledgement]) -> None:
    show_items(
        acts,
        {
            "ACCOUNT": "lost.account_id",
            "LAST ENTRY": lambda act: "account is gone" if act.lost.last_seq is None else act.lost.last_seq,
            "PUBLISHED": "lost.published.seq",
            "RESTORED ENTRY": lambda act: None if act.restored is None else act.restored.seq,
        },
    )


def _show_heads(heads: Mapping[str, PublishedHead]) -> None:
    show_table(
        ["ACCOUNT", "LAST ENTRY", "HASH"],
        [[account_id, head.seq, head.entry_hash] for account_id, head in heads.items()],
    )


def _copy_document(copy: LedgerCopy) -> dict[str, object]:
    return {
        "ledger_id": copy.ledger_id,
        "heads": {account_id: asdict(head) for account_id, head in copy.heads.items()},
        "replaced": None if copy.replaced is None else str(copy.replaced),
    }
