"""The application: routes, middleware and error handling around the services."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from prometheus_client.registry import Collector

from vl2v_vendor.observe.metrics import Metrics
from vl2v_vendor.observe.tracing import Tracing
from vl2v_vendor.service.services import Services
from vl2v_vendor.web.client_watch import ClientWatch
from vl2v_vendor.web.connections import ConnectionLimits
from vl2v_vendor.web.forwarded_share import ForwardedShare
from vl2v_vendor.web.live_series import ConnectionState, EngineState
from vl2v_vendor.web.middleware import BodyLimit, OverloadGate
from vl2v_vendor.web.openapi import add_openapi
from vl2v_vendor.web.problems import add_error_handlers
from vl2v_vendor.web.request_context import RequestContext
from vl2v_vendor.web.routes import admin, admin_keys, billing, embeddings, health, models, openai

ROUTERS: Final = (
    embeddings.router,
    openai.router,
    models.router,
    billing.router,
    admin.router,
    admin_keys.router,
    health.router,
)


def create_app(
    services: Services,
    *,
    version: str = "0",
    tracing: Tracing | None = None,
    connections: ConnectionLimits | None = None,
) -> FastAPI:
    """Build the application. The caller starts and closes the services.

    Args:
        services: Use cases, ready to serve.
        version: Version that is shown in the OpenAPI document and the metrics.
        tracing: Destination of each request's trace, if any.
        connections: Limits of the server's connections, for the metrics and the clients of trusted proxies.
    """
    app = FastAPI(
        title="VL2V vendor",
        version=version,
        summary="CLIP embeddings, sold per query.",
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,  # such a redirect quotes the Host header, which is the caller's
    )
    app.state.services = services
    live: list[Collector] = [EngineState(services.lanes, services.encoder)]
    if connections is not None:
        live.append(ConnectionState(connections))
    app.state.metrics = Metrics(services.encoder.info, version=version, live=live)
    services.lanes.observe_batches(app.state.metrics.observe_batch)
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
    if connections is not None and connections.trusted_proxies:
        app.add_middleware(ForwardedShare, limits=connections)
    app.add_middleware(RequestContext, metrics=app.state.metrics, tracing=tracing)
    return app
