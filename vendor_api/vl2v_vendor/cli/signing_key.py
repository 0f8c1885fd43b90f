"""`vl2v-vendor signing-key`: the keys that sign receipts and statements."""

from __future__ import annotations

from dataclasses import asdict

import typer

from vl2v_contract.records import PublicKey
from vl2v_vendor.cli.console import DatabaseOption, JsonOption, open_books, print_line, show_items, show_json, show_time
from vl2v_vendor.keys.secrets import load_secrets
from vl2v_vendor.ledger_sql.key_publication import read_published, rotate_and_publish

app = typer.Typer(help="The keys that sign receipts and statements.", no_args_is_help=True)


@app.command("list")
def list_keys(as_json: JsonOption = False, database: DatabaseOption = None) -> None:
    """Show the public keys, oldest first, with the times they were in use."""
    with open_books(database) as books:
        published = read_published(books.engine)
        held = load_secrets(books.settings.secrets_path).signer().published_keys
    known = {key.key_id for key in published}
    keys = [*published, *(key for key in held if key.key_id not in known)]
    if as_json:
        show_json([{**asdict(key), "published": key.key_id in known} for key in keys])
        return
    show_items(
        keys,
        {
            "KEY": "key_id",
            "PUBLIC KEY": "public_key",
            "STATE": lambda key: _state(key, is_published=key.key_id in known),
            "IN USE SINCE": lambda key: show_time(key.created_at),
            "UNTIL": lambda key: show_time(key.retired_at),
            "SIGNED BY": "predecessor_id",
        },
    )


@app.command()
def rotate(as_json: JsonOption = False, database: DatabaseOption = None) -> None:
    """Replace the signing key by a new one, signed by the old one, which stays in the secrets file.

    Old receipts stay valid, and are signed again by the old key when they are asked for. Servers that use this
    secrets file take the new key over within a second, without a restart. Other machines need a copy of the file:
    until they have it they sign with the old key, and answer 503 where they would have to sign with the new one.
    """
    with open_books(database) as books:
        path = books.settings.secrets_path
        key = rotate_and_publish(books.engine, path)
    if as_json:
        show_json(asdict(key))
        return
    print_line(f"signing key {key.key_id} replaces {key.predecessor_id}")
    print_line(f"Back up {path} now, and copy it to every other machine that serves this ledger.", err=True)


def _state(key: PublicKey, *, is_published: bool) -> str:
    if not is_published:
        return "not published yet"
    return "current" if key.retired_at is None else "replaced"
