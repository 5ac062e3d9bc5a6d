"""Trace context in the headers of messages and records: `traceparent`, `tracestate` and `baggage`, as the W3C writes them.

It is in this form whatever propagator the program uses elsewhere, since it stays in stores and outlives the program. A program that does
not use OpenTelemetry pays one dictionary look-up: nothing of it is imported here before the program has done so itself.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext

Headers: TypeAlias = dict[str, str]

# W3C Trace Context, 3.2: version-trace_id-parent_id-flags; a later version may have more behind them.
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_BEGAN: Final = "perdure-began"  # beside the W3C's, and only between actors: nobody else's is let in
_PASSED_ON: Final = ("baggage", _BEGAN)
# Characters. Of `baggage` the W3C asks for so many (3.3.2), and OpenTelemetry takes no more; of `tracestate` 32 members fit, as most are.
_LONGEST: Final = {"traceparent": 256, "tracestate": 4_096, "baggage": 8_192}


def outgoing_headers() -> Headers | None:
    """What a message sent now carries: the trace and the baggage that the caller is in; None where there is neither."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry import baggage, trace
    from opentelemetry.context import get_current

    if not get_current():  # as of most callers
        return None
    found = trace.get_current_span().get_span_context()
    headers = headers_of(found)
    if baggage.get_all():
        _inject_baggage(headers)
    return headers or None


def _inject_baggage(headers: Headers) -> None:
    """Add the baggage that the caller has; none of it where it is nothing that can travel, which is no reason to send nothing at all."""
    from opentelemetry.baggage.propagation import W3CBaggagePropagator

    injected: Headers = {}
    try:
        W3CBaggagePropagator().inject(injected)
    except Exception:  # noqa: BLE001  it calls `str` of whatever the user has put in
        return
    headers.update(admitted(injected) or {})


def admitted(headers: Headers | None) -> Headers | None:
    """Of headers from outside those that are the trace's; nothing too long to be passed on with all that follows from a message."""
    if headers is None:
        return None
    return {name: headers[name] for name, most in _LONGEST.items() if name in headers and _may_travel(headers[name], most)} or None


def _may_travel(header: str, most: int) -> bool:
    return len(header) <= most and header.isascii()


def headers_of(context: SpanContext, others: Mapping[str, str] | None = None, began: float | None = None) -> Headers:
    """The headers of what a span has caused; the baggage is that of the `others`, which it was caused by itself.

    `began` is when its trace began, in seconds since the epoch, if the `others` do not say so.
    """
    headers: Headers = {}
    if context.is_valid:
        headers["traceparent"] = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xFF:02x}"
        if context.trace_state:
            headers["tracestate"] = context.trace_state.to_header()
    if began is not None:
        headers[_BEGAN] = repr(began)
    if others is not None:
        headers.update((name, others[name]) for name in _PASSED_ON if name in others and name not in headers)
    return headers


def began_at(headers: Mapping[str, str] | None, otherwise: float) -> float:
    """When the trace of the headers began for actors, in seconds since the epoch; one that they have not passed on yet begins now."""
    return otherwise if headers is None or _BEGAN not in headers else float(headers[_BEGAN])


def context_of(headers: Mapping[str, str] | None) -> SpanContext | None:
    """The span that a message or a record was caused by; None if its headers name none."""
    if headers is None or (found := _TRACEPARENT.fullmatch(headers.get("traceparent", ""))) is None:
        return None
    from opentelemetry.trace import SpanContext, TraceFlags, TraceState

    state = headers.get("tracestate")
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    return SpanContext(trace_id, span_id, True, TraceFlags(flags), None if state is None else TraceState.from_header([state]))


def surroundings_of(headers: Mapping[str, str] | None) -> Context:
    """The baggage of a message or a record, for code that runs on its behalf."""
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.context import Context

    return Context() if headers is None or "baggage" not in headers else W3CBaggagePropagator().extract(headers, Context())


def trace_id_of(headers: Mapping[str, str] | None) -> str | None:
    """The trace that a message belongs to, as 32 hexadecimal digits; None if its headers name none."""
    found = _TRACEPARENT.fullmatch((headers or {}).get("traceparent", ""))
    return None if found is None else found[1]


def enter(headers: Mapping[str, str]) -> None:
    """Let the code that runs in this process from now on be part of a trace, and have its baggage."""
    from opentelemetry.context import attach
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    context, found = surroundings_of(headers), context_of(headers)
    attach(context if found is None else set_span_in_context(NonRecordingSpan(found), context))
