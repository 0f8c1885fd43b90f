"""What was paid comes again: recomputed past its retention, or replayed by its key alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, NoReturn

import pytest

from support.ledger.ledger_shop import fixed_signer, item_key
from support.vendor.sales_desk import RED, buy, caller, keys, states
from support.vendor.serving_shop import RECOMPUTES_PER_MINUTE, png, running_vendor
from vl2v_contract.records import StatementEntry, recompute_message, verify
from vl2v_vendor.domain.errors import LedgerUnavailable, ModelUnavailable, OutcomeUnknown, RateLimited
from vl2v_vendor.domain.ledger import Offer

pytestmark = pytest.mark.anyio


async def test_an_expired_result_is_computed_again_free_and_signed() -> None:
    async with running_vendor() as vendor:
        first = await buy(vendor, RED, item_keys=keys("a"))
        vendor.ledger.forget_vectors()
        again = await buy(vendor, RED, item_keys=keys("a"))
        assert states(again) == ["recomputed"]
        assert vendor.ledger.used_units == 1
        [verdict], [paid] = again.items, first.items
        assert verdict.recompute is not None
        note = verdict.recompute.note
        assert note.recompute_of == paid.result_sha == verdict.result_sha
        (key,) = fixed_signer().published_keys
        assert verify(key.public_key, recompute_message(asdict(note)), verdict.recompute.signature)


async def test_an_expired_result_of_other_weights_stays_expired() -> None:
    async with running_vendor() as vendor:
        await buy(vendor, RED, item_keys=keys("a"))
        vendor.ledger.forget_vectors()
        vendor.ledger.paid = {key: replace(item, weights_sha="0" * 64) for key, item in vendor.ledger.paid.items()}
        assert states(await buy(vendor, RED, png("blue"), item_keys=keys("a", "b"))) == ["result_expired", "billed"]


async def test_free_recomputation_is_rate_limited_and_paid_work_is_not() -> None:
    async with running_vendor() as vendor:
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


async def test_replay_needs_only_the_keys() -> None:
    async with running_vendor() as vendor:
        await buy(vendor, RED, item_keys=keys("a"))
        outcome = await vendor.services.seller.replay(caller(vendor), [item_key("a"), item_key("b"), "no key"])
        assert states(outcome) == ["replayed", "unknown_item", "invalid_item_key"]
        vendor.ledger.forget_vectors()
        assert states(await vendor.services.seller.replay(caller(vendor), [item_key("a")])) == ["result_expired"]


async def test_a_free_item_brings_the_receipt_that_paid_for_it_each_once_and_as_first_given() -> None:
    async with running_vendor() as vendor:
        first = await buy(vendor, RED, png("blue"), item_keys=keys("a", "b"))
        second = await buy(vendor, png("green"), item_keys=keys("c"))
        third = await buy(vendor, RED, png("blue"), png("green"), png("grey"), item_keys=keys("a", "b", "c", "d"))
        assert [paid.receipt for paid in third.paid_by] == [first.receipt, second.receipt]
        assert [item.item_key for item in third.paid_by[0].items] == keys("a", "b")
        replayed = await vendor.services.seller.replay(caller(vendor), [item_key("d"), item_key("a")])
        assert [paid.receipt for paid in replayed.paid_by] == [first.receipt, third.receipt]


async def test_an_answer_of_new_items_reads_no_earlier_purchase() -> None:
    async with running_vendor() as vendor:

        async def forbidden(account_id: str, seqs: Sequence[int]) -> list[StatementEntry]:
            raise AssertionError("nothing was replayed")

        vendor.ledger.find_entries = forbidden  # type: ignore[method-assign]
        outcome = await buy(vendor, RED, RED, item_keys=keys("a", "a"))  # the second is paid by this very request
        assert (states(outcome), outcome.paid_by) == (["billed", "replayed"], ())


async def down(account_id: str, seqs: Sequence[int]) -> list[StatementEntry]:
    raise LedgerUnavailable("no answer in time")


async def test_whoever_cannot_be_shown_who_paid_for_the_free_items_is_not_charged_for_the_others() -> None:
    async with running_vendor() as vendor:
        await buy(vendor, RED, item_keys=keys("a"))
        vendor.ledger.find_entries = down  # type: ignore[method-assign]
        for item_keys in ([item_key("a"), None], keys("a", "b")):
            with pytest.raises(LedgerUnavailable) as refusal:
                await buy(vendor, RED, png("blue"), item_keys=item_keys)
            assert not isinstance(refusal.value, OutcomeUnknown)
        assert vendor.ledger.used_units == 1


async def test_what_was_charged_beside_what_another_request_paid_meanwhile_is_not_to_be_sent_again_blindly() -> None:
    async with running_vendor() as vendor:
        await buy(vendor, RED, item_keys=keys("a"))
        offer = vendor.ledger.offer

        async def outdated(*arguments: Any) -> Offer:
            return replace(await offer(*arguments), paid={})

        vendor.ledger.offer, vendor.ledger.find_entries = outdated, down  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown):
            await buy(vendor, RED, png("blue"), item_keys=[item_key("a"), None])
        assert vendor.ledger.used_units == 2


async def test_what_the_model_could_not_compute_takes_nothing_from_the_allowance() -> None:
    async with running_vendor() as vendor:
        names = [f"item {number}" for number in range(RECOMPUTES_PER_MINUTE)]
        files = [png((number, 0, 0)) for number in range(len(names))]
        await buy(vendor, *files, item_keys=keys(*names))
        vendor.ledger.forget_vectors()
        encode = vendor.services.lanes.encode

        async def fail(*_: Any, **__: Any) -> NoReturn:
            raise ModelUnavailable("the model process is being restarted")

        vendor.services.lanes.encode = fail  # type: ignore[method-assign]
        for _ in range(3):
            with pytest.raises(ModelUnavailable):
                await buy(vendor, *files, item_keys=keys(*names))
        vendor.services.lanes.encode = encode  # type: ignore[method-assign]
        assert set(states(await buy(vendor, *files, item_keys=keys(*names)))) == {"recomputed"}
