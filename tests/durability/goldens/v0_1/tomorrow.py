"""What may be deployed after 0.1: newer versions, which go on with what theirs have left by migrating it, or by replaying it."""

from __future__ import annotations

from typing import Any, Final

from perdure.actors import durable_actor, migrate, on_event, query, signal, wait_for_signal, workflow

from .app import ALWAYS, Late, Late2, quick


@durable_actor(name="Account", version=3)
class Account3:
    """Has a way from both."""

    def __init__(self) -> None:
        self.money = (0, "EUR")

    @migrate(1)
    @staticmethod
    def counted(state: dict[str, Any]) -> dict[str, Any]:
        return {"cents": sum(map(int, state["told"]))}

    @migrate(2)
    @staticmethod
    def with_currency(state: dict[str, Any]) -> dict[str, Any]:
        return {"money": (state["cents"], "EUR")}

    @on_event
    def add(self, cents: int) -> int:
        self.money = (self.money[0] + cents, self.money[1])
        return self.money[0]

    @query
    def diary(self) -> list[str]:
        return [f"{self.money[0]} cents, {self.money[1]}"]


@durable_actor(name="Deal", version=3, replays=(1, 2))
class Deal3:
    """Goes on where both others have taken turns."""

    go = signal(str)

    def __init__(self) -> None:
        self.told: list[str] = []

    @query
    def diary(self) -> list[str]:
        return self.told

    @workflow
    async def run(self, what: str) -> str:
        self.told.append(await quick(what))
        self.told.append(await wait_for_signal(Deal3.go))
        self.told.append(await wait_for_signal(Deal3.go))
        self.told.append(await quick("one thing more"))
        return "version 3"


ACTORS: Final = (*ALWAYS, Account3, Deal3, Late, Late2)
