"""The caller's trace travels with the message; without a trace nothing does."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from perdure.actors import current_actor, durable_actor, on_event, query
from perdure.actors._coroutines import current_turn
from perdure.actors.testing import World
from perdure.tracing import outgoing_headers

pytestmark = pytest.mark.anyio

SPAN = NonRecordingSpan(SpanContext(trace_id=0xABC, span_id=0xDEF, is_remote=False, trace_flags=TraceFlags(1)))
TRACEPARENT = "00-00000000000000000000000000000abc-0000000000000def-01"


@durable_actor
class Relay:
    """Remembers the headers that it was reached with, and passes a message on."""

    headers: dict[str, str] | None = None

    @on_event
    def take(self, hops: int) -> None:
        turn = current_turn("take")
        self.headers = turn.headers
        if hops:
            current_actor().ref(Relay, f"{hops}").send_event(Relay.take, hops - 1)

    @query
    def reached_with(self) -> dict[str, str] | None:
        return self.headers


def test_there_are_no_headers_without_a_trace() -> None:
    assert outgoing_headers() is None


async def test_a_message_and_what_follows_from_it_carry_the_trace() -> None:
    async with World([Relay]) as world:
        with trace.use_span(SPAN):
            await world.ref(Relay, "start").ask(Relay.take, 2)
        await world.settled()

        assert await world.ref(Relay, "1").query(Relay.reached_with) == {"traceparent": TRACEPARENT}
