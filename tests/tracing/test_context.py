"""The caller's trace travels with the message; without a trace nothing does."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from perdure.actors import current_actor, durable_actor, on_event, query
from perdure.actors._coroutines import current_turn
from perdure.actors.testing import World
from perdure.tracing import outgoing_headers, trace_id_of

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

    @on_event
    def lose(self) -> None:
        raise LookupError("lost")

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


@pytest.mark.parametrize(
    "traceparent", ["", "00", "00-abc-0000000000000def-01", f"00-{'0' * 32}-0000000000000def-01", f"00-{'x' * 32}-1-01"]
)
def test_headers_without_a_trace_name_none(traceparent: str) -> None:
    assert (trace_id_of(None), trace_id_of({"traceparent": traceparent})) == (None, None)


async def test_a_dead_letter_names_its_trace() -> None:
    async with World([Relay]) as world:
        with trace.use_span(SPAN):
            await world.ref(Relay, "start").send_event(Relay.lose)
        await world.run_until_idle()

        assert [letter.trace_id for letter in await world.dead_letters()] == ["00000000000000000000000000000abc"]
