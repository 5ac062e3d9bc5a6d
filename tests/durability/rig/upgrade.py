"""A deploy that is killed: a store that version 1 of some types has left, and the host of version 2 that takes it over.

    python -m tests.durability.rig.upgrade URL [--deadly]

Hosts version 2 until all that version 1 has left is handled, and exits with 0; or a version 2 that does not live that long.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from dataclasses import field
from typing import Any, Final

from perdure.actors import Runtime, continue_as_new, durable_actor, migrate, on_event, query, send_signal, signal, wait_for_signal, workflow

COUNT: Final = 4  # of each kind
DEATH: Final = 3


@durable_actor(name="Account")
class Account1:
    """Counts euros."""

    def __init__(self) -> None:
        self.money = 1
        self.heard: list[str] = []

    @on_event
    def add(self, text: str) -> None:
        self.heard.append(text)


@durable_actor(name="Account", version=2)
class Account2:
    """Counts cents."""

    def __init__(self) -> None:
        self.money = 0
        self.heard: list[str] = []

    @migrate(1)
    @staticmethod
    def in_cents(state: dict[str, Any]) -> dict[str, Any]:
        """Not to be done twice."""
        return {**state, "money": state["money"] * 100}

    @on_event
    def add(self, text: str) -> None:
        self.heard.append(text)

    @query
    def facts(self) -> tuple[int, list[str]]:
        return self.money, self.heard


@durable_actor(name="Account", version=2)
class Unprepared:
    """It has no migration: whoever gets a message stands still."""

    @on_event
    def add(self, text: str) -> None: ...


@durable_actor(name="Account", version=2)
class Deadly:
    """Its migration is the end of the host, once there is an account that has heard of poison."""

    @migrate(1)
    @staticmethod
    def in_cents(state: dict[str, Any]) -> dict[str, Any]:
        """Not survived."""
        if "poison" in state["heard"]:
            os._exit(DEATH)
        return {**state, "money": state["money"] * 100}

    @on_event
    def add(self, text: str) -> int:
        self.heard.append(text)
        return len(self.heard)

    heard: list[str] = field(default_factory=list)


@durable_actor(name="Meter")
class Meter1:
    """Waits, and then goes on in another life."""

    go = signal(str)

    def __init__(self) -> None:
        self.money = 1
        self.heard: list[str] = []

    @workflow
    async def run(self) -> None:
        self.heard.append(await wait_for_signal(Meter1.go))
        continue_as_new()


@durable_actor(name="Meter", version=2)
class Meter2:
    """Goes on in cents."""

    go = signal(str)

    def __init__(self) -> None:
        self.money = 0
        self.heard: list[str] = []

    @migrate(1)
    @staticmethod
    def in_cents(state: dict[str, Any]) -> dict[str, Any]:
        """Not to be done twice."""
        return {**state, "money": state["money"] * 100}

    @query
    def facts(self) -> tuple[int, list[str]]:
        return self.money, self.heard

    @workflow
    async def run(self) -> None:
        await wait_for_signal(Meter2.go)


BEFORE: Final = (Account1, Meter1)
NOW: Final = (Account2, Meter1, Meter2)


async def leave(url: str) -> None:
    """What version 1, and a deploy that went wrong, leave behind: messages for actors that are idle, that wait, that stand still."""
    async with Runtime(url, BEFORE) as first:
        for number in range(COUNT):
            await first.ref(Account1, f"idle-{number}").ask(Account1.add, "first")
            await first.ref(Account1, f"still-{number}").ask(Account1.add, "first")
            await first.start(Meter1.run, f"{number}")
    async with Runtime(url, [Unprepared, Meter2]) as second:
        for number in range(COUNT):
            await second.ref(Unprepared, f"still-{number}").send_event(Unprepared.add, "second")
            await send_signal(second.ref(Meter2, f"{number}"), Meter2.go, "second")
        await second.settled()


async def take_over(url: str) -> list[tuple[str, str, Any]]:
    """Let version 2 do all there is to do, and say what it has come to: each actor's address, status and facts."""
    async with Runtime(url, NOW) as host:
        for number in range(COUNT):
            account = host.ref(Account2, f"idle-{number}").options(idempotency_key="second")
            await account.ask(Account2.add, "second")
        await host.settled()
        types: dict[str, type] = {"Account": Account2, "Meter": Meter2}
        return [
            (str(info.id), info.status, await host.ref(types[info.id.type], info.id.key).query("facts")) async for info in host.actors()
        ]


async def die(url: str) -> None:
    """Host the version that nobody survives who has to migrate an account that has heard of poison."""
    async with Runtime(url, [Deadly]) as host:
        await host.settled()


def main() -> None:
    """Take over once, or die."""
    logging.getLogger("perdure").setLevel(logging.CRITICAL)
    asyncio.run(die(sys.argv[1]) if "--deadly" in sys.argv else take_over(sys.argv[1]))


if __name__ == "__main__":
    main()
    os._exit(0)
