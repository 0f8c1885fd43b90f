"""The state of queue and model as Prometheus series, read when they are scraped."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from vl2v_vendor.domain.encoder import Encoder
from vl2v_vendor.service.lanes import EncodingLanes


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
