"""What anybody may ask: what is on sale, for how much, and whether the server is alive and ready; its metrics."""

import asyncio
import hmac
import logging
from dataclasses import asdict

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from vl2v_contract.wire.embeddings import Limits, ModelCard, ModelList, Price
from vl2v_vendor.domain.errors import UnknownKey, VendorError
from vl2v_vendor.observe.telemetry import Metrics
from vl2v_vendor.service.services import ReadinessCheck, Services
from vl2v_vendor.web.bodies import UPLOAD_FORMS
from vl2v_vendor.web.declarations import PUBLIC, ServicesOf, problems
from vl2v_vendor.web.routes.embeddings import ANSWER_FORMS

_CHECK_SECONDS = 5.0
_CARD_STATUSES = problems(404, 503)

_log = logging.getLogger(__name__)

router = APIRouter(dependencies=[PUBLIC])


@router.get("/v1/models", tags=["models"], responses=_CARD_STATUSES, summary="List models")
async def list_models(services: ServicesOf) -> ModelList:
    """List all models on sale; the first is the default."""
    return ModelList(data=[await _card(services)])


@router.get("/v1/models/{model_id:path}", tags=["models"], responses=_CARD_STATUSES, summary="Describe a model")
async def get_model(model_id: str, services: ServicesOf) -> ModelCard:
    """Describe one model, by its id."""
    services.seller.check_model(model_id)
    return await _card(services)


async def _card(services: Services) -> ModelCard:
    info = services.encoder.info
    prices = [await services.ledger.price(info.id, modality) for modality in ("image", "text")]
    return ModelCard(
        **{name: value for name, value in asdict(info).items() if name in ModelCard.model_fields},
        ledger_id=services.ledger.ledger_id,
        prices=[
            Price(
                price_id=price.id,
                modality=price.modality,
                unit_price_micro=price.unit_price_micro,
                currency=price.currency,
                valid_from=price.valid_from,
            )
            for price in prices
        ],
        limits=Limits(**asdict(services.limits)),
        image_uploads=UPLOAD_FORMS,
        answers=ANSWER_FORMS,
    )


@router.get("/healthz", tags=["health"], summary="Liveness")
async def healthz() -> dict[str, str]:
    """Answer, which says that the server is alive."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    tags=["health"],
    summary="Readiness",
    responses={503: {"description": "Not ready; names what is missing."}},
)
async def readyz(services: ServicesOf) -> Response:
    """Tell whether the model is warm and the ledger can be written, so that traffic may be sent here."""
    states = await asyncio.gather(*(_state(name, check) for name, check in services.readiness.items()))
    status, code = ("ready", 200) if set(states) <= {"ok"} else ("not ready", 503)
    checks = dict(zip(services.readiness, states, strict=True))
    return JSONResponse({"status": status, "checks": checks}, status_code=code)


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
    tags=["health"],
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, services: ServicesOf) -> Response:
    """Render the series in Prometheus' text format.

    Raises:
        UnknownKey: The operator has set a token, and the request does not bear it.
    """
    metrics: Metrics = request.app.state.metrics
    token, sent = request.app.state.metrics_token, request.headers.get("authorization", "")
    if token is not None and not hmac.compare_digest(f"Bearer {token}".encode(), sent.encode()):
        raise UnknownKey("send `Authorization: Bearer` and the `metrics_token` of this vendor's settings")
    await metrics.refresh_drift(services.ledger)
    return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)
