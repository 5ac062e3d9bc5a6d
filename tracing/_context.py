"""Trace context into message headers, so that a trace can go on wherever the message is handled.

A program that does not use OpenTelemetry pays one dictionary look-up: nothing of it is imported here before the program has done so itself.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

_TRACE_ID_DIGITS: Final = 32  # W3C Trace Context: version-trace_id-parent_id-flags, in hexadecimal


def outgoing_headers() -> dict[str, str] | None:
    """The headers (`traceparent`, `tracestate`, `baggage`) that a message sent now carries; None where there is no trace and no baggage."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry import propagate

    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers or None


def trace_id_of(headers: Mapping[str, str] | None) -> str | None:
    """The trace that a message belongs to, as 32 hexadecimal digits; None if its headers name none."""
    parts = (headers or {}).get("traceparent", "").split("-")
    trace_id = parts[1].lower() if len(parts) >= 4 else ""
    is_one = len(trace_id) == _TRACE_ID_DIGITS and set(trace_id) <= set("0123456789abcdef") and set(trace_id) != {"0"}
    return trace_id if is_one else None
