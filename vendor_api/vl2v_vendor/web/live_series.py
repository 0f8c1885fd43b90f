"""The state of connections, queue and model as Prometheus series, read when they are scraped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from vl2v_vendor.domain.encoder import Encoder
from vl2v_vendor.engine.queue.lanes import EncodingLanes
from vl2v_vendor.web.connection_slots import Cause
from vl2v_vendor.web.connections import ConnectionLimits


class ConnectionState(Collector):
    """How many connections are open, and why others are not."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits

    def collect(self) -> Iterator[Metric]:
        """The series as of now."""
        yield GaugeMetricFamily("vl2v_connections", "Connections that are open.", value=self._limits.open)
        yield GaugeMetricFamily(
            "vl2v_connections_limit", "Connections that may be open.", value=self._limits.max_connections
        )
        ended = CounterMetricFamily(
            "vl2v_connections_ended", "Connections that were refused, or closed by the vendor.", labels=["cause"]
        )
        for cause in get_args(Cause):
            ended.add_metric([cause], self._limits.counts[cause])
        yield ended


class EngineState(Collector):
    """What waits for the model, and how the model is."""

    def __init__(self, lanes: EncodingLanes, encoder: Encoder) -> None:
        self._lanes = lanes
        self._encoder = encoder

    def collect(self) -> Iterator[Metric]:
        """Read the series as of now."""
        items = GaugeMetricFamily("vl2v_queue_depth", "Items that wait for the model.", labels=["lane"])
        for lane, waiting in self._lanes.queued_items.items():
            items.add_metric([lane], waiting)
        yield items
        sizes = GaugeMetricFamily("vl2v_queue_bytes", "Bytes of the items that wait for the model.", labels=["lane"])
        for lane, waiting in self._lanes.queued_bytes.items():
            sizes.add_metric([lane], waiting)
        yield sizes
        yield GaugeMetricFamily(
            "vl2v_model_ready", "Whether the model is loaded, warm and alive.", value=float(self._encoder.ready)
        )
        yield CounterMetricFamily(
            "vl2v_model_restarts",
            "How often the model process was replaced.",
            value=self._encoder.restarts,
        )
