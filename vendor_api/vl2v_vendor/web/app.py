"""The application: routes, middleware, error handling and live metrics around the services."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, get_args

from fastapi import FastAPI
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from vl2v_vendor.observe.telemetry import Metrics, Tracing
from vl2v_vendor.service.services import Services
from vl2v_vendor.web.body_limit import BodyLimit
from vl2v_vendor.web.connections import Cause, ConnectionLimits
from vl2v_vendor.web.declarations import add_openapi
from vl2v_vendor.web.middleware import ClientWatch, ForwardedShare, HostGate, OverloadGate
from vl2v_vendor.web.pages.sessions import Sessions
from vl2v_vendor.web.problems import add_error_handlers
from vl2v_vendor.web.request_context import RequestContext
from vl2v_vendor.web.routes import (
    admin,
    bill_pages,
    billing,
    embeddings,
    key_pages,
    login_pages,
    openai,
    public,
    reference_page,
)

ROUTERS: Final = (embeddings.router, openai.router, billing.router, admin.router, public.router)
PAGES: Final = (login_pages.router, bill_pages.router, key_pages.router, reference_page.router)
"""Routes for people, which are not part of the API."""


def create_app(
    services: Services,
    *,
    version: str = "0",
    tracing: Tracing | None = None,
    connections: ConnectionLimits | None = None,
    allowed_hosts: Collection[str] = (),
    metrics_token: str | None = None,
) -> FastAPI:
    """Build the application. The caller starts and closes the services.

    Args:
        services: All that it serves with.
        version: Version of the distribution.
        tracing: Where traces go, if anywhere.
        connections: Limits of the listener that it is served on.
        allowed_hosts: The only hosts that it answers for; for any, if there are none.
        metrics_token: Bearer token that `/metrics` asks for; None for none.
    """
    app = FastAPI(
        title="VL2V vendor",
        version=version,
        summary="CLIP embeddings, sold per query.",
        openapi_url=None,  # FastAPI writes the whole document again for each request
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # such a redirect quotes the Host header, which is the caller's
    )
    app.state.services = services
    app.state.metrics = Metrics(services.encoder.info, version=version, live=[LiveSeries(services, connections)])
    app.state.metrics_token = metrics_token
    services.lanes.observe_batches(app.state.metrics.observe_batch)
    app.state.sessions = Sessions(services.page_secret, services.authenticator.clock)
    for router in (*ROUTERS, *PAGES):
        app.include_router(router)
    add_error_handlers(app)
    add_openapi(app)
    app.add_middleware(
        OverloadGate, lanes=services.lanes, modality_of={embeddings.IMAGES_PATH: "image", embeddings.TEXTS_PATH: "text"}
    )
    if allowed_hosts:
        app.add_middleware(HostGate, allowed_hosts=allowed_hosts)
    app.add_middleware(BodyLimit, max_request_bytes=services.limits.max_request_bytes)
    app.add_middleware(ClientWatch)
    if connections is not None and connections.trusted_proxies:
        app.add_middleware(ForwardedShare, limits=connections)
    app.add_middleware(RequestContext, metrics=app.state.metrics, tracing=tracing)
    return app


@dataclass(eq=False)
class LiveSeries(Collector):
    """The state of queue, model and connections, read when it is scraped."""

    services: Services
    connections: ConnectionLimits | None

    def collect(self) -> Iterator[Metric]:
        """Read the series as of now."""
        lanes, model, connections = self.services.lanes, self.services.encoder, self.connections
        for name, what, by_lane in (
            ("vl2v_queue_depth", "Items that wait for the model.", lanes.queued_items),
            ("vl2v_queue_bytes", "Bytes of the items that wait for the model.", lanes.queued_bytes),
        ):
            series = GaugeMetricFamily(name, what, labels=["lane"])
            for lane, waiting in by_lane.items():
                series.add_metric([lane], waiting)
            yield series
        yield GaugeMetricFamily("vl2v_model_ready", "Whether the model is loaded, warm and alive.", float(model.ready))
        yield CounterMetricFamily("vl2v_model_restarts", "How often the model process was replaced.", model.restarts)
        if connections is None:
            return
        yield GaugeMetricFamily("vl2v_connections", "Connections that are open.", connections.open)
        yield GaugeMetricFamily("vl2v_connections_limit", "Connections that may be open.", connections.max_connections)
        ended = CounterMetricFamily(
            "vl2v_connections_ended", "Connections that were refused, or closed by the vendor.", labels=["cause"]
        )
        for cause in get_args(Cause):
            ended.add_metric([cause], connections.counts[cause])
        yield ended
