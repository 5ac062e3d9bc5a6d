"""Clients of actors that live several lives, stand still, or stray: each has its own, so it knows what to expect of every verb."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

from perdure.actors import (
    ActorCompleted,
    ActorFailed,
    ActorNotFound,
    ActorQuarantined,
    Runtime,
    WorkflowAlreadyStarted,
    WorkflowNotStarted,
)

from .cast import Delicate, Fickle, Lodger

if TYPE_CHECKING:
    from .plot import Verb
    from .stage import Stage

PATIENCE: Final = 5.0  # seconds between looks at what stands still


@final
class LodgerClient:
    """Knows which life it is, and what has been noted in it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._life: int | None = None
        self._notes: list[int] = []

    async def do(self, verb: Verb) -> None:
        """Do one thing, and compare what comes of it with what must."""
        expected, answer = await getattr(self, f"_{verb.kind}")(verb)
        if answer not in expected:
            self._stage.wrong(f"verb {verb.number}: {verb.kind} {verb.n} of a lodger came to {answer} instead of {expected}")

    async def end(self) -> None:
        """Nothing is left to do."""

    async def _start(self, verb: Verb, if_exists: Any = "use", key: str | None = None) -> tuple[list[object], object]:
        before, self._life = self._life, verb.n if self._life is None else self._life
        expected = "started" if before is None or (before == verb.n and if_exists == "use") else "WorkflowAlreadyStarted"
        return [expected], await self._begin(verb, if_exists, key)

    async def _start_new(self, verb: Verb) -> tuple[list[object], object]:
        return await self._start(verb, "fail", f"verb {verb.number}")

    async def _restart(self, verb: Verb) -> tuple[list[object], object]:
        if self._life is not None:
            self._notes = []
        self._life = verb.n
        return ["started"], await self._begin(verb, "restart", f"verb {verb.number}")

    async def _begin(self, verb: Verb, if_exists: Any, key: str | None) -> object:
        try:
            await self._stage.insist(
                lambda runtime: runtime.options(if_exists=if_exists, idempotency_key=key).start(Lodger.run, verb.key, verb.n)
            )
        except WorkflowAlreadyStarted as error:
            return type(error).__name__
        return "started"

    async def _result(self, verb: Verb) -> tuple[list[object], object]:
        expected = "WorkflowNotStarted" if self._life is None else f"life {self._life}"
        try:
            return [expected], await self._stage.insist(lambda runtime: runtime.ref(Lodger.run, verb.key).result())
        except (WorkflowNotStarted, ActorNotFound):
            return [expected], "WorkflowNotStarted"

    async def _note(self, verb: Verb) -> tuple[list[object], object]:
        noted = [*self._notes, verb.number]
        try:
            answer = await self._stage.insist(
                lambda runtime: runtime.ref(Lodger, verb.key).options(idempotency_key=f"verb {verb.number}").ask(Lodger.note, verb.number)
            )
        except ActorCompleted as error:
            return [] if self._life is None else [type(error).__name__], type(error).__name__
        self._notes = noted
        return [noted], answer

    async def _noted(self, verb: Verb) -> tuple[list[object], object]:
        return [self._notes], await self._stage.insist(lambda runtime: runtime.ref(Lodger, verb.key).query(Lodger.noted))

    async def _delete(self, verb: Verb) -> tuple[list[object], object]:
        self._life, self._notes = None, []
        return [None], await self._stage.insist(lambda runtime: runtime.ref(Lodger, verb.key).delete())


@final
class DelicateClient:
    """Sends what can be noted, and now and then what cannot until it is mended."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._sent: list[int] = []

    async def do(self, verb: Verb) -> None:
        """Do one thing."""
        if verb.kind == "mend":
            await self.end()
        elif verb.kind == "noted":
            await self._look()
        else:
            if verb.kind == "poison":
                self._stage.resources["poison"].add(verb.number)
            self._sent.append(verb.number)
            key = f"verb {verb.number}"
            await self._stage.insist(
                lambda runtime: runtime.ref(Delicate, "delicate").options(idempotency_key=key).send_event(Delicate.note, verb.number)
            )

    async def end(self) -> None:
        """Mend what it stands still at: then everything is noted, in order."""
        if self._sent:
            self._stage.resources["poison"].clear()
            await go_on(self._stage, lambda runtime: runtime.ref(Delicate, "delicate"))
            noted = await self._look()
            if noted != self._sent:
                self._stage.wrong(f"the delicate one has noted {noted} instead of {self._sent}")

    async def _look(self) -> list[int]:
        """What is noted is a beginning of what was sent."""
        noted: list[int] = []
        with suppress(ActorQuarantined):
            noted = await self._stage.insist(lambda runtime: runtime.ref(Delicate, "delicate").query(Delicate.noted))
        if noted != self._sent[: len(noted)]:
            self._stage.wrong(f"the delicate one has noted {noted}, and was sent {self._sent}")
        return noted


@final
class FickleClient:
    """Has the code ask for something else on replay, and sees that this is found, loses nothing, and is over once that is mended."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._is_begun = False

    async def do(self, verb: Verb) -> None:
        """Do one thing."""
        if verb.kind == "start":
            self._is_begun = True
            with suppress(ActorQuarantined):
                await self._stage.insist(lambda runtime: runtime.start(Fickle.run, "fickle", 1))
        elif self._is_begun and verb.kind == "stray":
            self._stage.resources["strays"] = True
            await asyncio.sleep(verb.n)
            await self._stage.insist(self._compare)
        elif self._is_begun:
            await self.end()

    async def end(self) -> None:
        """Mend it, and hear its result."""
        if not self._is_begun:
            return
        self._stage.resources["strays"] = False
        self._stage.resources["strayed"].clear()
        await go_on(self._stage, lambda runtime: runtime.ref(Fickle.run, "fickle"))
        try:
            answer = await self._stage.insist(lambda runtime: runtime.ref(Fickle.run, "fickle").result())
        except ActorFailed as error:
            answer = repr(error)
        if answer != "told told told told":
            self._stage.wrong(f"the fickle one came to {answer}")

    async def _compare(self, runtime: Runtime) -> None:
        """If it has strayed in this epoch, it stands still."""
        await runtime.settled()
        strayed = self._stage.disk.recoveries in self._stage.resources["strayed"]
        info = await runtime.ref(Fickle, "fickle").info()
        # Asked once more, since another epoch, in which it has not strayed, may have begun meanwhile.
        if strayed and info.status != "quarantined" and self._stage.disk.recoveries in self._stage.resources["strayed"]:
            self._stage.wrong(f"the fickle one asked for something else on replay, and is {info.status}")


async def go_on(stage: Stage, ref: Callable[[Runtime], Any]) -> None:
    """Have an actor go on that stands still, until it has nothing left to do, or waits for something else."""

    async def retry(runtime: Runtime) -> str:
        await runtime.settled()
        info = await ref(runtime).info()
        if info.status == "quarantined":
            with suppress(ActorQuarantined):
                await ref(runtime).retry()
        return "again" if info.status == "quarantined" or info.events else ""

    while await stage.insist(retry):  # noqa: ASYNC110  nobody tells when it stands still
        await asyncio.sleep(PATIENCE)


Guest = LodgerClient | DelicateClient | FickleClient
GUESTS: Final[dict[str, Callable[[Any], Guest]]] = {"lodger": LodgerClient, "delicate": DelicateClient, "fickle": FickleClient}
