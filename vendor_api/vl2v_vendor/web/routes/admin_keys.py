"""The staff's API: API keys and prices."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request, Response

from vl2v_contract.wire.admin import (
    ApiKey,
    IssuedKey,
    KeyList,
    ListedKey,
    NewKey,
    NewPrice,
    PriceVersion,
    PriceVersionList,
)
from vl2v_vendor.domain import accounts
from vl2v_vendor.domain.ledger import Price
from vl2v_vendor.web.bodies import read_json
from vl2v_vendor.web.dependencies import ADMIN, ServicesOf
from vl2v_vendor.web.openapi import json_body, problems
from vl2v_vendor.web.routes.admin import (
    ACT_STATUSES,
    PREFIX,
    READ_ONE_STATUSES,
    READ_STATUSES,
    AdminContextOf,
    result_of,
)

router = APIRouter(prefix=PREFIX, tags=["admin"], dependencies=[ADMIN])

_SHOWN_NOW = "Keep the secret now, it is not shown again."
_SHOWN_BEFORE = (
    "This key was made by an earlier request, and its secret was shown then; "
    "if it is lost, revoke the key and make another."
)


@router.post(
    "/accounts/{account}/keys",
    status_code=201,
    responses=ACT_STATUSES,
    openapi_extra=json_body(NewKey),
    summary="Make an API key",
)
async def create_key(
    account: str, request: Request, response: Response, context: AdminContextOf, services: ServicesOf
) -> IssuedKey:
    """A new API key of an account that exists. Its secret is in this answer and in no other."""
    body = await read_json(request, NewKey)
    done = await services.administration.create_key(
        context,
        account,
        scopes=frozenset(body.scopes),
        limit_units=body.limit_units,
        expires_days=body.expires_days,
        name=body.name,
    )
    response.headers["Cache-Control"] = "no-store"
    key, secret = result_of(done, response)
    return IssuedKey(key=_render_key(key), secret=secret, notice=_SHOWN_NOW if secret is not None else _SHOWN_BEFORE)


@router.get("/accounts/{account}/keys", responses=READ_ONE_STATUSES, summary="List an account's API keys")
async def list_keys(account: str, services: ServicesOf) -> KeyList:
    """The account's API keys, oldest first, with what is left of their own budgets."""
    found = await services.administration.keys(account)
    return KeyList(data=[_render_listed(key, found.budgets.get(key.id)) for key in found.keys])


@router.post("/keys/{key}/revocation", responses=problems(401, 403, 404, 422, 503), summary="End an API key at once")
async def revoke_key(key: str, response: Response, context: AdminContextOf, services: ServicesOf) -> ApiKey:
    """End a key, named by its id or its prefix; the next request with it is refused, on every server.

    Revoking a key again changes nothing. A key may revoke itself.
    """
    done = await services.administration.revoke_key(context, key)
    return _render_key(result_of(done, response))


@router.post(
    "/prices",
    status_code=201,
    responses=problems(401, 403, 413, 415, 422, 503),
    openapi_extra=json_body(NewPrice),
    summary="Set a price",
)
async def set_price(
    request: Request, response: Response, context: AdminContextOf, services: ServicesOf
) -> PriceVersion:
    """A new version of a price, in force at once; requests that were quoted the old one are refused, not billed."""
    body = await read_json(request, NewPrice)
    done = await services.administration.set_price(
        context, body.model_id, body.modality, body.unit_price_micro, body.currency
    )
    return _render_price(result_of(done, response))


@router.get("/prices", responses=READ_STATUSES, summary="List prices")
async def list_prices(services: ServicesOf) -> PriceVersionList:
    """Every version of every price, oldest first."""
    return PriceVersionList(data=[_render_price(price) for price in await services.administration.prices()])


def _render_key(key: accounts.ApiKey) -> ApiKey:
    return ApiKey(**{**asdict(key), "scopes": sorted(key.scopes)})


def _render_listed(key: accounts.ApiKey, budget: accounts.Budget | None) -> ListedKey:
    return ListedKey(
        **_render_key(key).model_dump(),
        limit_units=None if budget is None else budget.limit_units,
        remaining_units=None if budget is None else budget.remaining_units,
    )


def _render_price(price: Price) -> PriceVersion:
    fields = asdict(price)
    return PriceVersion(price_id=fields.pop("id"), **fields)
