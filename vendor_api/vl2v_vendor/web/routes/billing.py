"""The audit surface: every unit that was billed, with the signatures to check it offline."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import TypeAdapter

from vl2v_contract.records import PublicKeys, RequestRecord, SignedStatement, Statement, Summary
from vl2v_contract.wire.headers import JSON
from vl2v_vendor.service.audit import MAX_PAGE_ENTRIES
from vl2v_vendor.web.declarations import PUBLIC, AfterNumber, BillingCaller, PageLimit, ServicesOf, problems

router = APIRouter(prefix="/v1/billing", tags=["billing"])

_STATEMENT, _SIGNED_STATEMENT = TypeAdapter(Statement), TypeAdapter(SignedStatement)
"""Written here, in a thread: of two kinds of answers the framework takes twice as long, and a page is large."""


@router.get("/summary", responses=problems(401, 403, 503), summary="The bill at a glance")
async def get_summary(caller: BillingCaller, services: ServicesOf) -> Summary:
    """Add up by day, model, endpoint and key, computed from the same rows as the statement."""
    return await services.audit.summary(caller.account_id, caller.id)


@router.get(
    "/statement",
    response_model=SignedStatement | Statement,
    responses=problems(401, 403, 422, 503),
    summary="The ledger, page by page",
)
async def get_statement(
    caller: BillingCaller,
    services: ServicesOf,
    after_seq: AfterNumber = 0,
    limit: PageLimit = MAX_PAGE_ENTRIES,
    signed: Annotated[bool, Query(description="Show the signatures that the entries were committed with.")] = False,
) -> Response:
    """List entries in order, each with its items, and the signed head of the chain."""
    if signed:
        page = await services.audit.signed_statement(caller.account_id, after_seq, limit)
        body = await asyncio.to_thread(_SIGNED_STATEMENT.dump_json, page)
    else:
        plain = await services.audit.statement(caller.account_id, after_seq, limit)
        body = await asyncio.to_thread(_STATEMENT.dump_json, plain)
    return Response(body, media_type=JSON)


@router.get("/requests/{request_id:path}", responses=problems(401, 403, 404, 503), summary="One billed request")
async def get_request(request_id: str, caller: BillingCaller, services: ServicesOf) -> RequestRecord:
    """Show the receipt and items of a request, byte for byte as first given."""
    return await services.audit.request(caller.account_id, request_id)


@router.get("/keys", dependencies=[PUBLIC], responses=problems(503), summary="Public signing keys")
async def get_keys(services: ServicesOf) -> PublicKeys:
    """List the keys that sign receipts and statement heads, oldest first."""
    return await services.audit.public_keys()
