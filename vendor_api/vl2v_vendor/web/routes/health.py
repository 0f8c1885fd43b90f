"""For orchestrators: alive, ready, measured."""

from __future__ import annotations

import asyncio
import logging

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.observe.metrics import Metrics
from vl2v_vendor.service.services import ReadinessCheck
from vl2v_vendor.web.dependencies import PUBLIC, ServicesOf

router = APIRouter(tags=["health"], dependencies=[PUBLIC])

_CHECK_SECONDS = 5.0

_log = logging.getLogger(__name__)


@router.get("/healthz", summary="Liveness")
async def healthz() -> dict[str, str]:
    """The server answers."""
    return {"status": "ok"}


@router.get("/readyz", summary="Readiness", responses={503: {"description": "Not ready; names what is missing."}})
async def readyz(services: ServicesOf) -> Response:
    """The model is warm and the ledger can be written: traffic may be sent here."""
    states = await asyncio.gather(*(_state(name, check) for name, check in services.readiness.items()))
    checks = dict(zip(services.readiness, states, strict=True))
    is_ready = all(state == "ok" for state in checks.values())
    body = {"status": "ready" if is_ready else "not ready", "checks": checks}
    return JSONResponse(body, status_code=200 if is_ready else 503)


async def _state(name: str, check: ReadinessCheck) -> str:
    """`ok`, or what is wrong; an orchestrator is answered also when a check is not."""
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            await check()
    except VendorError as error:
        return str(error)
    except TimeoutError:
        return f"no answer within {_CHECK_SECONDS:g} seconds"
    except Exception:
        _log.exception("readiness check %s failed", name)
        return "failed"
    return "ok"


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, services: ServicesOf) -> Response:
    """Prometheus' text format."""
    metrics: Metrics = request.app.state.metrics
    await metrics.refresh_drift(services.ledger)
    return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)
