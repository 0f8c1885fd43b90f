"""Money before work: what of a request is read at all, and how far, once it is known what is paid and what is left."""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from vl2v_vendor.domain.encoder import PreparedItem
from vl2v_vendor.domain.errors import ItemFailure, PriceChanged
from vl2v_vendor.domain.ledger import Offer, admit
from vl2v_vendor.service.preparation import Preparation, check_item_key
from vl2v_vendor.service.sale import Sale, SaleItem, SaleRequest, beyond_budget


def admit_unseen(request: SaleRequest, offer: Offer, item_keys: Sequence[str]) -> int:
    """Return how many of the keys that are not paid may be worked on, before any of their items is read.

    Raises:
        BudgetExhausted: They do not fit; with `allow_partial`, none fits and nothing is paid.
        PriceChanged: The client pinned another price, or a maximum that they exceed.
    """
    unpaid = sum(key not in offer.paid for key in item_keys)
    if not unpaid:
        return 0
    room = admit(unpaid, offer.budgets, allow_partial=request.allow_partial, delivers_free=bool(offer.paid))
    if request.price_id not in (None, offer.price.id):
        raise PriceChanged(
            f"price {request.price_id} is no longer in force; price {offer.price.id} is. Read /v1/models and decide"
        )
    charge_micro = room * offer.price.unit_price_micro
    if request.max_charge_micro is not None and charge_micro > request.max_charge_micro:
        raise PriceChanged(
            f"{room} new items cost {charge_micro} micro-{offer.price.currency}, more than `max_charge_micro` "
            f"{request.max_charge_micro}; raise it or send fewer items"
        )
    return room


async def read_items(
    preparation: Preparation,
    request: SaleRequest,
    item_keys: Sequence[str],
    offer: Offer,
    room: int,
    fingerprint_of: Callable[[str], str],
    *,
    key: str,
) -> list[SaleItem]:
    """Read what may be delivered, in order, and decode no more pictures than the model is to see.

    New items are decoded while there is `room` for their keys; one that cannot be read takes none, so the next has its
    turn. What is paid, or has a key that is in the request twice, is compared by the name of its content, which takes
    no decoding. What the budgets end before is not read. All of it is in the turns of the account `key`.
    """
    items = [SaleItem(item_key, failure=check_item_key(item_key)) for item_key in item_keys]
    places: dict[str, deque[int]] = {}
    for place, item in enumerate(items):
        if item.failure is None:
            places.setdefault(item.item_key, deque()).append(place)

    async def read(chosen: Sequence[int], *, by_name: bool = False) -> None:
        prepare = preparation.name if by_name else preparation.prepare
        sources = [request.sources[place] for place in chosen]
        outcomes = await prepare(request.modality, sources, key=key, truncate=request.truncate)
        for place, outcome in zip(chosen, outcomes, strict=True):
            if isinstance(outcome, ItemFailure):
                items[place].failure = outcome
            elif isinstance(outcome, PreparedItem):
                items[place].prepared, items[place].fingerprint = outcome, fingerprint_of(outcome.content_sha)
            else:
                items[place].fingerprint = fingerprint_of(outcome)

    unpaid = iter([item_key for item_key in places if item_key not in offer.paid])
    turn = list(islice(unpaid, room))
    while turn:
        tried = {item_key: places[item_key].popleft() for item_key in turn}
        await read(list(tried.values()))
        failed = [item_key for item_key, place in tried.items() if items[place].failure is not None]
        turn = [item_key for item_key in failed if places[item_key]]
        turn += islice(unpaid, len(failed) - len(turn))
    for item_key in unpaid:
        for place in places.pop(item_key):
            items[place].failure = beyond_budget(offer.budgets)
    await read([place for rest in places.values() for place in rest], by_name=True)
    return items


async def read_expired(preparation: Preparation, request: SaleRequest, sale: Sale, *, key: str) -> None:
    """Decode what is to be computed again and was only named so far, in the turns of the account `key`."""
    named = {item.item_key: item for item, _ in sale.expired if item.prepared is None}
    places = [place for place, item in enumerate(sale.items) if named.get(item.item_key) is item]
    sources = [request.sources[place] for place in places]
    outcomes = await preparation.prepare(request.modality, sources, key=key, truncate=request.truncate)
    for place, outcome in zip(places, outcomes, strict=True):
        if isinstance(outcome, ItemFailure):
            sale.fail(sale.items[place].item_key, outcome.code, outcome.detail)
        else:
            sale.items[place].prepared = outcome
    sale.expired = [(item, paid) for item, paid in sale.expired if item.failure is None]
