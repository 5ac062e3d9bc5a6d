"""OpenTelemetry, by its API only: how traces cross messages."""

from ._context import outgoing_headers, trace_id_of

__all__ = ["outgoing_headers", "trace_id_of"]
