"""What both checkers must make of the test kit; each line that ends in an E and a number holds a mistake."""

from datetime import timedelta
from typing import assert_type

from perdure.actors import WorkflowRef, durable_actor, step, workflow
from perdure.actors.testing import CrashPoint, World, survives_crashes


@step
async def charge(order: str, cents: int) -> str:
    return f"{order} {cents}"


@step
def label(order: str) -> bytes:
    return order.encode()


@durable_actor
class Order:
    @workflow
    async def run(self, cents: int) -> str:
        return await charge("o", cents)


async def paid(order: str, cents: int) -> str:
    return "paid"


def paid_at_once(order: str, cents: int) -> str:
    return "paid"


async def for_free(order: str) -> str:
    return "free"


@survives_crashes
async def test_an_order(world: World) -> None:
    world.replace(charge, paid)
    world.replace(charge, paid_at_once)
    world.replace(label, lambda order: b"label")
    world.replace(charge, for_free)  # E1
    world.replace(paid, paid)  # E2
    order = await world.start(Order.run, "o", 1)
    assert_type(order, WorkflowRef[Order, str])
    assert_type(world.calls(charge), int)
    world.calls(paid)  # E3
    world.crash_at(CrashPoint.AFTER_COMMIT, nth=2)
    await world.advance(timedelta(days=1))
    await world.advance(1)  # E4


@survives_crashes(seeds=5)
async def test_another(durable_world: World, key: str) -> None: ...


async def main() -> None:
    await test_another(World(), "a")
    await test_another(World())  # E5
