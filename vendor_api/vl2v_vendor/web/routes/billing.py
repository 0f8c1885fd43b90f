"""The audit surface: every unit that was billed, with the signatures to check it offline."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from vl2v_contract.canonical import MAX_INTEGER
from vl2v_contract.wire.billing import Breakdown, PublicKeys, RequestRecord, Statement, Summary, Totals
from vl2v_vendor.domain.ports import GroupTotal
from vl2v_vendor.service import audit
from vl2v_vendor.service.audit import MAX_PAGE_ENTRIES
from vl2v_vendor.web.dependencies import PUBLIC, BillingCaller, ServicesOf
from vl2v_vendor.web.openapi import problems

router = APIRouter(prefix="/v1/billing", tags=["billing"])

AfterSeq = Annotated[int, Query(ge=0, le=MAX_INTEGER)]
PageLimit = Annotated[int, Query(ge=1, le=MAX_PAGE_ENTRIES)]

_PRIVATE = problems(401, 403, 503)


@router.get("/summary", responses=_PRIVATE, summary="The bill at a glance")
async def get_summary(caller: BillingCaller, services: ServicesOf) -> Summary:
    """Totals by day, model, endpoint and key, computed from the same rows as the statement."""
    return render_summary(await services.audit.summary(caller.account_id), caller.id)


@router.get("/statement", responses=problems(401, 403, 422, 503), summary="The ledger, page by page")
async def get_statement(
    caller: BillingCaller,
    services: ServicesOf,
    after_seq: AfterSeq = 0,
    limit: PageLimit = MAX_PAGE_ENTRIES,
) -> Statement:
    """Entries in order, each with its items, and the signed head of the chain."""
    statement = await services.audit.statement(caller.account_id, after_seq, limit)
    return Statement.model_validate(statement, from_attributes=True)


@router.get("/requests/{request_id}", responses=problems(401, 403, 404, 503), summary="One billed request")
async def get_request(request_id: str, caller: BillingCaller, services: ServicesOf) -> RequestRecord:
    """The receipt and items of a request, byte for byte as first given."""
    record = await services.audit.request(caller.account_id, request_id)
    return RequestRecord.model_validate(record, from_attributes=True)


@router.get("/keys", dependencies=[PUBLIC], responses=problems(503), summary="Public signing keys")
async def get_keys(services: ServicesOf) -> PublicKeys:
    """The keys that sign receipts and statement heads, oldest first."""
    return PublicKeys.model_validate(await services.audit.public_keys(), from_attributes=True)


def render_summary(summary: audit.Summary, api_key_id: str) -> Summary:
    """The bill at a glance, for the key that asks."""
    totals = summary.totals
    return Summary(
        ledger_id=summary.ledger_id,
        account_id=summary.account_id,
        api_key_id=api_key_id,
        currency=totals.currency,
        limit_units=totals.head.limit_units,
        used_units=totals.head.used_units,
        remaining_units=summary.remaining_units,
        total=Totals(units=totals.units, amount_micro=totals.amount_micro),
        by_day=_breakdowns(totals.by_day),
        by_model=_breakdowns(totals.by_model),
        by_endpoint=_breakdowns(totals.by_endpoint),
        by_key=_breakdowns(totals.by_key),
        head_seq=totals.head.seq,
        head_hash=totals.head.entry_hash,
    )


def _breakdowns(groups: tuple[GroupTotal, ...]) -> list[Breakdown]:
    return [Breakdown.model_validate(group, from_attributes=True) for group in groups]
