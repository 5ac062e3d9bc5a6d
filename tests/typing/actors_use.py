"""What type checkers must infer from a user's program, and, on the lines that end in a comment `E…`, the mistakes that they must find.

Never run: `test_typing.py` shows it to the checkers.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import assert_type

from perdure.actors import (
    ActorRef,
    Retry,
    Runtime,
    Transient,
    Waits,
    durable_actor,
    on_activate,
    on_event,
    on_signal,
    query,
    send_signal,
    signal,
)


class Pool:
    def fetch(self, sku: str) -> int:
        return len(sku)


@durable_actor
class Shipment:
    @on_event
    async def dispatch(self, order: str, by: str = "") -> int:
        return 1


@durable_actor(version=2, codec="msgspec", retry=Retry(max_attempts=5), dedupe_for=timedelta(hours=1))
@dataclass
class Order:
    status: str = "new"
    lines: list[str] = field(default_factory=list)
    pool: Transient[Pool] = field(init=False)
    approved = signal(str)
    paused = signal()
    note: Waits[str | None] = signal(str | None)

    @on_activate
    def connect(self) -> None:
        self.pool = Pool()

    @on_event
    async def add_line(self, sku: str, n: int = 1) -> int:
        assert_type(self.pool.fetch(sku), int)
        return n

    @on_event
    def add_sync(self, sku: str) -> int:
        self.lines.append(sku)
        return len(self.lines)

    @on_event
    def close(self) -> None:
        self.add_sync("last")
        self.status = self.progress()

    @on_signal
    def hurry(self, why: str) -> None: ...

    @query
    def progress(self) -> str:
        return self.status


@durable_actor
class Rush(Order):
    @on_event
    def faster(self) -> None: ...


assert_type(Order.approved, Waits[str])
assert_type(Order.paused, Waits[None])
Order().add_sync(3)  # E1 a plain call is checked as well
assert_type(Order().progress(), str)
assert_type(Order, type[Order])
signal(3)  # E2
durable_actor(version="1")  # E3
durable_actor(pickle=True)  # E4


@on_event  # E5
def no_self() -> None: ...


class Wrong:
    @on_signal  # E6
    def answers(self) -> int:
        return 1


async def main(runtime: Runtime) -> None:
    order = runtime.ref(Order, "o-42")
    assert_type(order, ActorRef[Order])
    runtime.ref(Order)  # E10
    assert_type(await order.ask(Order.add_line, "sku"), int)
    assert_type(await order.ask(Order.add_line, "sku", n=3), int)
    assert_type(await order.ask(Order.add_sync, "sku"), int)
    assert_type(await order.ask(Order.close), None)
    assert_type(await order.options(idempotency_key="k").ask(Order.add_sync, "sku"), int)
    await order.ask("add_line", "sku", n=3)
    await order.ask(Order.add_line, 5)  # E11
    await order.ask(Order.add_line)  # E12
    await order.ask(Order.add_line, "sku", colour="red")  # E13
    await order.ask(Shipment.dispatch, "x")  # E14 of another type
    await order.ask(Order.progress)  # E15 a query is no event
    await order.send_event(Order.add_line, "sku")
    await order.send_event(Order.add_line, 5)  # E16
    await order.options(timeout=5).ask(Order.close)  # E17 times are timedeltas
    assert_type(await order.query(Order.progress), str)
    await order.query(Order.add_sync, "x")  # E18 an event is no query
    await send_signal(order, Order.hurry, "now")
    await send_signal(order, Order.hurry, 3)  # E19
    await send_signal(order, Order.approved, "ada")
    await send_signal(order, Order.approved, 3)  # E20
    await send_signal(order, Order.approved)  # E21
    await send_signal(order, Order.paused)
    await send_signal(order, Order.note, None)
    await send_signal(order, Order.note, "ada")
    await send_signal(order, Order.note, 3)  # E22
    await send_signal(order, "approved", "ada")
    await send_signal(order.options(idempotency_key="k"), Order.hurry, "now")
    await send_signal(order, Order.add_line, "x")  # E23 an event is no signal
    assert_type(await order.redrive(1, 2), int)
    assert_type(await order.drop_dead_letters(), int)
    await order.edit_dead_letter("1")  # E26 a letter has a number
    rush = runtime.ref(Rush, "r")
    assert_type(await rush.ask(Order.add_sync, "x"), int)  # inherited, named by the base
    assert_type(await rush.ask(Rush.add_sync, "x"), int)
    await order.ask(Rush.faster)  # E24 the base has it not
    both = await asyncio.gather(order.ask(Order.add_line, "x"), rush.query(Order.progress))
    assert_type(both, tuple[int, str])
