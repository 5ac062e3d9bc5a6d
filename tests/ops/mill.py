"""A mill: actors that wait for all that can be waited for, for the tests of explanations."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from perdure.actors import (
    Backoff,
    OneForOne,
    Retry,
    Runtime,
    WorkflowRef,
    durable_actor,
    on_event,
    on_timer,
    send_signal,
    set_timer,
    signal,
    spawn,
    step,
    step_info,
    wait_for_signal,
    wait_until,
    workflow,
)

MONTH = timedelta(days=30)  # so that no slow test sees another time


@step(name="mill.grind", retry=Retry(max_attempts=5, initial=MONTH, maximum=MONTH))
async def grind(what: str) -> str:
    """Say how far it has come, and fail."""
    step_info().heartbeat({"ground": 7})
    raise OSError(f"the stone is stuck in the {what}")


@step(name="mill.dry")
async def dry() -> None:
    """Take for ever."""
    await asyncio.Event().wait()


@durable_actor(keep_history=50)
class Sack:
    """Does whatever it is told to wait for."""

    approved = signal(str)

    def __init__(self) -> None:
        self.full = False

    @workflow
    async def run(self, what: str) -> str:
        """Wait."""
        if what == "signal":
            await wait_for_signal(Sack.approved)
        elif what == "timed signal":
            await wait_for_signal(Sack.approved, timeout=MONTH)
        elif what == "step":
            await grind("rye")
        elif what == "long step":
            await dry()
        elif what == "timer":
            await asyncio.sleep(60 * 86400)
        elif what == "condition":
            await wait_until(lambda: self.full)
        elif what == "primitive":
            await asyncio.Event().wait()
        elif what == "failure":
            raise ValueError("the sack is torn")
        return what

    @on_event
    async def hold(self) -> None:
        """Let other events wait."""
        await wait_for_signal(Sack.approved)

    @on_event
    def weigh(self) -> None:
        """Have some weight."""

    @on_event
    def remind(self) -> None:
        """Set a timer."""
        set_timer(Sack.reminded, after=MONTH)

    @on_timer
    def reminded(self) -> None:
        """Hear of it."""


@durable_actor(retry=Retry(max_attempts=5, initial=MONTH, maximum=MONTH))
class Scale:
    """Fails at its events, now or for good."""

    @on_event
    def weigh(self) -> None:
        """Fail, and be tried again."""
        raise RuntimeError("the scale is bent")


@durable_actor(supervise=OneForOne(backoff=Backoff(initial=MONTH, maximum=MONTH)))
class Foreman:
    """Has a torn sack filled anew after a month."""

    @workflow
    async def run(self) -> None:
        """Wait for it."""
        await spawn(Sack.run, "torn-again", "failure").result()


@durable_actor(retry=Retry(max_attempts=1))
class Sieve:
    """Puts its events aside."""

    @on_event
    def shake(self) -> None:
        """Fail for good."""
        raise RuntimeError("the sieve has a hole")


@durable_actor(retry=Retry(max_attempts=1), on_poison="quarantine")
class Wheel:
    """Stands still at what it cannot do."""

    @on_event
    def turn(self) -> None:
        """Fail for good."""
        raise RuntimeError("the wheel is broken")


@durable_actor(supervise=OneForOne())
class Miller:
    """Waits for a sack, which waits for something; or for another miller."""

    @workflow
    async def run(self, what: str) -> str:
        """Wait for one's child."""
        return await spawn(Sack.run, "s-of-" + what.replace(" ", "-"), what).result()


@durable_actor
class Gossip:
    """Waits for another one, as soon as that is there."""

    go = signal()

    @workflow
    async def run(self, other: WorkflowRef[Gossip, None] | None) -> None:
        """Wait for what the other one comes to, with a way out."""
        await wait_for_signal(Gossip.go)
        if other is not None:
            async with asyncio.timeout(60 * 86400):
                await other.result()


@durable_actor(retention=MONTH)
class Receipt:
    """Is forgotten after a month."""

    @workflow
    async def run(self) -> None:
        """Be done."""


ACTORS = [Foreman, Receipt, Sack, Scale, Sieve, Wheel, Miller, Gossip]


async def mill(url: str) -> None:
    """Leave one of everything."""
    async with Runtime(url, ACTORS) as runtime:
        for what in ("signal", "timed signal", "step", "timer", "condition", "primitive", "failure", "nothing"):
            await runtime.start(Sack.run, what.replace(" ", "-"), what)
        holding = runtime.ref(Sack, "holding")
        for event in (Sack.hold, Sack.weigh, Sack.weigh):
            await holding.send_event(event)
        await runtime.ref(Sack, "idle").ask(Sack.remind)
        await runtime.ref(Scale, "bent").send_event(Scale.weigh)
        await runtime.ref(Sieve, "torn").send_event(Sieve.shake)
        await runtime.ref(Wheel, "w-1").send_event(Wheel.turn)
        await runtime.start(Miller.run, "m-1", "signal")
        ada, bob = runtime.ref(Gossip.run, "ada"), runtime.ref(Gossip.run, "bob")
        await runtime.start(Gossip.run, "ada", bob)
        await runtime.start(Gossip.run, "bob", ada)
        await runtime.start(Receipt.run, "r-1")
        await runtime.start(Foreman.run, "f-1")
        for gossip in (ada, bob):
            await send_signal(gossip, Gossip.go)
        await runtime.settled()
        await runtime.start(Sack.run, "long-step", "long step")
