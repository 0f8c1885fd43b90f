"""Ways for a vendor to lie about a bill: each a small change of honest books, and what an audit must call it.

The honest books (`honest_books.py`) hold, by index: 0 a top-up; 1 to 3 charges of ours, five texts each; 4 a
colleague's charge; 5 a refund of 2 units of entry 3; 6 a top-up; 7 a charge of ours at a new price; 8 one under a new
signing key; 9 a colleague's charge.
"""

from __future__ import annotations

from dataclasses import dataclass

from support.adversary.lie_making import (
    LAST,
    OURS,
    REFUND,
    THEIRS,
    TOP_UP,
    both,
    cursor,
    cut,
    drop,
    entry,
    extra,
    head,
    item,
    keys,
    order,
    other_line,
    own_key,
    page,
    recurrency,
    refund,
    reprice,
    row,
    sealed,
    second_head,
    signature,
    signed_by_an_old_key,
    stranger,
    summary,
    swap_items,
)
from support.adversary.lying_vendor import Lie

GAP, BREAK, SIGNATURE, REWRITTEN = "gap_in_seq", "chain_break", "bad_signature", "history_rewritten"
AMOUNT, PRICE, DUPLICATE = "amount_mismatch", "price_mismatch", "duplicate_item"
UNEXPLAINED, MISSING = "unexplained_charge", "missing_charge"


@dataclass(frozen=True)
class Told:
    """A lie and the difference classes that an audit without a pinned head must find, no more and no fewer.

    Attributes:
        only_pinned: nothing but an earlier audit can show it.
    """

    name: str
    tell: Lie
    expected: frozenset[str]
    only_pinned: bool = False


def told(name: str, tell: Lie, *expected: str, only_pinned: bool = False) -> Told:
    return Told(name, tell, frozenset(expected), only_pinned)


HISTORIES = [
    told("dropped-first", drop(0), GAP, BREAK, AMOUNT),
    told("dropped-middle", drop(3), GAP, BREAK, AMOUNT, MISSING),
    told("dropped-last", cut(9), GAP),
    told("dropped-page", drop(4, 5, 6, 7), GAP, BREAK, AMOUNT, MISSING),
    told("dropped-first-sealed", sealed(drop(0)), AMOUNT, REWRITTEN),
    told("dropped-middle-sealed", sealed(drop(3)), MISSING, REWRITTEN),
    told("dropped-ours-at-the-end-sealed", sealed(cut(8)), MISSING),
    told("dropped-page-sealed", sealed(drop(4, 5, 6, 7)), MISSING, REWRITTEN),
    told("dropped-last-sealed", sealed(cut(9)), REWRITTEN, only_pinned=True),
    told("dropped-without-renumbering", sealed(drop(4), numbers=False), GAP, REWRITTEN),
    told("reordered", order(0, 1, 3, 2, 4, 5, 6, 7, 8, 9), GAP, BREAK, AMOUNT),
    told("reordered-sealed", sealed(order(0, 1, 3, 2, 4, 5, 6, 7, 8, 9)), REWRITTEN, BREAK),
    told("reversed", order(9, 8, 7, 6, 5, 4, 3, 2, 1, 0), GAP, BREAK, AMOUNT),
    told("shown-twice", order(0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9), GAP, BREAK, AMOUNT, DUPLICATE),
    told("charged-twice-sealed", sealed(order(0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9)), REWRITTEN, DUPLICATE),
    told("number-used-again", entry(3, seq=3), GAP, BREAK, REWRITTEN),
    told("number-used-again-sealed", sealed(entry(3, seq=3), numbers=False), GAP, REWRITTEN),
    told("item-charged-again", sealed(extra(OURS, items=lambda books: books.rows[3]["items"])), DUPLICATE),
    told(
        "lost-item-twice-in-one-entry",
        sealed(extra(OURS, items=lambda _books: [{"item_key": "e" * 64, "result_sha": "a" * 64, "units": 1}] * 5)),
        DUPLICATE,
        UNEXPLAINED,
    ),
    told("forked-after-the-pin", sealed(entry(LAST, note="another")), REWRITTEN, only_pinned=True),
    told("forked-for-us", sealed(entry(THEIRS, note="another")), REWRITTEN),
    told("invented-for-our-key", sealed(extra(OURS)), UNEXPLAINED),
    told("invented-for-no-key", sealed(extra(OURS, api_key_id=None)), UNEXPLAINED),
    told("invented-image-at-the-price-of-texts", sealed(extra(OURS, modality="image")), UNEXPLAINED, PRICE),
    told("times-go-back", entry(3, created_at=1), BREAK),
    told("times-go-back-sealed", sealed(entry(3, created_at=1)), BREAK, REWRITTEN),
    told("of-another-account", sealed(entry(THEIRS, account_id="acct_other")), BREAK, REWRITTEN),
    told("of-another-ledger", sealed(entry(THEIRS, ledger_id="other")), BREAK, REWRITTEN),
    told("beyond-the-head", extra(OURS), GAP, BREAK, UNEXPLAINED, AMOUNT),
    told("dropped-page-without-renumbering", sealed(drop(4, 5, 6), numbers=False), GAP, REWRITTEN),
]

