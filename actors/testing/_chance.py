"""Chance from a seed: ids, and the order of what is ready. The same seed, the same choices."""

from __future__ import annotations

import hashlib
from collections import deque
from random import Random
from typing import Any, Final, final

STRIDE: Final = 0.0002  # seconds that a stopwatch without a seed moves each time it is looked at: a slice is 2 ms


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
class CountingStopwatch:
    """A stopwatch that moves by the same each time it is looked at, so that slices are as long on any machine."""

    def __init__(self) -> None:
        self._looks = 0

    def __call__(self) -> float:
        """Seconds since it was made."""
        self._looks += 1
        return self._looks * STRIDE
