"""Small changes of honest books, for `lies` to put together."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from support.adversary.lying_vendor import Body, Books, Lie
from vl2v_contract.records import SigningKey, successor_message

OURS, THEIRS, REFUND, TOP_UP, REPRICED, RESIGNED, LAST = 2, 4, 5, 6, 7, 8, 9
"""Places in the honest books."""


def sealed(change: Lie, **how: bool) -> Lie:
    """The same change, with every hash, number, total and signature made to fit it."""

    def tell(books: Books) -> None:
        change(books)
        books.reseal(**how)

    return tell


def drop(*indices: int) -> Lie:
    def tell(books: Books) -> None:
        books.rows = [row for index, row in enumerate(books.rows) if index not in indices]

    return tell


def cut(length: int) -> Lie:
    def tell(books: Books) -> None:
        del books.rows[length:]

    return tell


def order(*indices: int) -> Lie:
    def tell(books: Books) -> None:
        books.rows = [deepcopy(books.rows[index]) for index in indices]

    return tell


def entry(index: int, **changes: object) -> Lie:
    return lambda books: books.entry(index).update(changes)


def row(index: int, **changes: object) -> Lie:
    return lambda books: books.rows[index].update(changes)


def item(index: int, place: int, **changes: object) -> Lie:
    return lambda books: books.rows[index]["items"][place].update(changes)


def both(*lies: Lie) -> Lie:
    def tell(books: Books) -> None:
        for lie in lies:
            lie(books)

    return tell


def extra(like: int, *, items: Callable[[Books], list[Any]] | None = None, **changes: object) -> Lie:
    """An entry more at the end; its items are new ones unless `items` picks them."""

    def tell(books: Books) -> None:
        made = books.add(like, **changes)
        fresh = [{"item_key": f"{i:064x}", "result_sha": "a" * 64, "units": 1} for i in range(len(made["items"]))]
        made["items"] = items(books) if items else fresh

    return tell


def refund(of: int, units: int, **changes: object) -> Lie:
    """One more refund of the entry at an index."""

    def tell(books: Books) -> None:
        charge = books.entry(of)
        terms = {"amount_micro": units * charge["unit_price_micro"], "ref_seq": charge["seq"], "items_hash": None}
        made = books.add(of, kind="refund", units=units, note="sorry", **{**terms, **changes})
        made["items"] = []

    return tell


def head(signer: Callable[[Books], SigningKey | None] = lambda _books: None, **changes: object) -> Lie:
    return lambda books: books.sign_head(signer(books), **changes)


def summary(**changes: object) -> Lie:
    return lambda books: books.summary.update(changes)


def stranger(_books: Books) -> SigningKey:
    return SigningKey.from_seed(b"s" * 32)


def signed_by_an_old_key(books: Books) -> None:
    """Everything after the new key's first entry under the retired one, days later."""
    for index in (RESIGNED, LAST):
        books.entry(index)["signing_key_id"] = books.keys[0].key_id
        books.entry(index)["created_at"] += 10 * 86_400_000_000


def reprice(books: Books) -> None:
    """Every text at more, in every entry that names the price."""
    price_id = books.entry(OURS)["price_id"]
    for each in (row["entry"] for row in books.rows if row["entry"]["price_id"] == price_id):
        each["unit_price_micro"] += 10
        each["amount_micro"] = each["units"] * each["unit_price_micro"]


def recurrency(books: Books) -> None:
    for each in books.rows:
        each["entry"]["currency"] = "USD"
    books.summary["currency"] = "USD"


def signature(books: Books) -> None:
    books.signature = books.keys[0].sign(b"something else")


def swap_items(books: Books) -> None:
    books.rows[2]["items"], books.rows[3]["items"] = books.rows[3]["items"], books.rows[2]["items"]


def keys(change: Callable[[list[Body]], list[Body]]) -> Lie:
    def tell(books: Books) -> None:
        books.public_keys["keys"] = change(books.public_keys["keys"])

    return tell


def page(change: Callable[[Body, int], Body]) -> Lie:
    """Change each page as it is shown; the number of entries before it is the second argument."""

    def tell(books: Books) -> None:
        books.turn = change

    return tell


def second_head(**changes: object) -> Lie:
    """Another head, signed as well, on every page but the first."""

    def tell(books: Books) -> None:
        def turn(shown: Body, after: int) -> Body:
            if after:
                books.sign_head(**changes)
            return shown | {"signed_head": {"head": books.head, "signature": books.signature}}

        books.turn = turn

    return tell


def cursor(following: Callable[[int], int | None]) -> Lie:
    return page(lambda shown, after: shown | {"next_after_seq": following(after)})


def own_key(books: Books) -> None:
    """Another newest key, which the first one never signed."""
    key = stranger(books)
    published = {"key_id": key.key_id, "public_key": key.public_key, "created_at": 9, "retired_at": None}
    known = books.public_keys["keys"]
    signature = known[-1]["predecessor_signature"]
    known.append(published | {"predecessor_id": known[-1]["key_id"], "predecessor_signature": signature})


def other_line(books: Books) -> None:
    """Another successor of the first key, which it did sign."""
    first, other = books.keys[0], SigningKey.from_seed(b"o" * 32)
    vouched = {"predecessor_id": first.key_id, "predecessor_signature": first.sign(successor_message(other.public_key))}
    made = {"key_id": other.key_id, "public_key": other.public_key, "created_at": 9, "retired_at": None, **vouched}
    books.public_keys["keys"] = [books.public_keys["keys"][0], made]
    books.sign_head(other)
