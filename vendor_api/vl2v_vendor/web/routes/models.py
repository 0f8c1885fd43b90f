"""What is on sale, for how much, and what its inputs look like."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter

from vl2v_contract.wire.embeddings import Limits, ModelCard, ModelList, Price
from vl2v_vendor.service.services import Services
from vl2v_vendor.web.answers import ANSWER_FORMS
from vl2v_vendor.web.bodies import UPLOAD_FORMS
from vl2v_vendor.web.dependencies import PUBLIC, ServicesOf
from vl2v_vendor.web.openapi import problems

router = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[PUBLIC], responses=problems(404, 503))


@router.get("", summary="List models")
async def list_models(services: ServicesOf) -> ModelList:
    """All models on sale; the first is the default."""
    return ModelList(data=[await _card(services)])


@router.get("/{model_id:path}", summary="Describe a model")
async def get_model(model_id: str, services: ServicesOf) -> ModelCard:
    """One model, by its id."""
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
