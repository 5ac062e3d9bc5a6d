"""A shop whose hosts tell of an order by OTLP, a program of its own: `python orders.py STORE [--request]`.

With `--request` it takes the order as a web server would, from within a span of the request's. The first attempt to charge never ends: its
host waits to be killed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from opentelemetry import baggage, context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from perdure.actors import (
    ActorRef,
    Retry,
    Runtime,
    StepFailed,
    current_actor,
    durable_actor,
    on_event,
    saga,
    send_signal,
    signal,
    spawn,
    step,
    step_info,
    wait_for_signal,
    workflow,
)

KEY: Final = "o-1"
CLOSED: Final = "closed"  # the last span of a host that ends by itself
CUSTOMER: Final = "ada"


@step(name="return_courier")
async def return_courier(order: str) -> None:
    """Is how a courier is undone."""


@step(name="book_courier", compensate=return_courier)
async def book_courier(order: str) -> str:
    return f"a courier for {order}"


@step(name="insure", retry=Retry(max_attempts=1))
async def insure(order: str) -> None:
    raise LookupError(f"nobody insures {order}")


@step(name="charge")
async def charge(order: str, cents: int) -> int:
    trace.get_current_span().set_attribute("customer", str(baggage.get_baggage("customer")))
    print(f"charging {order}, attempt {step_info().attempt}", flush=True)
    if step_info().attempt == 1:
        await asyncio.Event().wait()
    return cents


@step(name="pack")
async def pack(order: str) -> str:
    return f"a parcel for {order}"


@durable_actor
class Desk:
    """Approves whatever is laid before it."""

    @on_event
    def review(self, order: ActorRef[Order]) -> None:
        send_signal(order, Order.approved, "bob")


@durable_actor
class Shipment:
    @workflow
    async def run(self, order: str) -> str:
        return await pack(order)


@durable_actor
class Order:
    approved = signal(str)

    @workflow
    async def run(self, cents: int) -> str:
        me = current_actor()
        with suppress(StepFailed):
            async with saga():
                await book_courier(me.key)
                await insure(me.key)
        paid = await charge(me.key, cents)
        me.ref(Desk, "desk").send_event(Desk.review, me.ref(Order, me.key))
        by = await wait_for_signal(Order.approved)
        await asyncio.sleep(0.05)
        return f"{await spawn(Shipment.run, None, me.key).result()}, paid {paid}, approved by {by}"


@contextmanager
def telling() -> Iterator[None]:
    """Export the program's spans to where `OTEL_EXPORTER_OTLP_ENDPOINT` says, every `OTEL_BSP_SCHEDULE_DELAY` milliseconds."""
    provider = TracerProvider(resource=Resource.create({"service.name": "orders"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        trace.get_tracer("shop").start_span(CLOSED).end()
        provider.shutdown()


async def request(runtime: Runtime) -> None:
    """Take the order, as a web server would."""
    context.attach(baggage.set_baggage("customer", CUSTOMER))
    with trace.get_tracer("shop").start_as_current_span("POST /orders", kind=trace.SpanKind.SERVER):
        await runtime.start(Order.run, KEY, 4200)


async def main(store: str, *, is_request: bool) -> None:
    async with Runtime(f"lmdb:{store}", actors=[Order, Shipment, Desk]) as runtime:
        if is_request:
            await request(runtime)
        print(await runtime.ref(Order.run, KEY).result(), flush=True)


if __name__ == "__main__":
    with telling():
        asyncio.run(main(sys.argv[1], is_request="--request" in sys.argv))