AMOUNTS = [
    told("inflated", entry(OURS, units=50), BREAK, AMOUNT),
    told("inflated-sealed", sealed(entry(OURS, units=50, amount_micro=5000)), AMOUNT, REWRITTEN),
    told("inflated-at-the-end", sealed(entry(LAST, units=9, amount_micro=900)), AMOUNT),
    told("item-of-two-units", sealed(item(LAST, 0, units=2)), AMOUNT),
    told("amount-alone", sealed(entry(OURS, amount_micro=501)), AMOUNT, REWRITTEN),
    told("charge-of-nothing", sealed(both(entry(LAST, units=0, amount_micro=0), row(LAST, items=[]))), AMOUNT),
    told("running-total", sealed(entry(LAST, used_units=99), totals=False), AMOUNT),
    told("running-limit", sealed(entry(LAST, limit_units=9), totals=False), AMOUNT),
    told("top-up-with-items", sealed(both(extra(OURS, kind="topup", price_id=None))), AMOUNT, PRICE),
    told("top-up-taken-back", sealed(entry(TOP_UP, units=1)), REWRITTEN),
    told("more-than-the-budget", sealed(both(entry(0, units=1), entry(TOP_UP, units=1))), AMOUNT, REWRITTEN),
    told("refund-of-nothing-charged", sealed(refund(OURS, 1, ref_seq=77)), AMOUNT),
    told("refund-of-a-top-up", sealed(refund(OURS, 1, ref_seq=1)), AMOUNT),
    told("refund-without-reference", sealed(refund(OURS, 1, ref_seq=None)), AMOUNT),
    told("refund-before-its-charge", sealed(order(0, 1, 5, 2, 3, 4, 6, 7, 8, 9)), AMOUNT, REWRITTEN, BREAK),
    told("refund-of-more-than-is-left", sealed(refund(OURS, 4)), AMOUNT),
    told("refund-to-another-key", sealed(refund(OURS, 1, api_key_id="key_other")), AMOUNT),
    told("refund-at-another-price", sealed(refund(OURS, 1, unit_price_micro=1, amount_micro=1)), AMOUNT, PRICE),
    told("refund-with-items", sealed(both(refund(OURS, 1), row(-1, items=[{"item_key": "b" * 64,
         "result_sha": "b" * 64, "units": 1}]))), AMOUNT),
    told("price-swapped", entry(OURS, price_id=9, unit_price_micro=900), BREAK, AMOUNT, PRICE),
    told("price-swapped-sealed", sealed(reprice), PRICE, REWRITTEN, AMOUNT),
    told("price-of-two-values", sealed(entry(LAST, unit_price_micro=1, amount_micro=5)), PRICE),
    told("price-missing", sealed(entry(LAST, price_id=None)), PRICE),
    told("price-never-agreed", sealed(entry(3, price_id=9, unit_price_micro=9, amount_micro=45)), PRICE, REWRITTEN,
         AMOUNT),
    told("currency-swapped", sealed(recurrency), PRICE, REWRITTEN),
    told("currency-of-a-top-up", sealed(entry(TOP_UP, currency="USD")), PRICE, REWRITTEN),
    told("currency-of-one-entry", sealed(entry(LAST, currency="USD")), PRICE),
    told("head-totals", head(used_units=1), AMOUNT),
    told("summary-units", summary(total={"units": 1, "amount_micro": 1}), AMOUNT),
    told("summary-budget", summary(remaining_units=1), AMOUNT),
    told("summary-of-another-history", summary(head_hash="0" * 64), REWRITTEN),
    told("summary-ahead", summary(head_seq=11), GAP),
]  # fmt: skip

