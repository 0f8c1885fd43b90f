"""The story of a sale: who pays for what, what is replayed, and that nothing that fails is billed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support.ledger.ledger_shop import item_key
from support.vendor.sales_desk import BLACK, BROKEN, GREY, RED, buy, caller, keys, states, vector
from support.vendor.serving_shop import RECOMPUTES_PER_MINUTE, PickyEncoder, Vendor, noise, png, running_vendor, save
from vl2v_contract.records import receipt_message, verify
from vl2v_contract.vectors import result_sha
from vl2v_vendor.domain.accounts import Budget, Budgets
from vl2v_vendor.domain.encoder import PixelBatch, PreparedItem, TokenBatch, VectorBatch
from vl2v_vendor.domain.errors import (
    BudgetExhausted,
    InvalidRequest,
    ItemFailure,
    LedgerUnavailable,
    ModelUnavailable,
    OutcomeUnknown,
    Overloaded,
    PriceChanged,
    RateLimited,
    UnknownModel,
)
from vl2v_vendor.domain.ledger import Charge, ChargeOrder
from vl2v_vendor.engine.models.hash_encoder import HashEncoder
from vl2v_vendor.engine.queue.lanes import EncodingLanes
from vl2v_vendor.engine.queue.micro_batcher import MicroBatcher
from vl2v_vendor.images.image_decoding import PillowImageDecoder
from vl2v_vendor.service.decode_turns import DecodeTurns

pytestmark = pytest.mark.anyio


async def test_good_items_are_billed_and_bad_ones_have_their_own_errors() -> None:
    async with running_vendor() as vendor:
        outcome = await buy(vendor, RED, BROKEN, b"", png("blue"))
        assert states(outcome) == ["billed", "unsupported_image_format", "empty_item", "billed"]
        assert outcome.billed_units == vendor.ledger.used_units == 2
        assert outcome.receipt is not None
        assert outcome.receipt.entry_hash == vendor.ledger.posted[0].entry_hash
        (key,) = vendor.ledger.signer.published_keys
        assert verify(key.public_key, receipt_message(outcome.receipt.entry_hash), outcome.receipt.signature)
        sold = outcome.items[0]
        assert sold.vector is not None
        assert sold.result_sha == result_sha(sold.vector)
        assert outcome.budgets.account.used_units == 2


async def test_a_known_item_is_replayed_free_in_any_batch() -> None:
    async with running_vendor() as vendor:
        first = await buy(vendor, RED, item_keys=keys("a"))
        again = await buy(vendor, png("blue"), RED, item_keys=keys("b", "a"))
        assert states(again) == ["billed", "replayed"]
        assert vendor.ledger.used_units == 2
        np.testing.assert_array_equal(vector(first, 0), vector(again, 1))


async def test_a_key_twice_in_one_request_is_charged_once() -> None:
    async with running_vendor() as vendor:
        outcome = await buy(vendor, RED, RED, png("blue"), item_keys=keys("a", "a", "a"))
        assert states(outcome) == ["billed", "replayed", "item_key_mismatch"]
        assert (outcome.billed_units, outcome.free_units) == (1, 1)


async def test_a_key_stands_for_one_content_for_ever() -> None:
    async with running_vendor() as vendor:
        await buy(vendor, RED, item_keys=keys("a"))
        outcome = await buy(vendor, png("blue"), RED, item_keys=keys("a", "a"))
        assert states(outcome) == ["item_key_mismatch", "replayed"]
        assert vendor.ledger.used_units == 1


async def test_the_same_pixels_are_the_same_content_in_any_png() -> None:
    async with running_vendor() as vendor:
        image = noise(32, 32)
        await buy(vendor, save(image, "PNG", compress_level=0), item_keys=keys("a"))
        assert states(await buy(vendor, save(image, "PNG", compress_level=9), item_keys=keys("a"))) == ["replayed"]
        assert states(await buy(vendor, save(image, "BMP"), item_keys=keys("a"))) == ["item_key_mismatch"]


async def test_an_idempotency_key_names_items_that_have_no_key() -> None:
    async with running_vendor() as vendor:
        first = await buy(vendor, RED, png("blue"), idempotency_key="order 7")
        again = await buy(vendor, RED, png("green"), idempotency_key="order 7")
        assert states(first) == ["billed", "billed"]
        assert states(again) == ["replayed", "item_key_mismatch"]
        assert states(await buy(vendor, RED)) == ["billed"]
        with pytest.raises(InvalidRequest, match="Idempotency-Key"):
            await buy(vendor, RED, idempotency_key="")


async def test_item_keys_are_checked() -> None:
    async with running_vendor() as vendor:
        outcome = await buy(vendor, RED, RED, item_keys=["A" * 64, item_key("b")])
        assert states(outcome) == ["invalid_item_key", "billed"]
        with pytest.raises(InvalidRequest, match="1 item keys for 2 items"):
            await buy(vendor, RED, RED, item_keys=keys("a"))


async def test_without_allow_partial_a_batch_is_all_or_nothing_and_refused_before_the_model() -> None:
    async with running_vendor(limit_units=2) as vendor:
        with pytest.raises(BudgetExhausted) as caught:
            await buy(vendor, RED, png("blue"), png("green"))
        assert (caught.value.budget, caught.value.remaining_units) == ("account", 2)
        assert not vendor.ledger.orders
        with pytest.raises(BudgetExhausted):  # whether an item can be read is not looked at before it can be paid
            await buy(vendor, RED, BROKEN, png("blue"))


async def test_nothing_is_decoded_that_the_budget_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_vendor(limit_units=3) as vendor:
        await buy(vendor, RED, item_keys=keys("a"))
        decoded = _count_decoding(vendor, monkeypatch)
        with pytest.raises(BudgetExhausted):
            await buy(vendor, RED, BROKEN, png("blue"))
        assert not decoded
        outcome = await buy(
            vendor,
            *(RED, BROKEN, png("blue"), png("green"), png("white"), BROKEN, png("black")),
            item_keys=keys("a", "b", "c", "d", "e", "f", "g"),
            allow_partial=True,
        )
        assert states(outcome) == [
            *("replayed", "unsupported_image_format", "billed", "billed"),
            *("budget_exhausted", "budget_exhausted", "budget_exhausted"),
        ]
        assert len(decoded) == 3  # the broken one, and the two that are sold
        with pytest.raises(BudgetExhausted):
            await buy(vendor, BROKEN, png("white"), allow_partial=True)
        assert len(decoded) == 3


async def test_a_paid_key_has_nothing_decoded_that_the_model_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_vendor(limit_units=1) as vendor:
        others = [png((0, 0, number)) for number in range(6)]
        decoded = _count_decoding(vendor, monkeypatch)
        bought = await buy(vendor, *others, RED, RED, item_keys=keys(*"aaaaaa", "a", "a"))
        assert states(bought) == ["billed", *("item_key_mismatch",) * 7]
        assert decoded == others[:1]  # for one query one picture
        again = await buy(vendor, *others, BROKEN, item_keys=keys(*"aaaaaaa"))
        assert states(again) == ["replayed", *("item_key_mismatch",) * 6]
        assert decoded == others[:1]
        vendor.ledger.forget_vectors()
        again = await buy(vendor, *others[::-1], others[0], item_keys=keys(*"aaaaaaa"))
        assert states(again) == [*("item_key_mismatch",) * 5, "recomputed", "recomputed"]
        assert decoded == others[:1] * 2


async def test_what_is_not_computed_again_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_vendor() as vendor:
        names, files = keys(*"abcdef"), [png((0, 0, number)) for number in range(RECOMPUTES_PER_MINUTE)]
        await buy(vendor, *files, item_keys=names)
        vendor.ledger.forget_vectors()
        decoded = _count_decoding(vendor, monkeypatch)
        assert set(states(await buy(vendor, *files, item_keys=names))) == {"recomputed"}
        with pytest.raises(RateLimited):
            await buy(vendor, *files, item_keys=names)
        assert len(decoded) == len(files)
        vendor.ledger.paid = {key: replace(item, weights_sha="0" * 64) for key, item in vendor.ledger.paid.items()}
        assert set(states(await buy(vendor, *files, item_keys=names))) == {"result_expired"}
        assert len(decoded) == len(files)


async def test_what_was_sold_once_and_is_now_refused_fails_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_vendor() as vendor:
        await buy(vendor, RED, item_keys=keys("a"))
        vendor.ledger.forget_vectors()

        def refuse(_self: PillowImageDecoder, _data: bytes, _small_pixels: int | None = None) -> PreparedItem:
            raise ItemFailure("undecodable_image", "no longer taken")

        monkeypatch.setattr(PillowImageDecoder, "decode", refuse)
        assert states(await buy(vendor, RED, RED, item_keys=keys("a", "a"))) == ["undecodable_image"] * 2


async def test_items_of_one_key_have_room_together(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_vendor(limit_units=1) as vendor:
        decoded = _count_decoding(vendor, monkeypatch)
        names = keys("a", "b", "b", "c")
        outcome = await buy(vendor, BROKEN, BROKEN, RED, png("blue"), item_keys=names, allow_partial=True)
        assert states(outcome) == [*("unsupported_image_format",) * 2, "billed", "budget_exhausted"]
        assert len(decoded) == 3


def _count_decoding(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Note every picture that is decoded from now on."""
    decoded: list[bytes] = []
    decode = PillowImageDecoder.decode

    def noted(self: PillowImageDecoder, data: bytes, small_pixels: int | None = None) -> PreparedItem:
        decoded.append(data)
        return decode(self, data, small_pixels)

    monkeypatch.setattr(PillowImageDecoder, "decode", noted)
    return decoded


