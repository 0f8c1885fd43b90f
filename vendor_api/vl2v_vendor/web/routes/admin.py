"""The staff's API: accounts with their top-ups, refunds and bills, API keys, prices, and the log of who did what.

`{account}` is an account's id, or its name if that has no slash and is no other account's id.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response

from vl2v_contract.identity import MAX_INTEGER
from vl2v_contract.records import Receipt, Statement, Summary
from vl2v_contract.wire import headers
from vl2v_contract.wire.admin import (
    Account,
    AccountList,
    AdminAct,
    AdminLog,
    ApiKey,
    IssuedKey,
    KeyList,
    ListedKey,
    NewAccount,
    NewKey,
    NewPrice,
    NewRefund,
    NewTopUp,
    PriceVersion,
    PriceVersionList,
)
from vl2v_vendor.domain import accounts
from vl2v_vendor.domain.ledger import Price
from vl2v_vendor.service.administration import MAX_PAGE_ACTS, ActResult, AdminContext
from vl2v_vendor.service.audit import MAX_PAGE_ENTRIES
from vl2v_vendor.web.bodies import read_json
from vl2v_vendor.web.dependencies import ADMIN, AdminCaller, ServicesOf
from vl2v_vendor.web.openapi import json_body, problems
from vl2v_vendor.web.routes.billing import AfterSeq, PageLimit
from vl2v_vendor.web.routes.embeddings import IdempotencyKey

PREFIX = "/v1/admin"
READ_STATUSES = problems(401, 403, 503)
READ_ONE_STATUSES = problems(401, 403, 404, 422, 503)
ACT_STATUSES = problems(401, 403, 404, 413, 415, 422, 503)

_T = TypeVar("_T")

router = APIRouter(prefix=PREFIX, tags=["admin"], dependencies=[ADMIN])


async def admin_context(caller: AdminCaller, idempotency_key: IdempotencyKey = None) -> AdminContext:
    """The caller's act under the name that the request gives it."""
    return AdminContext(caller, idempotency_key)


AdminContextOf = Annotated[AdminContext, Depends(admin_context)]


def result_of(done: ActResult[_T], response: Response) -> _T:
    """Return the result of an act; a header says if nothing was done, because it had been done before."""
    if done.replayed:
        response.headers[headers.IDEMPOTENT_REPLAYED] = "true"
    return done.result


@router.post(
    "/accounts",
    status_code=201,
    responses=ACT_STATUSES,
    openapi_extra=json_body(NewAccount),
    summary="Open an account",
)
async def create_account(
    request: Request, response: Response, context: AdminContextOf, services: ServicesOf
) -> Account:
    """A new account; its budget is its first top-up. Repeated under its `Idempotency-Key`: as it was made."""
    body = await read_json(request, NewAccount)
    done = await services.administration.create_account(context, body.name, body.budget_units, body.currency)
    return _render_account(result_of(done, response))


@router.get("/accounts", responses=READ_STATUSES, summary="List accounts")
async def list_accounts(services: ServicesOf) -> AccountList:
    """All accounts by name, with their budgets now."""
    return AccountList(data=[_render_account(account) for account in await services.administration.accounts()])


@router.get("/accounts/{account}", responses=READ_ONE_STATUSES, summary="Describe an account")
async def get_account(account: str, services: ServicesOf) -> Account:
    """One account, with its budget now."""
    return _render_account(await services.administration.account(account))


@router.post(
    "/accounts/{account}/topups",
    status_code=201,
    responses=ACT_STATUSES,
    openapi_extra=json_body(NewTopUp),
    summary="Raise an account's budget",
)
async def top_up(
    account: str, request: Request, response: Response, context: AdminContextOf, services: ServicesOf
) -> Receipt:
    """A new ledger entry, answered with its receipt; every server admits by the new budget at once."""
    body = await read_json(request, NewTopUp)
    done = await services.administration.top_up(context, account, body.units, body.note)
    return result_of(done, response)


@router.post(
    "/accounts/{account}/refunds",
    status_code=201,
    responses=ACT_STATUSES,
    openapi_extra=json_body(NewRefund),
    summary="Give queries of a charge back",
)
async def refund(
    account: str, request: Request, response: Response, context: AdminContextOf, services: ServicesOf
) -> Receipt:
    """A new ledger entry, answered with its receipt; the items stay paid and can still be replayed."""
    body = await read_json(request, NewRefund)
    done = await services.administration.refund(context, account, body.seq, body.units, body.note)
    return result_of(done, response)


@router.get("/accounts/{account}/summary", responses=READ_ONE_STATUSES, summary="An account's bill at a glance")
async def get_summary(account: str, request: Request, services: ServicesOf) -> Summary:
    """What the account's own keys see at `/v1/billing/summary`."""
    found = await services.administration.account(account)
    return await services.audit.summary(found.id, request.state.api_key_id)


@router.get("/accounts/{account}/statement", responses=READ_ONE_STATUSES, summary="An account's ledger, page by page")
async def get_statement(
    account: str, services: ServicesOf, after_seq: AfterSeq = 0, limit: PageLimit = MAX_PAGE_ENTRIES
) -> Statement:
    """What the account's own keys see at `/v1/billing/statement`."""
    found = await services.administration.account(account)
    return await services.audit.statement(found.id, after_seq, limit)


@router.get("/log", responses=problems(401, 403, 422, 503), summary="Who did what, when")
async def get_log(
    services: ServicesOf,
    after_id: Annotated[int, Query(ge=0, le=MAX_INTEGER)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_ACTS)] = MAX_PAGE_ACTS,
) -> AdminLog:
    """Every act of the staff, over this API and from the command line, oldest first."""
    page = await services.administration.log(after_id, limit)
    acts = [AdminAct.model_validate(act, from_attributes=True) for act in page.acts]
    return AdminLog(data=acts, next_after_id=page.next_after_id)


def _render_account(account: accounts.Account) -> Account:
    budget = account.budget
    return Account(
        id=account.id,
        name=account.name,
        currency=account.currency,
        created_at=account.created_at,
        limit_units=budget.limit_units,
        used_units=budget.used_units,
        remaining_units=budget.remaining_units,
    )


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
