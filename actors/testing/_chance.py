"""Chance from a seed: ids, the order of what is ready, how long a slice of turns is. The same seed, the same choices."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, Final, final

from .._settings import Settings

GLANCE: Final = 0.001  # seconds that a seeded stopwatch moves at most each time somebody looks at it: a slice is 2 ms


@final
class SeededEntropy:
    """Ids by counting, hashed with a seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._count = 0

    def token(self) -> bytes:
        """As `Entropy.token`."""
        self._count += 1
        return hashlib.blake2b(f"{self._seed}/{self._count}".encode(), digest_size=16).digest()


@final
class ShuffledQueue(deque[Any]):
    """A queue out of which anybody may come next: actors know of no order among themselves."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    def popleft(self) -> Any:
        """Take one, any one."""
        self.rotate(-self._random.randrange(len(self)))
        return super().popleft()


@final
class SeededStopwatch:
    """A stopwatch that moves when it is looked at, so that slices end after any number of turns."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._time = 0.0

    def __call__(self) -> float:
        """Seconds since it was made."""
        self._time += self._random.uniform(0.0, GLANCE)
        return self._time


def by_chance(settings: Settings, random: Random) -> Settings:
    """The same, with whatever a host may choose chosen at random."""
    return replace(settings, stopwatch=SeededStopwatch(random), queue=partial(ShuffledQueue, random))