async def test_allow_partial_bills_the_longest_prefix_of_valid_new_items() -> None:
    async with running_vendor(limit_units=2) as vendor:
        await buy(vendor, RED, item_keys=keys("a"))
        outcome = await buy(
            vendor, RED, BROKEN, png("blue"), png("green"), item_keys=keys("a", "b", "c", "d"), allow_partial=True
        )
        assert states(outcome) == ["replayed", "unsupported_image_format", "billed", "budget_exhausted"]
        replay_only = await buy(vendor, RED, png("green"), item_keys=keys("a", "d"), allow_partial=True)
        assert states(replay_only) == ["replayed", "budget_exhausted"]
        assert "the account's budget ends" in replay_only.failures[1].detail
        with pytest.raises(BudgetExhausted):
            await buy(vendor, png("green"), allow_partial=True)
        with pytest.raises(BudgetExhausted):  # a known key with another content delivers nothing either
            await buy(vendor, BLACK, png("green"), item_keys=keys("a", "d"), allow_partial=True)


async def test_a_budget_that_ends_during_the_work_bills_nothing_too_much() -> None:
    async with running_vendor(limit_units=1) as vendor:
        await buy(vendor, RED, item_keys=keys("a"))
        budgets = vendor.ledger.budgets

        async def outdated(account_id: str, api_key_id: str) -> Budgets:
            await budgets(account_id, api_key_id)
            return Budgets(Budget(100, 0), None)

        vendor.ledger.budgets = outdated  # type: ignore[method-assign]
        with pytest.raises(BudgetExhausted):
            await buy(vendor, png("green"))
        with pytest.raises(BudgetExhausted):
            await buy(vendor, png("green"), allow_partial=True)
        outcome = await buy(vendor, RED, png("green"), item_keys=keys("a", "b"), allow_partial=True)
        assert states(outcome) == ["replayed", "budget_exhausted"]
        assert vendor.ledger.used_units == 1


