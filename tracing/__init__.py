"""OpenTelemetry, by its API only: how traces cross messages."""

from ._context import outgoing_headers

__all__ = ["outgoing_headers"]
