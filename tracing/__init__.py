"""Traces, metrics and logs by OpenTelemetry's API: what a program sees of its actors, with any SDK, and with none.

`Tracing` says how a runtime traces, `keep_spans` keeps spans on this machine, `SpanStore` reads them, `serve_metrics` shows figures to
Prometheus; the rest is for the actors' host. What makes spans is loaded only where an SDK listens.
"""

import typing

from . import _names as names
from ._context import Headers, admitted, began_at, context_of, enter, headers_of, outgoing_headers, surroundings_of, trace_id_of
from ._pending import PendingSpans
from ._settings import LINK_AFTER, Capture, Tracing

if typing.TYPE_CHECKING:
    from ._metrics import Instruments, Labels
    from ._prometheus import MetricsServer, MetricsUnavailable, serve_metrics
    from ._query import KeptSpan, SpanStore, Trace
    from ._spanrow import SpanRow
    from ._spans import AmbientSpan, Draft, Sending, Spans, linked, message_draft
    from ._spanstore import LocalSpanExporter, LocalSpanProcessor, SpanStoreStatistics, keep_spans

__all__ = [
    "LINK_AFTER",
    "AmbientSpan",
    "Capture",
    "Draft",
    "Headers",
    "Instruments",
    "KeptSpan",
    "Labels",
    "LocalSpanExporter",
    "LocalSpanProcessor",
    "MetricsServer",
    "MetricsUnavailable",
    "PendingSpans",
    "Sending",
    "SpanRow",
    "SpanStore",
    "SpanStoreStatistics",
    "Spans",
    "Trace",
    "Tracing",
    "admitted",
    "began_at",
    "context_of",
    "enter",
    "headers_of",
    "keep_spans",
    "linked",
    "message_draft",
    "names",
    "outgoing_headers",
    "serve_metrics",
    "surroundings_of",
    "trace_id_of",
]

_LAZY: typing.Final = {
    **dict.fromkeys(("AmbientSpan", "Draft", "Sending", "Spans", "linked", "message_draft"), "_spans"),
    **dict.fromkeys(("LocalSpanExporter", "LocalSpanProcessor", "SpanStoreStatistics", "keep_spans"), "_spanstore"),
    **dict.fromkeys(("KeptSpan", "SpanStore", "Trace"), "_query"),
    "SpanRow": "_spanrow",
    **dict.fromkeys(("Instruments", "Labels"), "_metrics"),
    **dict.fromkeys(("MetricsServer", "MetricsUnavailable", "serve_metrics"), "_prometheus"),
}


def __getattr__(name: str) -> object:
    """What makes spans is loaded when it is first asked for: it needs OpenTelemetry, which a program may not use."""
    from importlib import import_module

    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