async def test_two_buyers_of_one_key_pay_once() -> None:
    async with running_vendor() as vendor:
        outcomes = await asyncio.gather(*(buy(vendor, RED, item_keys=keys("a")) for _ in range(3)))
        assert sorted(states(outcome)[0] for outcome in outcomes) == ["billed", "replayed", "replayed"]
        assert vendor.ledger.used_units == 1


async def test_price_pins_hold_for_new_items_and_not_for_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_vendor() as vendor:
        await buy(vendor, RED, item_keys=keys("a"), max_charge_micro=100)
        decoded = _count_decoding(vendor, monkeypatch)
        for pins in ({"price_id": 99}, {"max_charge_micro": 199}):
            with pytest.raises(PriceChanged):
                await buy(vendor, png("blue"), png("green"), **pins)
            assert not decoded, "what will not be paid is not worked on"
            assert states(await buy(vendor, RED, item_keys=keys("a"), **pins)) == ["replayed"]
            decoded.clear()
        assert vendor.ledger.used_units == 1


async def test_all_keys_of_an_account_have_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_vendor() as vendor:
        lines: list[str] = []
        for place, name in ((DecodeTurns, "run"), (EncodingLanes, "encode"), (MicroBatcher, "reserve")):
            original = getattr(place, name)

            def noted(self: Any, *arguments: Any, original: Any = original, **options: Any) -> Any:
                words = [*(one for one in arguments if isinstance(one, str)), options.get("key")]
                lines.extend(word for word in words if word and word != "image")
                return original(self, *arguments, **options)

            monkeypatch.setattr(place, name, noted)
        await buy(vendor, RED)
        assert len(lines) == 3
        assert set(lines) == {caller(vendor).account_id}


