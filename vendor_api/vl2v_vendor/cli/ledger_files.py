"""`vl2v-vendor ledger backup`, `restore` and `acknowledge-restore`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vl2v_vendor.cli.console import (
    DatabaseOption,
    JsonOption,
    open_books,
    print_line,
    show_items,
    show_json,
    show_table,
)
from vl2v_vendor.keys.published_heads import HeadsFile, PublishedHead
from vl2v_vendor.keys.secrets import load_secrets
from vl2v_vendor.ledger_sql.reading import read_ledger_id
from vl2v_vendor.ledger_sql.restoration import AcknowledgeContext, Acknowledgement, acknowledge
from vl2v_vendor.ledger_sql.sqlite_backup import LedgerCopy, back_up, require_sqlite
from vl2v_vendor.ledger_sql.sqlite_backup import restore as restore_copy
from vl2v_vendor.settings import load_settings


def backup(
    file: Annotated[Path, typer.Argument(help="A new file to write.")],
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Copy a SQLite ledger beside a server that goes on selling; keep the secrets file with the copy."""
    settings = load_settings(database_url=database)
    copy = back_up(require_sqlite(settings.database, "backup"), file)
    if as_json:
        show_json(_copy_document(copy))
        return
    print_line(f"{file}: ledger {copy.ledger_id}, {len(copy.heads)} accounts")
    _show_heads(copy.heads)


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `ledger backup` wrote.")],
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Put a backup in the place of a SQLite ledger, server stopped; the replaced database is kept beside it."""
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


def acknowledge_restore(
    note: Annotated[str | None, typer.Option(help="Goes into the ledger, such as what happened.")] = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
) -> None:
    """Say by a signed entry per account which published entries a restored ledger has lost; then it can serve."""
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
