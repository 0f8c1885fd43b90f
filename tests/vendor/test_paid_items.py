"""What was paid comes again: recomputed past its retention, or replayed by its key alone."""

from __future__ import annotations

from dataclasses import replace

from sales_desk import RED, buy, caller, keys, states
from serving_shop import Vendor, item_key, png, tell
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


def test_replay_needs_only_the_keys() -> None:
    async def story(vendor: Vendor) -> None:
        await buy(vendor, RED, item_keys=keys("a"))
        outcome = await vendor.services.replay.replay(caller(vendor), [item_key("a"), item_key("b"), "no key"])
        assert states(outcome) == ["replayed", "unknown_item", "invalid_item_key"]
        vendor.ledger.forget_vectors()
        assert states(await vendor.services.replay.replay(caller(vendor), [item_key("a")])) == ["result_expired"]

    tell(story)
