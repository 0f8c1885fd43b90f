"""The application: routes, middleware and error handling around the services."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI

from vl2v_vendor.service.services import Services
from vl2v_vendor.web.client_watch import ClientWatch
from vl2v_vendor.web.errors import add_error_handlers
from vl2v_vendor.web.metrics import Metrics
from vl2v_vendor.web.middleware import BodyLimit
from vl2v_vendor.web.openapi import add_openapi
from vl2v_vendor.web.overload_gate import OverloadGate
from vl2v_vendor.web.request_context import RequestContext
from vl2v_vendor.web.routes import admin, admin_keys, billing, embeddings, health, models, openai
from vl2v_vendor.web.tracing import Tracing

ROUTERS: Final = (
    embeddings.router,
    openai.router,
    models.router,
    billing.router,
    admin.router,
    admin_keys.router,
    health.router,
)


def create_app(services: Services, *, version: str = "0", tracing: Tracing | None = None) -> FastAPI:
    """Build the application. The caller starts and closes the services.

    Args:
        services: Use cases, ready to serve.
        version: Version that is shown in the OpenAPI document and the metrics.
        tracing: Destination of each request's trace, if any.
    """
    app = FastAPI(
        title="VL2V vendor",
        version=version,
        summary="CLIP embeddings, sold per query.",
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.services = services
    app.state.metrics = Metrics(services, version=version)
    for router in ROUTERS:
        app.include_router(router)
    add_error_handlers(app)
    add_openapi(app)
    app.add_middleware(
        OverloadGate,
        lanes=services.lanes,
        modality_of={embeddings.IMAGES_PATH: "image", embeddings.TEXTS_PATH: "text"},
    )
    app.add_middleware(BodyLimit, max_request_bytes=services.limits.max_request_bytes)
    app.add_middleware(ClientWatch)
    app.add_middleware(RequestContext, metrics=app.state.metrics, tracing=tracing)
    return app
