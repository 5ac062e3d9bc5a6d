"""What type checkers must infer of steps, workflows and waiting, and, on the lines that end in a comment `E…`, the mistakes that they must find.

Never run: `test_typing.py` shows it to the checkers.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from perdure.actors import (
    ActorRef,
    Client,
    Rate,
    Retry,
    Runtime,
    Step,
    StreamItem,
    WorkflowRef,
    cancel_timer,
    continue_as_new,
    current_actor,
    durable_actor,
    emit,
    on_event,
    on_timer,
    send_signal,
    set_timer,
    signal,
    step,
    step_info,
    wait_for_signal,
    wait_until,
    workflow,
)


@step(retry=Retry(max_attempts=5), timeout=timedelta(seconds=10), rate=Rate(10, per=timedelta(seconds=1)))
async def charge(order: str, cents: int) -> str:
    step_info().heartbeat(cents)
    step_info().heartbeat(1, 2)  # E1
    assert_type(step_info().attempt, int)
    assert_type(step_info().idempotency_key, str)
    assert_type(step_info().progress, Any)
    return order


@step
async def reserve(order: str) -> int:
    return len(order)


@step
def refund(payment: str, reason: str = "") -> None: ...


@step(executor="process")
def pack(lines: list[str]) -> bytes:
    return b""


step(executor="fork")  # E2
step(timeout=10)  # E3 times are timedeltas
step(tries=3)  # E4


@durable_actor
class Shipment:
    @workflow
    async def run(self, order: str, by: str = "") -> int:
        return 1


@durable_actor(version=1)
@dataclass
class Order:
    status: str = "new"
    approved = signal(str)
    paused = signal()

    @workflow
    async def run(self, cents: int) -> str:
        assert_type(await charge("o-42", cents), str)
        assert_type(await charge.options(timeout=timedelta(seconds=3))("o-42", cents), str)
        assert_type(await wait_for_signal(Order.approved, timeout=timedelta(days=3)), str)
        assert_type(await wait_for_signal(Order.paused), None)
        await wait_for_signal(Order.approved, timeout=3)  # E5
        await wait_for_signal("approved")  # E6 inside, by the signal itself
        await wait_until(lambda: self.status == "paid", timeout=timedelta(hours=1))
        await wait_until(self.status)  # E7
        shipment = await current_actor().start(Shipment.run, "s-1", "o-42", by="ada")
        assert_type(shipment, WorkflowRef[Shipment, int])
        assert_type(await shipment.result(), int)
        assert_type(await current_actor().ref(Shipment.run, "s-1").result(), int)
        await current_actor().start(Shipment.run, "s-1", 42)  # E8
        stock = current_actor().ref(Stock, "tea")
        assert_type(stock, ActorRef[Stock])
        both = await asyncio.gather(reserve("o-42"), stock.ask(Stock.take, 1))
        assert_type(both, tuple[int, bool])
        async with asyncio.TaskGroup() as tasks:
            reserving = tasks.create_task(reserve("o-42"))
        assert_type(reserving, asyncio.Task[int])
        assert_type(await asyncio.wait_for(pack(["tea"]), 3), bytes)
        emit("packed", {"lines": 1})
        emit({"lines": 1})  # E9
        return self.status

    @on_event
    def add_line(self, sku: str) -> int:
        return 1


@durable_actor
class Stock:
    @on_event
    async def take(self, n: int) -> bool:
        set_timer(Stock.count, every=timedelta(days=1), catch_up=True)
        set_timer(Stock.count, at=datetime(2030, 1, 1, tzinfo=UTC))
        set_timer(Stock.count, after=60)  # E10
        set_timer(Stock.take, after=timedelta(1))  # E11 an event is no timer's handler
        set_timer(Stock.fill, after=timedelta(1))  # E12 it takes arguments, and a timer gives none
        cancel_timer(Stock.count)
        cancel_timer(Stock.take)  # E13
        return True

    @on_timer
    async def count(self) -> None: ...

    @on_timer
    def fill(self, n: int) -> None: ...


@durable_actor
class Poller:
    @workflow
    async def run(self, after: int) -> str:
        continue_as_new(after + 1)

    @workflow  # E14
    def twice(self) -> None: ...


anything_that_counts: Step[..., int] = reserve
reserve(3)  # E15
charge("o-42")  # E16
charge.options(at_once=3)  # E17 of all its callers: where it is defined


async def main(runtime: Runtime, client: Client) -> None:
    assert_type(await reserve("x"), int)
    assert_type(await refund("x", reason="y"), None)
    assert_type(refund.function("x"), Any)
    refund.function(3)  # E26
    order = await runtime.start(Order.run, "o-42", 4200)
    assert_type(order, WorkflowRef[Order, str])
    assert_type(await client.start(Order.run, "o-42", cents=4200), WorkflowRef[Order, str])
    await runtime.start(Order.run, "o-42", "4200")  # E18
    await runtime.start(Order.run, "o-42")  # E19
    await runtime.start(Order.add_line, "o-42", "tea")  # E20 an event is no workflow
    await runtime.start(reserve, "o-42", "tea")  # E21 nor is a step
    assert_type(await runtime.options(if_exists="fail").start(Order.run, "o-42", cents=3), WorkflowRef[Order, str])
    runtime.options(if_exists="replace")  # E22
    assert_type(runtime.ref(Order.run, "o-42"), WorkflowRef[Order, str])
    assert_type(client.ref(Order.run, "o-42"), WorkflowRef[Order, str])
    assert_type(await order.result(), str)
    assert_type(await order.options(timeout=timedelta(seconds=3)).result(), str)
    await runtime.ref(Order, "o-42").result()  # E23 an actor has no result, its workflow has
    await order.ask(Order.run, 3)  # E24 a workflow is started, not asked
    assert_type(await order.ask(Order.add_line, "sku"), int)
    await send_signal(order, Order.approved, "ada")
    await order.ask(Stock.take, 1)  # E25
    async for item in order.stream(after=3):
        assert_type(item, StreamItem)
    both = await asyncio.gather(order.result(), runtime.ref(Order, "o-43").ask(Order.add_line, "sku"))
    assert_type(both, tuple[str, int])