SEALS = [
    told("entry-hash", row(OURS, entry_hash="0" * 64), BREAK, REWRITTEN, SIGNATURE),
    told("signature-of-another-entry", row(OURS, signature="AAAA"), SIGNATURE),
    told("items-swapped", swap_items, BREAK, DUPLICATE),
    told("item-key", item(OURS, 0, item_key="0" * 64), BREAK, UNEXPLAINED),
    told("item-result", item(OURS, 0, result_sha="0" * 64), BREAK),
    told("items-hidden", row(OURS, items=[]), BREAK, AMOUNT),
    told("items-hash-missing", entry(OURS, items_hash=None), BREAK),
    told("head-signature", signature, SIGNATURE),
    told("head-by-a-stranger", head(stranger), SIGNATURE),
    told("head-in-the-name-of-another-key", head(stranger, key_id="0" * 16), SIGNATURE),
    told("head-by-the-retired-key", head(lambda books: books.keys[0], signed_at=2**52), SIGNATURE),
    told("head-for-another-account", head(account_id="acct_other"), BREAK),
    told("head-for-another-ledger", head(ledger_id="other"), BREAK),
    told("head-of-another-chain", head(entry_hash="0" * 64), BREAK),
    told("two-heads-of-one-length", second_head(entry_hash="0" * 64), REWRITTEN),
    told("two-heads-of-one-entry", second_head(limit_units=1), REWRITTEN),
    told("head-goes-back", second_head(seq=9), REWRITTEN),
    told("head-ahead", head(seq=12), GAP),
    told("newest-key-forgotten", keys(lambda known: known[:1]), SIGNATURE),
    told("entry-by-a-stranger", sealed(entry(THEIRS, signing_key_id="0" * 16)), SIGNATURE, REWRITTEN),
    told("entries-by-the-retired-key", sealed(signed_by_an_old_key), SIGNATURE, REWRITTEN),
]


UNVERIFIED = {
    "cursor-in-circles": (cursor(lambda _after: 0), "does not go on"),
    "cursor-goes-back": (cursor(lambda after: after - 1), "does not go on|after_seq"),
    "cursor-without-end": (cursor(lambda after: after + 1), "does not go on"),
    "pages-without-entries": (
        page(lambda shown, after: shown | {"entries": [], "signatures": [], "next_after_seq": after + 1}),
        "go on",
    ),
    "signatures-of-other-entries": (page(lambda shown, _after: shown | {"signatures": []}), "number of signatures"),
    "head-behind": (head(seq=7), "does not go on"),
    "huge-number": (entry(OURS, units=2**80), "a number that cannot be"),
    "negative-units": (entry(OURS, units=-5), "a number that cannot be"),
    "negative-refund": (entry(REFUND, amount_micro=-1), "a number that cannot be"),
    "null-number": (entry(OURS, units=None), "units"),
    "null-hash": (row(OURS, entry_hash=None), "entry_hash"),
    "null-items": (row(OURS, items=None), "items"),
    "null-head": (page(lambda shown, _after: shown | {"signed_head": None}), "signed_head"),
    "text-for-a-number": (entry(OURS, units="many"), "units"),
    "unknown-kind": (entry(OURS, kind="gift"), "kind"),
    "unknown-version": (entry(OURS, v=2), "v"),
    "unknown-field": (entry(OURS, discount=5), "discount"),
    "half-a-character": (entry(OURS, note="\ud800"), "note|the body|surrogate"),
    "item-key-that-is-none": (item(OURS, 0, item_key="mine"), "item key"),
    "page-that-is-none": (page(lambda _shown, _after: {"detail": "later"}), "not a VL2V vendor"),
    "summary-of-another-ledger": (summary(ledger_id="other"), "bills for ledger"),
    "no-keys": (keys(lambda _known: []), "no signing key"),
    "another-line-of-keys": (other_line, "lines of keys is false"),
    "old-key-forgotten": (keys(lambda known: known[1:]), "first signing key|predecessor"),
    "keys-in-another-order": (keys(lambda known: known[::-1]), "first signing key|predecessor"),
    "key-that-its-predecessor-never-signed": (own_key, "predecessor"),
    "key-id-of-another-key": (keys(lambda known: [known[0] | {"key_id": "0" * 16}, *known[1:]]), "not a valid key"),
}
"""Lies that leave nothing to verify, and what the refusal must speak of."""
