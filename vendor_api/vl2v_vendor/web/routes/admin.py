"""The staff's API: accounts with their top-ups, refunds and bills, API keys, prices, and the log of who did what.

`{account}` is an account's id, or its name if that has no slash and is no other account's id.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.types import DecoratedCallable
from pydantic import BaseModel

from vl2v_contract.records import Receipt, Statement, Summary
from vl2v_contract.wire import admin as wire
from vl2v_contract.wire import headers
from vl2v_vendor.domain import accounts
from vl2v_vendor.domain.ledger import Price
from vl2v_vendor.service.administration import AdminContext, lifetime_of, usual_currency
from vl2v_vendor.service.audit import MAX_PAGE_ENTRIES
from vl2v_vendor.web.bodies import read_json
from vl2v_vendor.web.declarations import (
    ADMIN,
    AdminCaller,
    AfterNumber,
    IdempotencyKey,
    PageLimit,
    ServicesOf,
    json_body,
    problems,
)

_READ_STATUSES = problems(401, 403, 503)
_READ_ONE_STATUSES = problems(401, 403, 404, 422, 503)
_SHOWN_NOW = "Keep the secret now, it is not shown again."
_SHOWN_BEFORE = (
    "This key was made by an earlier request, and its secret was shown then; "
    "if it is lost, revoke the key and make another."
)

router = APIRouter(prefix="/v1/admin", tags=["admin"], dependencies=[ADMIN])


def _makes(
    path: str, message: type[BaseModel], summary: str, statuses: Sequence[int] = (401, 403, 404, 413, 415, 422, 503)
) -> Callable[[DecoratedCallable], DecoratedCallable]:
    """Declare a route that makes something, as its JSON body asks."""
    body, responses = json_body(message), problems(*statuses)
    return router.post(path, status_code=201, responses=responses, openapi_extra=body, summary=summary)


async def admin_context(
    caller: AdminCaller, response: Response, idempotency_key: IdempotencyKey = None
) -> AdminContext:
    """Name the caller's act as the request does; a header of the answer says if it had been done before."""
    return AdminContext(
        caller, idempotency_key, partial(response.headers.__setitem__, headers.IDEMPOTENT_REPLAYED, "true")
    )


AdminContextOf = Annotated[AdminContext, Depends(admin_context)]


@_makes("/accounts", wire.NewAccount, "Open an account")
async def create_account(request: Request, context: AdminContextOf, services: ServicesOf) -> wire.Account:
    """Open an account; its budget is its first top-up. Repeated under its `Idempotency-Key`: as it was made."""
    body, staff = await read_json(request, wire.NewAccount), services.administration
    account = await staff.act(
        context,
        lambda accounts, request_id: accounts.create_account(
            body.name,
            budget_units=body.budget_units,
            currency=body.currency or usual_currency(accounts, staff.currency),
            request_id=request_id,
        ),
    )
    return _render_account(account)


@router.get("/accounts", responses=_READ_STATUSES, summary="List accounts")
async def list_accounts(services: ServicesOf) -> wire.AccountList:
    """List all accounts by name, with their budgets now."""
    found = await services.administration.read(lambda accounts: accounts.accounts())
    return wire.AccountList(data=[_render_account(account) for account in found])


@router.get("/accounts/{account}", responses=_READ_ONE_STATUSES, summary="Describe an account")
async def get_account(account: str, services: ServicesOf) -> wire.Account:
    """Describe one account, with its budget now."""
    return _render_account(await services.administration.read(lambda accounts: accounts.find_account(account)))


@_makes("/accounts/{account}/topups", wire.NewTopUp, "Raise an account's budget")
async def top_up(account: str, request: Request, context: AdminContextOf, services: ServicesOf) -> Receipt:
    """Write a ledger entry, answered with its receipt; every server admits by the new budget at once."""
    body = await read_json(request, wire.NewTopUp)
    return await services.administration.post(
        context,
        lambda accounts, request_id: accounts.top_up(
            accounts.find_account(account), body.units, note=body.note, request_id=request_id
        ),
    )


@_makes("/accounts/{account}/refunds", wire.NewRefund, "Give queries of a charge back")
async def refund(account: str, request: Request, context: AdminContextOf, services: ServicesOf) -> Receipt:
    """Write a ledger entry, answered with its receipt; the items stay paid and can still be replayed."""
    body = await read_json(request, wire.NewRefund)
    return await services.administration.post(
        context,
        lambda accounts, request_id: accounts.refund(
            accounts.find_account(account), body.seq, body.units, body.note, request_id=request_id
        ),
    )


@router.get("/accounts/{account}/summary", responses=_READ_ONE_STATUSES, summary="An account's bill at a glance")
async def get_summary(account: str, request: Request, services: ServicesOf) -> Summary:
    """Show what the account's own keys see at `/v1/billing/summary`."""
    found = await services.administration.read(lambda accounts: accounts.find_account(account))
    return await services.audit.summary(found.id, request.state.api_key_id)


