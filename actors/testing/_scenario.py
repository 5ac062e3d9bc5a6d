"""Scenarios: what befalls a test's world while the test runs, in a few words that bring it back.

`str` and `Scenario.parse` are inverse: `crash-before-5+evict` is a crash before the fifth commit in a world that keeps nobody in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from random import Random
from typing import Final, final


@final
class CrashPoint(Enum):
    """Where a host may die around a commit."""

    __module__ = "perdure.actors.testing"

    BEFORE_COMMIT = "before"  # the batch is lost
    AFTER_COMMIT = "after"  # the batch is durable, and nobody has been told


@final
@dataclass(frozen=True, slots=True)
class Crash:
    """The host dies around its nth commit, counted from 1 over all its lives."""

    point: CrashPoint
    nth: int

    def __str__(self) -> str:
        return f"crash-{self.point.value}-{self.nth}"


@final
@dataclass(frozen=True, slots=True)
class Scenario:
    """What befalls a world, and nothing else: `Scenario()` is no trouble at all.

    `evict`: each actor leaves memory after each of its turns. `resend`: whatever is sent is sent again with the same idempotency key once
    it is acknowledged. `seed`: what a host may choose is chosen by chance: which actor is next, when steps end, how late timers are.
    `twice`: the body of that step runs twice each time.
    """

    crashes: tuple[Crash, ...] = ()
    evict: bool = False
    resend: bool = False
    seed: int | None = None
    twice: str | None = None

    __module__ = "perdure.actors.testing"

    def __str__(self) -> str:
        parts = [*map(str, self.crashes)]
        parts += ["evict"] * self.evict + ["resend"] * self.resend
        parts += [] if self.seed is None else [f"seed-{self.seed}"]
        parts += [] if self.twice is None else [f"twice-{self.twice}"]
        return "+".join(parts) or "plain"

    @classmethod
    def parse(cls, text: str) -> Scenario:
        """The scenario of that description. Raises ValueError, saying what may stand there."""
        scenario = cls()
        for part in text.split("+"):
            match part.split("-", 2):
                case ["plain"]:
                    pass
                case ["crash", point, nth] if point in _POINTS and nth.isdigit():
                    scenario = replace(scenario, crashes=(*scenario.crashes, Crash(_POINTS[point], int(nth))))
                case ["evict"]:
                    scenario = replace(scenario, evict=True)
                case ["resend"]:
                    scenario = replace(scenario, resend=True)
                case ["seed", seed] if seed.isdigit():
                    scenario = replace(scenario, seed=int(seed))
                case ["twice", *name] if name:
                    scenario = replace(scenario, twice="-".join(name))
                case _:
                    raise ValueError(f"{part!r} is no part of a scenario: {GRAMMAR}")
        return scenario

    @property
    def has_trouble(self) -> bool:
        """Whether callers have to be told, or to say, anything twice."""
        return bool(self.crashes) or self.resend

    def told(self) -> str:
        """The same for people."""
        told = [f"a crash {crash.point.value} commit {crash.nth}" for crash in self.crashes]
        told += ["no actor staying in memory"] * self.evict
        told += ["everything sent twice with one idempotency key"] * self.resend
        told += [] if self.seed is None else [f"order and lateness by seed {self.seed}"]
        told += [] if self.twice is None else [f"the body of {self.twice} run twice each time"]
        return ", ".join(told) or "no trouble at all"


_POINTS: Final = {point.value: point for point in CrashPoint}
GRAMMAR: Final = "it is made of plain, crash-before-N, crash-after-N, evict, resend, seed-N and twice-STEP, joined by +"


def sampled(commits: int, seeds: Iterable[int]) -> Iterator[Scenario]:
    """What chance adds for a test of so many commits: by each seed two crashes, and other choices of the host with everything else."""
    for seed in seeds:
        random = Random(seed)
        first, second = (Crash(random.choice(list(CrashPoint)), random.randint(1, commits)) for _ in range(2))
        yield Scenario(tuple(sorted({first, second}, key=lambda crash: (crash.nth, crash.point.value))), evict=bool(seed % 2))
        yield Scenario(seed=seed)
        third = Crash(random.choice(list(CrashPoint)), random.randint(1, commits))
        yield Scenario((third,), evict=bool(random.getrandbits(1)), resend=bool(random.getrandbits(1)), seed=seed)
