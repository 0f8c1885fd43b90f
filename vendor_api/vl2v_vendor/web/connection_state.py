"""The open connections as Prometheus series, read when they are scraped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

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
