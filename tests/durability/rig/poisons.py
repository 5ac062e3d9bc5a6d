"""Poison: what an actor's code can do to the turn that runs it, short of hanging and of killing the process."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Final, NoReturn

from perdure.actors import Retry, durable_actor, on_event, query

ATTEMPTS: Final = 4
TOO_DEEP: Final = 5_000  # lists in lists: any pickler's recursion ends before
TOO_MUCH: Final = 1 << 62  # bytes


class Abort(BaseException):
    """No `Exception`, so that nothing which catches those stops it."""


class Parcel:
    """What a sender has, and a receiver may know no more."""


class Sticky:
    """Refuses to be stored."""

    def __reduce__(self) -> NoReturn:
        raise ZeroDivisionError("nought")


class Slippery:
    """The same, by what no `except Exception` stops."""

    def __reduce__(self) -> NoReturn:
        raise Abort


class Mute(Exception):
    """An error of which nobody gets a word."""

    def __str__(self) -> NoReturn:
        raise Abort


def fail(error: BaseException) -> NoReturn:
    """Raise it."""
    raise error


def recurse() -> None:
    """Go down, for ever."""
    recurse()


def nested() -> list[object]:
    """A list that is too deep to be stored."""
    value: list[object] = []
    for _ in range(TOO_DEEP):
        value = [value]
    return value


POISONS: Final[dict[str, Callable[[], object]]] = {
    "raises": lambda: fail(ValueError("no")),
    "raises a mute error": lambda: fail(Mute()),
    "raises a group": lambda: fail(BaseExceptionGroup("both", [Abort(), ValueError("no")])),
    "aborts": lambda: fail(Abort()),
    "exits": lambda: fail(SystemExit(3)),
    "is cancelled": lambda: fail(asyncio.CancelledError()),
    "ends a generator": lambda: fail(GeneratorExit()),
    "recurses": recurse,
    "takes all memory": lambda: bytearray(TOO_MUCH),
    "keeps a lock": threading.Lock,
    "keeps what is too deep": nested,
    "keeps what will not be pickled": Sticky,
    "keeps what aborts its pickling": Slippery,
}


RUNS: Final[Counter[str]] = Counter()  # how often each kind was swallowed, rolled back or not


@durable_actor(retry=Retry(max_attempts=ATTEMPTS, initial=timedelta(milliseconds=10)))
class Victim:
    """Swallows what it is given, and keeps what comes of it."""

    def __init__(self) -> None:
        self.swallowed = 0
        self.kept: object = None

    @on_event
    def swallow(self, kind: str) -> None:
        RUNS[kind] += 1
        self.swallowed += 1
        self.kept = POISONS[kind]()

    @on_event
    async def swallow_later(self, kind: str) -> None:
        RUNS[kind] += 1
        self.swallowed += 1
        await asyncio.sleep(0)
        self.kept = POISONS[kind]()

    @on_event
    def hold(self, what: object) -> int:
        self.swallowed += 1
        return self.swallowed

    @on_event
    def give(self, kind: str) -> object:
        self.swallowed += 1
        return POISONS[kind]()

    @query
    def count(self) -> int:
        return self.swallowed


@durable_actor
class Neighbour:
    """Counts."""

    def __init__(self) -> None:
        self.count = 0

    @on_event
    def add(self) -> int:
        self.count += 1
        return self.count
