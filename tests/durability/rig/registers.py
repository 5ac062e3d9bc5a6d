"""Registers and counters, and users that contend for them: every call and every answer is a line of one history.

The place of a line is its time: a call is written before it is made, an answer after it was heard, and all processes append to one file.
So what the file says came after something truly did, whoever was killed between the two.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import defaultdict
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any, Final, Protocol, final

from perdure.actors import ActorRef, HostNotRunning, durable_actor, on_event, query
from perdure.storage import CommitUncertain

from .wing_gong import Operation, Specification, complaint, judge

MOMENT: Final = 0.001  # seconds of a durable timer
LISTENS: Final = 20  # times that a user asks again before it gives up

# --- the actors, and what they are to do ---


@durable_actor
class Register:
    """Holds one value."""

    def __init__(self) -> None:
        self.held = 0

    @on_event
    def write(self, new: int) -> None:
        self.held = new

    @on_event
    def read(self) -> int:
        return self.held

    @on_event
    async def compare_and_set(self, old: int, new: int) -> bool:
        fits = self.held == old
        await asyncio.sleep(MOMENT)  # no event comes in between
        if fits:
            self.held = new
        return fits

    @query
    def value(self) -> int:
        return self.held


@durable_actor
class Counter:
    """Counts."""

    def __init__(self) -> None:
        self.count = 0

    @on_event
    def increment(self) -> int:
        self.count += 1
        return self.count

    @on_event
    async def increment_slowly(self) -> int:
        before = self.count
        await asyncio.sleep(MOMENT)
        self.count = before + 1
        return self.count

    @on_event
    def read(self) -> int:
        return self.count

    @query
    def value(self) -> int:
        return self.count


def register(held: int, name: str, arguments: tuple[Any, ...]) -> tuple[int, Any]:
    """What a register is to do, as in `Specification`."""
    match name, arguments:
        case "write", (new,):
            return new, None
        case "compare_and_set", (old, new):
            return (new, True) if held == old else (held, False)
        case _:
            return held, held


def counter(so_far: int, name: str, arguments: tuple[Any, ...]) -> tuple[int, Any]:
    """What a counter is to do, as in `Specification`."""
    after = so_far + name.startswith("increment")
    return after, after


ACTORS: Final = (Register, Counter)
SUBJECTS: Final[Mapping[str, type]] = {"register 1": Register, "register 2": Register, "counter 1": Counter, "counter 2": Counter}
SPECIFICATIONS: Final[Mapping[type, Specification]] = {Register: Specification(0, register), Counter: Specification(0, counter)}
VERBS: Final[Mapping[type, list[str]]] = {
    Register: ["write", "write", "read", "value", "value", "compare_and_set"],
    Counter: ["increment", "increment", "read", "value", "value", "increment_slowly"],
}

# --- what happened ---


@final
class History:
    """A file of calls and answers, in the order in which they came."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def call(self, label: str, process: str, subject: str, name: str, arguments: tuple[Any, ...]) -> None:
        """A process is about to call; the label is this call's alone."""
        self._append([label, process, subject, name, arguments])

    def answer(self, label: str, outcome: object) -> None:
        """It has heard."""
        self._append([label, outcome])

    def operations(self) -> dict[str, dict[str, Operation]]:
        """All that was called, by subject and label."""
        found: dict[str, dict[str, Operation]] = defaultdict(dict)
        subjects: dict[str, str] = {}
        for time, line in enumerate(map(json.loads, self._path.read_bytes().split(b"\n")[:-1])):
            match line:
                case [label, process, subject, name, arguments]:
                    subjects[label] = subject
                    found[subject][label] = Operation(process, name, tuple(arguments), None, time, None)
                case [label, outcome]:
                    calls = found[subjects[label]]
                    calls[label] = calls[label]._replace(outcome=outcome, returned=time)
        return found

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _append(self, line: list[Any]) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")  # in one write, which a kill leaves whole or absent


def anomalies(history: History) -> list[str]:
    """One text for each subject whose answers no order explains."""
    found = []
    for subject, calls in history.operations().items():
        verdict = judge(calls.values(), SPECIFICATIONS[SUBJECTS[subject]])
        if verdict.blocked is not None:
            found.append(f"{subject}: {complaint(calls.values(), verdict.blocked)}")
    return found


# --- who does it ---


class Port(Protocol):
    """Whatever gives references: a runtime, a client, a world."""

    def ref(self, actor: Any, key: str, /) -> ActorRef[Any]:
        """A reference to an actor."""
        ...


@final
class User:
    """One that calls, waits for the answer, and calls again. `name` was never anybody's before; `watches`: it does nothing but query.

    Half of its asks have an idempotency key, and are asked again until they are answered. Where it never hears it goes on as another
    process, since one process does one thing at a time.
    """

    def __init__(self, port: Port, history: History, name: str, *, watches: bool = False) -> None:
        self._port = port
        self._history = history
        self._name = name
        self._watches = watches
        self._random = random.Random(name)
        self._labels = (f"{name}/{number}" for number in count(1))
        self._lives = count(2)
        self._process = f"{name}.1"
        self._seen: dict[str, int] = defaultdict(int)

    async def run(self, calls: int | None = None) -> None:
        """Call so many times, or until cancelled."""
        for _ in count() if calls is None else range(calls):
            subject = self._random.choice(list(SUBJECTS))
            name = "value" if self._watches else self._random.choice(VERBS[SUBJECTS[subject]])
            keyed = "keyed " if self._random.random() < 0.5 else ""
            await self._call(f"{keyed}{next(self._labels)}", subject, name)
            await asyncio.sleep(0)  # a query of what is durable is answered at once

    async def ask_again(self, line: str) -> None:
        """Ask for all that users of that line have asked with keys before, and never heard of."""
        for subject, calls in self._history.operations().items():
            for label, call in calls.items():
                if label.startswith(f"keyed {line}") and call.returned is None:
                    await self._hear(label, subject, call.name, call.arguments)

    async def _call(self, label: str, subject: str, name: str) -> None:
        arguments = self._arguments(label, subject, name)
        self._history.call(label, self._process, subject, name, arguments)
        if not await self._hear(label, subject, name, arguments):
            self._process = f"{self._name}.{next(self._lives)}"

    async def _hear(self, label: str, subject: str, name: str, arguments: tuple[Any, ...]) -> bool:
        """Whether there was an answer."""
        keyed = label.startswith("keyed")
        for _ in range(LISTENS if keyed else 1):
            try:
                outcome = await self._perform(label if keyed else None, subject, name, arguments)
            except (CommitUncertain, HostNotRunning):
                continue
            self._history.answer(label, outcome)
            if name in ("read", "value"):
                self._seen[subject] = outcome
            return True
        return False

    async def _perform(self, key: str | None, subject: str, name: str, arguments: tuple[Any, ...]) -> Any:
        ref, handler = self._port.ref(SUBJECTS[subject], subject), getattr(SUBJECTS[subject], name)
        if name == "value":
            return await ref.query(handler)
        if key is not None:
            ref = ref.options(idempotency_key=key)
        return await ref.ask(handler, *arguments)

    def _arguments(self, label: str, subject: str, name: str) -> tuple[Any, ...]:
        """Every value that is written is another one, so that a read tells which write it has seen."""
        value = random.Random(label).getrandbits(48)
        match name:
            case "write":
                return (value,)
            case "compare_and_set":
                return self._seen[subject], value
            case _:
                return ()
