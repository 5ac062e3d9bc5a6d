"""Chance from a seed: ids, and the order of what is ready. The same seed, the same choices."""

from __future__ import annotations

import hashlib
from collections import deque
from random import Random
from typing import Any, final


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
