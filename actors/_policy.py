"""Policies as values: what is tried again and when, and what becomes of children that fail.

A policy is frozen and draws nothing: the same attempt of the same message always waits equally long, so that a replay can be compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal, final, get_args

import msgspec

from ._errors import DefinitionError


@final
class Retry(msgspec.Struct, frozen=True):
    """How often a failing message or step is tried, and how long between: `initial * factor ** (failures - 1)`, at most `maximum`.

    `max_attempts` counts the first attempt too: 1 is never again. `retry_on` are the errors that are worth another attempt (default: any
    Exception), and `give_up_on` those of them that are not. Raises DefinitionError for values that make no sense.
    """

    __module__ = "perdure.actors"

    max_attempts: int = 3
    initial: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    maximum: timedelta = timedelta(seconds=60)
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    give_up_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if self.max_attempts < 1 or self.initial < timedelta(0) or self.factor < 1 or self.maximum < self.initial:
            raise DefinitionError(
                repr(self), "it makes no sense", "Give max_attempts >= 1, initial >= 0, factor >= 1 and maximum >= initial."
            )
        given: tuple[Any, Any] = self.retry_on, self.give_up_on
        for classes in given:
            if not isinstance(classes, tuple) or not all(isinstance(each, type) and issubclass(each, BaseException) for each in classes):
                cure = "Write retry_on=(OSError, ValueError), with classes of exceptions in it; give_up_on likewise."
                raise DefinitionError(repr(self), "errors are told by a tuple of classes", cure)

    def is_worth_it(self, error: BaseException) -> bool:
        """Whether an attempt that ended so may be followed by another."""
        return isinstance(error, self.retry_on) and not isinstance(error, self.give_up_on)

    def delay(self, attempt: int, token: bytes) -> float | None:
        """Seconds to wait after the attempt of that number (the first is 1) has failed; None to give up.

        Between half of the nominal time and the whole of it ("equal jitter": M. Brooker, Exponential Backoff and Jitter, AWS 2015), drawn
        by a hash of the token, so that what failed together does not come back together.
        """
        if attempt >= self.max_attempts:
            return None
        nominal = _grown(self, attempt - 1)
        draw = hashlib.blake2b(token + attempt.to_bytes(8, "big"), digest_size=8).digest()
        return nominal * (0.5 + int.from_bytes(draw, "big") / 2**65)


@final
class Rate(msgspec.Struct, frozen=True):
    """At most `count` in any time of length `per`. Raises DefinitionError for values that make no sense."""

    __module__ = "perdure.actors"

    count: int
    per: timedelta

    def __post_init__(self) -> None:
        if self.count < 1 or self.per <= timedelta(0):
            raise DefinitionError(repr(self), "it makes no sense", "Give count >= 1 and per > 0.")


@final
class Backoff(msgspec.Struct, frozen=True):
    """How long a failed child waits before it begins again: `initial * factor ** (restarts before)`, at most `maximum`.

    Raises DefinitionError for values that make no sense.
    """

    __module__ = "perdure.actors"

    initial: timedelta = timedelta(0)
    factor: float = 2.0
    maximum: timedelta = timedelta(minutes=1)

    def __post_init__(self) -> None:
        if self.initial < timedelta(0) or self.factor < 1 or self.maximum < self.initial:
            raise DefinitionError(repr(self), "it makes no sense", "Give initial >= 0, factor >= 1 and maximum >= initial.")

    def delay(self, before: int) -> float:
        """Seconds to wait, after so many restarts before this one."""
        return _grown(self, before)


def _grown(policy: Retry | Backoff, times: int) -> float:
    """Seconds: the initial ones, grown so many times, at most the maximum."""
    try:
        return min(policy.maximum.total_seconds(), policy.initial.total_seconds() * policy.factor**times)
    except OverflowError:
        return policy.maximum.total_seconds()


Directive = Literal["restart", "resume", "stop", "escalate"]


class Supervision(msgspec.Struct, frozen=True):
    """What an actor does about children that fail (J. Armstrong, Making reliable distributed systems, 2003, ch. 5; directives: Akka).

    `directives` says it by the class of the error, the nearest class first; `otherwise` for the others. "restart": begin the child again
    from its arguments, with a fresh state, after `backoff`. "resume": where a message was at fault, put it aside and let the child go on
    with the next one; a workflow that has raised has nothing to go on with, and is stopped. "stop": it stays failed, and its parent is
    told. "escalate": the failure is its parent's own, unless that waits for the child's result, or has no workflow at work and hears of it
    in @on_child_exit. A restart beyond `max_restarts` `within` that time escalates instead; the times are durable. Raises DefinitionError
    for values that make no sense.
    """

    __module__ = "perdure.actors"

    max_restarts: int = 3
    within: timedelta = timedelta(minutes=1)
    backoff: Backoff = Backoff()
    directives: Mapping[type[BaseException], Directive] = {}
    otherwise: Directive = "restart"

    def __post_init__(self) -> None:
        if self.max_restarts < 0 or self.within <= timedelta(0) or not isinstance(self.backoff, Backoff):
            raise DefinitionError(repr(self), "it makes no sense", "Give max_restarts >= 0, within > 0 and backoff=Backoff(…).")
        given: Mapping[Any, Any] = self.directives
        wrong = [each for each in (*given.values(), self.otherwise) if each not in get_args(Directive)]
        if wrong or not all(isinstance(each, type) and issubclass(each, BaseException) for each in given):
            cure = f"Write directives={{OSError: 'restart'}}: classes of exceptions, and one of {', '.join(get_args(Directive))}."
            raise DefinitionError(repr(self), "its directives make no sense", cure)

    def directive(self, error: BaseException) -> Directive:
        """What to do about an error."""
        for each in type(error).__mro__:
            if each in self.directives:
                return self.directives[each]
        return self.otherwise


@final
class OneForOne(Supervision, frozen=True):
    """Only the child that failed begins again; restarts are counted for each child by itself."""

    __module__ = "perdure.actors"


@final
class OneForAll(Supervision, frozen=True):
    """All children begin again, those that run after they were cancelled; the restarts of all of them count together."""

    __module__ = "perdure.actors"


@final
class RestForOne(Supervision, frozen=True):
    """The child that failed begins again, and those that were spawned after it; the restarts of all of them count together."""

    __module__ = "perdure.actors"
