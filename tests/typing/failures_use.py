"""What type checkers must infer of children, sagas and cancelling, and, on the lines that end in a comment `E…`, the mistakes that they must find.

Never run: `test_typing.py` shows it to the checkers.
"""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, assert_type

from perdure.actors import (
    ActorFailed,
    ActorId,
    Backoff,
    ChildExit,
    ChildInfo,
    Compensated,
    CompensationFailed,
    OneForAll,
    OneForOne,
    RestForOne,
    Runtime,
    Saga,
    StepFailed,
    UnknownOutcome,
    WorkflowRef,
    current_actor,
    durable_actor,
    on_child_exit,
    on_event,
    saga,
    spawn,
    step,
    step_info,
    workflow,
)


@step
def refund(payment: str, reason: str = "") -> None:
    undone = step_info().compensates
    assert_type(undone, Compensated | None)
    if undone is not None:
        assert_type(undone.idempotency_key, str)
        if not isinstance(undone.outcome, UnknownOutcome):
            assert_type(undone.outcome, Any)


@step
async def release(order: str) -> bool:
    return True


@step
async def release_by_number(number: int) -> None: ...


@step(compensate=release)
async def reserve(order: str) -> int:
    return 1


@step(compensate=release_by_number)  # E1 it gets the same arguments
async def reserve_wrongly(order: str) -> int:
    return 1


step(compensate=len)  # E2 no step


@durable_actor
class Shipment:
    @workflow
    async def run(self, order: str, by: str = "") -> int:
        return 1

    @on_event
    def track(self) -> str:
        return "on its way"


@durable_actor(
    supervise=OneForOne(
        max_restarts=3,
        within=timedelta(minutes=1),
        backoff=Backoff(initial=timedelta(seconds=1)),
        directives={ValueError: "restart", OSError: "escalate"},
        otherwise="stop",
    ),
    cancel_grace=timedelta(seconds=5),
    on_poison="quarantine",
)
class Order:
    @workflow
    async def run(self, cents: int) -> str:
        async with saga() as undo:
            assert_type(undo, Saga)
            assert_type(await reserve("o-42"), int)
            undo.push(refund, "p-1")
            undo.push(refund, "p-1", reason="late")
            undo.push(release, "o-42")
            undo.push(refund, 3)  # E3
            undo.push(refund)  # E4
            undo.push(refund, "p-1", colour="red")  # E5
            undo.push(print, "p-1")  # E6 no step
        with saga():  # E7 it is entered by `async with`
            pass
        child = spawn(Shipment.run, None, "o-42", by="ada")
        assert_type(child, WorkflowRef[Shipment, int])
        assert_type(await child.result(), int)
        assert_type(await child.ask(Shipment.track), str)
        abandoned = spawn.options(on_parent_close="abandon")(Shipment.run, "s-1", "o-42")
        assert_type(abandoned, WorkflowRef[Shipment, int])
        spawn(Shipment.run, "s-1", 42)  # E8
        spawn(Shipment.run, "s-1")  # E9
        spawn(Shipment.run, 1, "o-42")  # E10 a key is a text
        spawn(Shipment.track, None)  # E11 an event is no workflow
        spawn(reserve, None, "o-42")  # E12 nor is a step
        spawn.options(on_parent_close="leave")  # E13
        spawn.options(on_parent_close="terminate")(Shipment.run, None, "o-42", by=3)  # E14
        both = await asyncio.gather(child.result(), reserve("o-42"))
        assert_type(both, tuple[int, int])
        assert_type(child.cancel("late"), Awaitable[None])
        await child.terminate()
        child.cancel(3)  # E15
        return current_actor().key

    @on_child_exit
    def gone(self, exit: ChildExit) -> None:
        assert_type(exit.id, ActorId)


durable_actor(supervise="one_for_one")  # E16
durable_actor(on_poison="drop")  # E17
durable_actor(cancel_grace=5)  # E18
OneForAll(3, timedelta(minutes=1), directives={ValueError: "ignore"})  # E19
RestForOne(max_restarts=3, within=60)  # E20
OneForOne(3, timedelta(minutes=1), backoff=1.5)  # E21


class Childless:
    @on_child_exit  # E22 it is told which child
    def gone(self) -> None: ...


class Counting:
    @on_child_exit  # E23 it is told more than a number
    def gone(self, number: int) -> None: ...


async def main(runtime: Runtime) -> None:
    order = await runtime.start(Order.run, "o-42", 4200)
    assert_type(await order.cancel("why"), None)
    assert_type(await order.terminate("why"), None)
    assert_type((await order.info()).children, tuple[ChildInfo, ...])
    assert_type((await order.info()).parent, ActorId | None)
    try:
        assert_type(await order.result(), str)
    except ActorFailed as error:
        assert_type(error.compensation_errors, tuple[StepFailed, ...])
    except CompensationFailed as error:
        assert_type(error.errors, tuple[StepFailed, ...])
