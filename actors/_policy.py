"""Policies as values: what is tried again, and when.

A policy is frozen and draws nothing: the same attempt of the same message always waits equally long, so that a replay can be compared.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any, final

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
        nominal = self._nominal(attempt)
        draw = hashlib.blake2b(token + attempt.to_bytes(8, "big"), digest_size=8).digest()
        return nominal * (0.5 + int.from_bytes(draw, "big") / 2**65)

    def _nominal(self, attempt: int) -> float:
        maximum = self.maximum.total_seconds()
        try:
            return min(maximum, self.initial.total_seconds() * self.factor ** (attempt - 1))
        except OverflowError:
            return maximum


@final
class Rate(msgspec.Struct, frozen=True):
    """At most `count` in any time of length `per`. Raises DefinitionError for values that make no sense."""

    __module__ = "perdure.actors"

    count: int
    per: timedelta

    def __post_init__(self) -> None:
        if self.count < 1 or self.per <= timedelta(0):
            raise DefinitionError(repr(self), "it makes no sense", "Give count >= 1 and per > 0.")
