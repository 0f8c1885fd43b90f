"""What was paid comes again: recomputed past its retention, or replayed by its key alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from sales_desk import RED, buy, caller, keys, states
from serving_shop import RECOMPUTES_PER_MINUTE, Vendor, item_key, png, tell
from vl2v_vendor.domain.errors import LedgerUnavailable, OutcomeUnknown, RateLimited
from vl2v_vendor.domain.ledger import PostedEntry
from vl2v_vendor.service.outcomes import Delivered


def test_an_expired_result_is_computed_again_free_and_signed() -> None:
    async def story(vendor: Vendor) -> None:
        first = await buy(vendor, RED, item_keys=keys("a"))
        vendor.ledger.forget_vectors()
        again = await buy(vendor, RED, item_keys=keys("a"))
        assert states(again) == ["recomputed"]
        assert vendor.ledger.used_units == 1
        verdict, paid = again.items[0].verdict, first.items[0].verdict
        assert isinstance(verdict, Delivered)
        assert isinstance(paid, Delivered)
        assert verdict.recompute is not None
        assert verdict.recompute.signature == "recompute"
        assert verdict.recompute.note["recompute_of"] == paid.result_sha == verdict.result_sha

    tell(story)


def test_an_expired_result_of_other_weights_stays_expired() -> None:
    async def story(vendor: Vendor) -> None:
        await buy(vendor, RED, item_keys=keys("a"))
        vendor.ledger.forget_vectors()
        vendor.ledger.paid = {key: replace(item, weights_sha="0" * 64) for key, item in vendor.ledger.paid.items()}
        assert states(await buy(vendor, RED, png("blue"), item_keys=keys("a", "b"))) == ["result_expired", "billed"]

    tell(story)


def test_free_recomputation_is_rate_limited_and_paid_work_is_not() -> None:
    async def story(vendor: Vendor) -> None:
        names = [f"item {number}" for number in range(RECOMPUTES_PER_MINUTE + 1)]
        files = [png((number, 0, 0)) for number in range(len(names))]
        await buy(vendor, *files, item_keys=keys(*names))
        vendor.ledger.forget_vectors()
        again = await buy(vendor, *files[:-1], item_keys=keys(*names[:-1]))
        assert set(states(again)) == {"recomputed"}
        with pytest.raises(RateLimited) as refusal:
            await buy(vendor, files[0], png("blue"), item_keys=keys(names[0], "new"))
        assert 0 < refusal.value.retry_after_seconds <= 60
        assert vendor.ledger.used_units == len(names)
        assert states(await buy(vendor, png("blue"), item_keys=keys("new"))) == ["billed"]
        vendor.clock.time += 1_000_000 * refusal.value.retry_after_seconds
        assert states(await buy(vendor, files[0], item_keys=keys(names[0]))) == ["recomputed"]

    tell(story)


def test_replay_needs_only_the_keys() -> None:
    async def story(vendor: Vendor) -> None:
        await buy(vendor, RED, item_keys=keys("a"))
        outcome = await vendor.services.replay.replay(caller(vendor), [item_key("a"), item_key("b"), "no key"])
        assert states(outcome) == ["replayed", "unknown_item", "invalid_item_key"]
        vendor.ledger.forget_vectors()
        assert states(await vendor.services.replay.replay(caller(vendor), [item_key("a")])) == ["result_expired"]

    tell(story)


def test_a_free_item_brings_the_receipt_that_paid_for_it_each_once_and_as_first_given() -> None:
    async def story(vendor: Vendor) -> None:
        first = await buy(vendor, RED, png("blue"), item_keys=keys("a", "b"))
        second = await buy(vendor, png("green"), item_keys=keys("c"))
        third = await buy(vendor, RED, png("blue"), png("green"), png("grey"), item_keys=keys("a", "b", "c", "d"))
        assert [paid.receipt for paid in third.paid_by] == [first.receipt, second.receipt]
        assert [item.item_key for item in third.paid_by[0].items] == keys("a", "b")
        replayed = await vendor.services.replay.replay(caller(vendor), [item_key("d"), item_key("a")])
        assert [paid.receipt for paid in replayed.paid_by] == [first.receipt, third.receipt]

    tell(story)


def test_an_answer_of_new_items_reads_no_earlier_purchase() -> None:
    async def story(vendor: Vendor) -> None:
        async def forbidden(account_id: str, seqs: Sequence[int]) -> list[PostedEntry]:
            raise AssertionError("nothing was replayed")

        vendor.ledger.find_entries = forbidden  # type: ignore[method-assign]
        outcome = await buy(vendor, RED, RED, item_keys=keys("a", "a"))  # the second is paid by this very request
        assert (states(outcome), outcome.paid_by) == (["billed", "replayed"], ())

    tell(story)


def test_what_was_charged_is_not_to_be_sent_again_blindly_when_earlier_receipts_cannot_be_read() -> None:
    async def story(vendor: Vendor) -> None:
        await buy(vendor, RED, item_keys=keys("a"))

        async def down(account_id: str, seqs: Sequence[int]) -> list[PostedEntry]:
            raise LedgerUnavailable("no answer in time")

        vendor.ledger.find_entries = down  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown):
            await buy(vendor, RED, png("blue"), item_keys=[item_key("a"), None])
        for files in ([RED, png("green")], [RED]):
            with pytest.raises(LedgerUnavailable) as named:
                await buy(vendor, *files, item_keys=keys("a", "b")[: len(files)])
            assert not isinstance(named.value, OutcomeUnknown)

    tell(story)
