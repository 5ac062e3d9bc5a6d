"""Metrics for Prometheus: a page of this process that it scrapes.

It shows what the program's meter provider has read, the actors' figures among it; where the program has none, it is given one. The provider
stays when the page is closed: OpenTelemetry takes only one in a process.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self, final

from ..storage import PerdureError

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

PORT = 9464  # of OpenTelemetry's exporters for Prometheus


@final
class MetricsUnavailable(PerdureError):
    """There is no page for Prometheus to scrape."""

    __module__ = "perdure.tracing"

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)

    def __str__(self) -> str:
        what, remedy = self.args
        return f"{what}. {remedy}"


@final
class MetricsServer:
    """The page, until it is closed."""

    __module__ = "perdure.tracing"

    def __init__(self, server: WSGIServer, thread: threading.Thread, host: str) -> None:
        self._server = server
        self._thread = thread
        self._host = host

    def __repr__(self) -> str:
        return f"<MetricsServer at {self.url}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the page is."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Serve no more. Closing twice is fine."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def serve_metrics(port: int = PORT, host: str = "127.0.0.1") -> MetricsServer:
    """Let Prometheus scrape this process, in a thread of its own; port 0 takes one that is free. Call it before a runtime begins.

    Raises MetricsUnavailable without the extra `prometheus`, where Prometheus cannot read the program's meter provider, and if the port is
    taken.
    """
    try:
        from prometheus_client import REGISTRY, start_http_server

        _provide(REGISTRY)
    except ModuleNotFoundError as missing:
        raise MetricsUnavailable(f"{missing.name} is missing", 'Serving metrics is an extra: pip install "perdure[prometheus]"') from None
    try:
        server, thread = start_http_server(port, addr=host, registry=REGISTRY)
    except OSError as error:
        taken = f"metrics cannot be served at port {port} of {host}: {error.strerror}"
        raise MetricsUnavailable(taken, "Choose another port: serve_metrics(port=9465)") from error
    return MetricsServer(server, thread, host)


def _provide(registry: object) -> None:
    """See to it that what is measured gets into the registry."""
    from opentelemetry import metrics
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.metrics._internal import _ProxyMeterProvider
    from opentelemetry.sdk.metrics import MeterProvider

    if isinstance(metrics.get_meter_provider(), _ProxyMeterProvider):
        metrics.set_meter_provider(MeterProvider(metric_readers=[PrometheusMetricReader()]))
        return
    collectors = getattr(registry, "_collector_to_names", None)
    readers = [each for each in collectors or () if type(each).__module__ == PrometheusMetricReader.__module__]
    if collectors is not None and not readers:
        raise MetricsUnavailable(
            "the program has set a meter provider that Prometheus cannot read",
            "Give it a reader: MeterProvider(metric_readers=[PrometheusMetricReader(), …]), or call serve_metrics() instead of setting one",
        )
