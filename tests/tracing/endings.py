"""Spans that have ended, with times and ids of the tests' own making."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, Final, final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

RESOURCE: Final = Resource({"service.name": "shop", "service.instance.id": "a"})


def context(trace_id: int, span_id: int, *, sampled: bool = True) -> SpanContext:
    """The ids of a span."""
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(int(sampled)))


@final
class MakeSpan:
    """Makes spans, of Order/o-1 and trace 1 if nothing else is said; times in seconds."""

    def __init__(self) -> None:
        self._numbers = count(10_000)

    def __call__(
        self,
        name: str,
        start: float = 0,
        end: float = 0,
        *,
        trace_id: int = 1,
        span_id: int | None = None,
        parent: int | None = None,
        actor: tuple[str, str] | None = ("Order", "o-1"),
        attributes: Mapping[str, Any] | None = None,
        links: tuple[int, ...] = (),
        events: tuple[Event, ...] = (),
        sampled: bool = True,
        failed: bool = False,
    ) -> ReadableSpan:
        """A span that has ended."""
        given = {} if actor is None else {"perdure.actor.type": actor[0], "perdure.actor.key": actor[1]}
        return ReadableSpan(
            name,
            context(trace_id, span_id or next(self._numbers), sampled=sampled),
            None if parent is None else context(trace_id, parent),
            RESOURCE,
            {**given, **(attributes or {})},
            events=events,
            links=[Link(context(each, 1)) for each in links],
            kind=SpanKind.CONSUMER,
            status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
            start_time=round(start * 1e9),
            end_time=round(end * 1e9),
        )
