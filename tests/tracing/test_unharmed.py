"""Telemetry that fails, and messages that lie about it, harm neither the host nor what is durable."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn, final

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach
from opentelemetry.metrics import Histogram, MeterProvider, NoOpMeter
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from perdure.actors import current_actor, durable_actor, on_event, query, step, workflow
from perdure.actors._envelope import TOKEN, Envelope, Kind
from perdure.actors._ids import ActorId, MessageId
from perdure.actors._intake import _opened
from perdure.actors._records import ARRIVAL_ROW, ArrivalRow
from perdure.actors._ref import Request
from perdure.actors.testing import World
from perdure.storage import Offer
from perdure.tracing import Tracing, admitted, context_of, names, surroundings_of

from .conftest import Listener

pytestmark = pytest.mark.anyio

CALLER = NonRecordingSpan(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1)))
TRACEPARENT = f"00-{'1' * 32}-{'2' * 16}-01"


class Broken(Exception):
    """What the user's telemetry raises."""


@final
class BrokenSampler(Sampler):
    def should_sample(self, *_: Any, **__: Any) -> NoReturn:
        raise Broken

    def get_description(self) -> str:
        return "broken"


@final
class BrokenAtBeginnings(SpanProcessor):
    def on_start(self, span: Span, parent_context: Any = None) -> None:
        raise Broken


@final
class BrokenAtEnds(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        raise Broken


@final
class BrokenHistogram(Histogram):
    def __init__(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def record(self, *_: Any, **__: Any) -> NoReturn:
        raise Broken


@final
class BrokenAtValues(NoOpMeter):
    def create_histogram(self, *_: Any, **__: Any) -> Histogram:
        return BrokenHistogram()


@final
class BrokenAtInstruments(NoOpMeter):
    def create_histogram(self, *_: Any, **__: Any) -> NoReturn:
        raise Broken


@final
class Provider(MeterProvider):
    def __init__(self, meter: NoOpMeter) -> None:
        self.meter = meter

    def get_meter(self, *_: Any, **__: Any) -> NoOpMeter:
        return self.meter


@step
async def charge() -> str:
    return "paid"


@durable_actor
class Order:
    def __init__(self) -> None:
        self.lines: list[str] = []

    @workflow
    async def run(self) -> str:
        return await charge()

    @on_event
    def tell(self, sku: str) -> None:
        current_actor().ref(Order, "o-2").send_event(Order.add, sku)

    @on_event
    def add(self, sku: str) -> None:
        self.lines.append(sku)

    @query
    def all(self) -> list[str]:
        return self.lines


async def assert_works(listener: Listener, **options: Any) -> None:
    async with World([Order], tracing=listener.tracing(**options)) as world:
        with trace.use_span(CALLER):
            await world.ref(Order, "o-1").ask(Order.tell, "sku")
            order = await world.start(Order.run, "o-3")

        assert await order.result() == "paid"
        await world.settled()
        assert await world.ref(Order, "o-2").query(Order.all) == ["sku"]


async def test_a_sampler_that_fails_costs_spans_alone(caplog: pytest.LogCaptureFixture) -> None:
    await assert_works(Listener(BrokenSampler()))

    assert [record.name for record in caplog.records] == ["perdure.tracing"]


@pytest.mark.parametrize("broken", [BrokenAtBeginnings, BrokenAtEnds])
async def test_a_processor_that_fails_costs_spans_alone(broken: type[SpanProcessor], listener: Listener) -> None:
    listener.provider.add_span_processor(broken())

    await assert_works(listener)


@pytest.mark.parametrize("meter", [BrokenAtValues("broken"), BrokenAtInstruments("broken")])
async def test_a_meter_that_fails_costs_figures_alone(meter: NoOpMeter, caplog: pytest.LogCaptureFixture) -> None:
    async with World([Order], tracing=Tracing(meter_provider=Provider(meter))) as world:
        await world.ref(Order, "o-1").ask(Order.add, "sku")
        await world.restart()

        assert await world.ref(Order, "o-1").query(Order.all) == ["sku"]

    assert {record.name for record in caplog.records} == {"perdure.tracing"}


async def test_a_hook_that_fails_costs_the_payload_alone(listener: Listener) -> None:
    def redacted(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
        raise Broken

    await assert_works(listener, capture_payloads=redacted)

    assert names.PAYLOAD not in listener.attributes("handle Order.tell")


async def test_of_more_than_its_processors_keep_up_with_spans_are_dropped(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.actors._telemetry.MOST", 0)

    await assert_works(listener)

    assert not [span for span in listener.spans if span.name.startswith("handle")]


async def test_baggage_that_cannot_travel_keeps_no_message_from_being_sent(listener: Listener) -> None:
    token = attach(baggage.set_baggage("\ud800", "\ud800"))

    try:
        await assert_works(listener)
    finally:
        detach(token)


async def test_the_baggage_of_whoever_starts_a_host_is_not_its_actors(listener: Listener) -> None:
    @durable_actor
    class Looker:
        @on_event
        async def look(self) -> object:
            await asyncio.sleep(0.001)
            return baggage.get_baggage("tenant")

    token = attach(baggage.set_baggage("tenant", "acme"))
    async with World([Looker], tracing=listener.tracing()) as world:
        detach(token)

        found = [await world.ref(Looker, key).ask(Looker.look) for key in ("l-1", "l-2")]

    assert found == [None, None]


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": TRACEPARENT, "tracestate": "a=b," * 1_000, "baggage": "a=b," * 2_000},
        {"traceparent": TRACEPARENT, "tracestate": ",".join(f"k{number}=v" for number in range(100)), "baggage": "%ff=%00,=,==;;,\n"},
        {"traceparent": f"{TRACEPARENT}-{'x' * 100}", "tracestate": f"k={' ' * 4_000}=", "baggage": f"a={'%' * 8_000}"},
        {"traceparent": "\n", "tracestate": "\0", "baggage": "\x7f"},
    ],
)
def test_headers_that_are_none_are_none(headers: dict[str, str]) -> None:
    context, _ = context_of(admitted(headers)), surroundings_of(admitted(headers))

    assert context is None or (context.is_valid and len(context.trace_state) <= 32)


def test_of_headers_from_outside_only_the_traces_go_on() -> None:
    given = {"traceparent": TRACEPARENT, "tracestate": "a" * 5_000, "baggage": "a=" + "b" * 10_000, "x": "y" * 10_000}

    assert (admitted(given), admitted({"x": "y"}), admitted(None)) == ({"traceparent": TRACEPARENT}, None, None)


def test_a_client_has_no_headers_stored_that_are_no_traces() -> None:
    envelope = Envelope(MessageId(bytes(TOKEN)), Kind.EVENT, "add", b"", headers={"traceparent": TRACEPARENT, "x": "y" * 10_000})

    _, opened, _ = _opened(Offer(1, ARRIVAL_ROW.pack(ArrivalRow("Order", "o-1", envelope))))

    assert opened.headers == {"traceparent": TRACEPARENT}


async def test_the_name_of_a_handler_that_is_none_names_no_span(listener: Listener) -> None:
    async with World([Order], tracing=listener.tracing()) as world:
        await world.send(Request(ActorId("Order", "o-1"), Kind.EVENT, "anything", b""))
        await world.settled()

    assert {told.name for told in listener.told} == {f"handle Order.{names.UNKNOWN}"}