@router.get("/accounts/{account}/statement", responses=_READ_ONE_STATUSES, summary="An account's ledger, page by page")
async def get_statement(
    account: str, services: ServicesOf, after_seq: AfterNumber = 0, limit: PageLimit = MAX_PAGE_ENTRIES
) -> Statement:
    """Show what the account's own keys see at `/v1/billing/statement`."""
    found = await services.administration.read(lambda accounts: accounts.find_account(account))
    return await services.audit.statement(found.id, after_seq, limit)


@router.get("/log", responses=problems(401, 403, 422, 503), summary="Who did what, when")
async def get_log(
    services: ServicesOf, after_id: AfterNumber = 0, limit: PageLimit = MAX_PAGE_ENTRIES
) -> wire.AdminLog:
    """List every act of the staff, over this API and from the command line, oldest first."""
    acts = await services.administration.read(lambda accounts: accounts.acts(after_id=after_id, limit=limit + 1))
    page = [wire.AdminAct.model_validate(act, from_attributes=True) for act in acts[:limit]]
    return wire.AdminLog(data=page, next_after_id=page[-1].id if len(acts) > limit else None)


@_makes("/accounts/{account}/keys", wire.NewKey, "Make an API key")
async def create_key(account: str, request: Request, context: AdminContextOf, services: ServicesOf) -> wire.IssuedKey:
    """Make an API key of an account that exists. Its secret is in this answer and in no other."""
    body = await read_json(request, wire.NewKey)
    key, secret = await services.administration.act(
        context,
        lambda accounts, request_id: accounts.create_key(
            accounts.find_account(account),
            scopes=frozenset(body.scopes),
            limit_units=body.limit_units,
            lifetime_seconds=lifetime_of(body.expires_days),
            name=body.name,
            request_id=request_id,
        ),
    )
    return wire.IssuedKey(key=_render_key(key), secret=secret, notice=_SHOWN_BEFORE if secret is None else _SHOWN_NOW)


@router.get("/accounts/{account}/keys", responses=_READ_ONE_STATUSES, summary="List an account's API keys")
async def list_keys(account: str, services: ServicesOf) -> wire.KeyList:
    """List the account's API keys, oldest first, with what is left of their own budgets."""
    keys, budgets = await services.administration.read(
        lambda accounts: (accounts.keys(owner := accounts.find_account(account).id), accounts.key_budgets(owner))
    )
    return wire.KeyList(data=[_render_listed(key, budgets.get(key.id)) for key in keys])


@router.post("/keys/{key}/revocation", responses=problems(401, 403, 404, 422, 503), summary="End an API key at once")
async def revoke_key(key: str, context: AdminContextOf, services: ServicesOf) -> wire.ApiKey:
    """End a key, named by its id or its prefix; the next request with it is refused, on every server.

    Revoking a key again changes nothing. A key may revoke itself.
    """
    revoked = await services.administration.act(
        context, lambda accounts, request_id: accounts.revoke_key(key, request_id=request_id)
    )
    return _render_key(revoked)


@_makes("/prices", wire.NewPrice, "Set a price", (401, 403, 413, 415, 422, 503))
async def set_price(request: Request, context: AdminContextOf, services: ServicesOf) -> wire.PriceVersion:
    """Set a price, in force at once; requests that were quoted the old one are refused, not billed."""
    body = await read_json(request, wire.NewPrice)
    price = await services.administration.act(
        context, lambda accounts, request_id: accounts.set_price(**body.model_dump(), request_id=request_id)
    )
    return _render_price(price)


@router.get("/prices", responses=_READ_STATUSES, summary="List prices")
async def list_prices(services: ServicesOf) -> wire.PriceVersionList:
    """List every version of every price, oldest first."""
    prices = await services.administration.read(lambda accounts: accounts.prices())
    return wire.PriceVersionList(data=[_render_price(price) for price in prices])


def _render_account(account: accounts.Account) -> wire.Account:
    known = {name: getattr(account, name) for name in ("id", "name", "currency", "created_at")}
    return wire.Account(**known, remaining_units=account.budget.remaining_units, **asdict(account.budget))


def _render_key(key: accounts.ApiKey) -> wire.ApiKey:
    return wire.ApiKey(**{**asdict(key), "scopes": sorted(key.scopes)})


def _render_listed(key: accounts.ApiKey, budget: accounts.Budget | None) -> wire.ListedKey:
    return wire.ListedKey(
        **_render_key(key).model_dump(),
        limit_units=budget and budget.limit_units,
        remaining_units=budget and budget.remaining_units,
    )


def _render_price(price: Price) -> wire.PriceVersion:
    fields = asdict(price)
    return wire.PriceVersion(price_id=fields.pop("id"), **fields)
