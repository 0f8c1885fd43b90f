"""The bill for people: what is left, what was spent, the statement, and the signed documents to download."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import TypeAdapter

from vl2v_contract.identity import MAX_INTEGER
from vl2v_contract.records import Breakdown, RequestRecord, Statement
from vl2v_contract.wire.headers import JSON
from vl2v_vendor.domain.errors import InvalidRequest, UnknownModel
from vl2v_vendor.domain.ledger import Price
from vl2v_vendor.service.bill_views import BillViews, StatementView
from vl2v_vendor.service.customer_keys import CustomerKeys, ListedKey
from vl2v_vendor.service.services import Services
from vl2v_vendor.web.declarations import ServicesOf
from vl2v_vendor.web.pages.rendering import PageRoute, show, show_refusal
from vl2v_vendor.web.pages.sessions import Session, SessionOf

_NEWEST_SHOWN: Final = 5
_GROUPS_SHOWN: Final = 20
_JSON_LINES: Final = "application/jsonl"
_HOST: Final = re.compile(r"[\w.-]{1,253}(:\d{1,5})?|\[[0-9a-fA-F:.]{2,45}\](:\d{1,5})?", re.ASCII)

_RECORD: Final = TypeAdapter(RequestRecord)
_STATEMENT: Final = TypeAdapter(Statement)

_Number = Annotated[int | None, Query(ge=0, le=MAX_INTEGER)]
_Words = Annotated[str, Query(max_length=100)]

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/")
async def get_overview(request: Request, session: SessionOf, services: ServicesOf) -> Response:
    """Show what is left and what the last days cost."""
    account_id = session.key.account_id
    views = _views_of(services)
    recent, newest, keys, prices = await asyncio.gather(
        views.recent(account_id),
        views.before(account_id, None, limit=_NEWEST_SHOWN),
        _keys_of(session, services),
        _prices(services),
    )
    totals, names = recent.totals, key_labels(keys)
    return show(
        "overview.html",
        session=session,
        totals=totals,
        days=recent.days,
        models=_largest(totals.by_model),
        keys=_largest([Breakdown(one.units, one.amount_micro, names.get(one.name, one.name)) for one in totals.by_key]),
        view=newest,
        names=names,
        prices=prices,
        vendor_url=_address(request),
    )


@router.get("/statement")
async def get_statement(
    request: Request,
    session: SessionOf,
    services: ServicesOf,
    search: _Words = "",
    before: _Number = None,
    after: _Number = None,
) -> Response:
    """Show entries of the ledger: the newest, those beside a number, or from the one that is looked for on."""
    account_id, views = session.key.account_id, _views_of(services)
    keys = await _keys_of(session, services)
    facts: dict[str, Any] = {"session": session, "names": key_labels(keys), "search": search}
    try:
        view = await _view(views, account_id, search, before, after)
    except InvalidRequest as error:
        return show_refusal(request, error, "statement.html", view=StatementView(()), **facts)
    return show("statement.html", problem=None, view=view, **facts)


@router.get("/statement.jsonl")
async def download_statement(session: SessionOf, services: ServicesOf) -> Response:
    """Send the whole statement, each line a page of it as `/v1/billing/statement` answers."""
    account_id = session.key.account_id
    first = await services.audit.statement(account_id)

    async def lines() -> AsyncIterator[bytes]:
        page = first
        while True:
            yield _STATEMENT.dump_json(page) + b"\n"
            if page.next_after_seq is None:
                return
            page = await services.audit.statement(account_id, page.next_after_seq)

    return StreamingResponse(lines(), media_type=_JSON_LINES, headers=_as_file(f"statement-{account_id}.jsonl"))


@router.get("/receipts/{request_id:path}")
async def download_receipt(request_id: str, session: SessionOf, services: ServicesOf) -> Response:
    """Send the receipt and items of an entry, as `/v1/billing/requests/{request_id}` answers."""
    record = await services.audit.request(session.key.account_id, request_id)
    name = f"receipt-{record.receipt.entry.seq}.json"
    return Response(_RECORD.dump_json(record), media_type=JSON, headers=_as_file(name))


def key_labels(keys: Sequence[ListedKey]) -> dict[str, str]:
    """Return what people call each key, by its id: its name, or else the beginning of its secret."""
    return {one.key.id: one.key.name or f"{one.key.prefix}..." for one in keys}


async def _view(views: BillViews, account_id: str, search: str, before: int | None, after: int | None) -> StatementView:
    if search.strip():
        return await views.find(account_id, search)
    if after is not None:
        return await views.after(account_id, after)
    return await views.before(account_id, before)


def _views_of(services: Services) -> BillViews:
    return BillViews(services.ledger, services.authenticator.clock)


async def _keys_of(session: Session, services: Services) -> Sequence[ListedKey]:
    return await CustomerKeys(services.administration).keys(session.key)


async def _prices(services: Services) -> list[Price]:
    """Return the prices in force of the model on sale."""
    model_id = services.encoder.info.id
    try:
        return [await services.ledger.price(model_id, modality) for modality in ("image", "text")]
    except UnknownModel:
        return []


def _largest(groups: Sequence[Breakdown]) -> list[Breakdown]:
    """Return the groups that cost the most, and the others added up."""
    ordered = sorted(groups, key=lambda one: (-one.amount_micro, -one.units, one.name))
    shown, others = ordered[:_GROUPS_SHOWN], ordered[_GROUPS_SHOWN:]
    if others:
        sums = sum(one.units for one in others), sum(one.amount_micro for one in others)
        shown.append(Breakdown(*sums, f"{len(others)} others"))
    return shown


def _address(request: Request) -> str:
    """Return this vendor's address as the browser has it, for a command to copy."""
    host = request.headers.get("host", "")
    return f"{request.url.scheme}://{host}" if _HOST.fullmatch(host) else "https://..."


def _as_file(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}
