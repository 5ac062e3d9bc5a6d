"""Trace context into message headers, so that a trace can go on wherever the message is handled.

A program that does not use OpenTelemetry pays one dictionary look-up: nothing of it is imported here before the program has done so itself.
"""

from __future__ import annotations

import sys


def outgoing_headers() -> dict[str, str] | None:
    """The headers (`traceparent`, `tracestate`, `baggage`) that a message sent now carries; None where there is no trace and no baggage."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry import propagate

    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers or None