async def test_an_item_that_the_model_cannot_encode_fails_alone_and_unbilled() -> None:
    async with running_vendor(encoder=PickyEncoder()) as vendor:
        outcome = await buy(vendor, RED, BLACK, GREY, png("blue"))
        assert states(outcome) == ["billed", "encoding_failed", "encoding_failed", "billed"]
        assert vendor.ledger.used_units == 2


async def test_another_model_is_not_on_sale() -> None:
    async with running_vendor() as vendor:
        with pytest.raises(UnknownModel, match="hash-64"):
            await buy(vendor, RED, model="ViT-L-14")


class BlockedEncoder:
    """Works on a batch until it dies."""

    info = HashEncoder().info
    ready = True

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.died = asyncio.Event()

    async def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        self.started.set()
        await self.died.wait()
        raise ModelUnavailable("the model process died")

    async def encode_tokens(self, tokens: TokenBatch) -> VectorBatch:
        raise ModelUnavailable("the model process died")


async def test_a_dead_model_and_a_full_queue_refuse_the_whole_request() -> None:
    encoder = BlockedEncoder()

    async with running_vendor(encoder=encoder) as vendor:
        colours = [png((1, 2, n)) for n in range(8)]
        first = asyncio.create_task(buy(vendor, *colours))
        await encoder.started.wait()
        second = asyncio.create_task(buy(vendor, *colours))
        while vendor.services.lanes.queued_items["image"] < 8:  # half of what may wait
            await asyncio.sleep(0.001)
        with pytest.raises(Overloaded):
            await buy(vendor, *colours)
        encoder.died.set()
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
        assert all(isinstance(outcome, ModelUnavailable) for outcome in outcomes)
        assert not vendor.ledger.orders


async def test_texts_are_counted_cut_and_refused() -> None:
    async with running_vendor() as vendor:
        texts = ["a photo of a dog", "", " \n", "word " * 100, "x" * 2000, "\ud800"]
        kept = await buy(vendor, *texts, modality="text")
        codes = ["empty_item", "empty_item", "text_too_long", "text_too_long", "invalid_encoding"]
        assert states(kept) == ["billed", *codes]
        [cut] = (await buy(vendor, texts[3], modality="text", truncate=True)).items
        assert cut.prepared is not None
        assert (cut.prepared.tokens, cut.prepared.truncated) == (102, True)


async def test_an_unconfirmed_charge_of_unnamed_items_is_not_to_be_retried_blindly() -> None:
    async with running_vendor() as vendor:

        async def unconfirmed(order: ChargeOrder) -> Charge:
            raise LedgerUnavailable("no answer in time")

        vendor.ledger.charge = unconfirmed  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown, match="item_key"):
            await buy(vendor, RED)
        with pytest.raises(LedgerUnavailable) as named:
            await buy(vendor, RED, item_keys=keys("a"))
        assert not isinstance(named.value, OutcomeUnknown)
