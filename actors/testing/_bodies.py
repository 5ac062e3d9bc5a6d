"""The bodies of steps: how often each was run, and what runs in its place."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, final

from .._step import Step, step_info
from ._dice import Dice

ROUNDS: Final = 8  # of the event loop: less than that a step takes longer, before and after, where chance decides


@final
class Bodies:
    """What stands around the steps of a world, over its restarts.

    `twice` names a step whose body runs twice each time, as after a host that died when it was done; `dice` let each take its time.
    """

    def __init__(self, *, twice: str | None = None, dice: Dice | None = None) -> None:
        self.fakes: Final[dict[str, Callable[..., Any]]] = {}  # what runs in place of a body, by the step's name
        self._twice = twice
        self._dice = dice
        self._runs: dict[str, Counter[str]] = {}  # by step and idempotency key

    def __repr__(self) -> str:
        return f"<Bodies {', '.join(f'{name}: {self.calls(name)}' for name in self._runs)}>"

    @property
    def steps(self) -> list[str]:
        """The names of the steps of which a body has run, in the order of their first runs."""
        return list(self._runs)

    def calls(self, step: str) -> int:
        """How often its body has run."""
        return sum(self._runs.get(step, {}).values())

    def repeated(self) -> dict[str, int]:
        """The steps whose body has run more than once for one asking: how often at most."""
        most = {step: max(runs.values()) for step, runs in self._runs.items()}
        return {step: times for step, times in most.items() if times > 1}

    async def __call__(
        self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Awaitable[Any]], /
    ) -> Any:
        """As `AroundSteps`."""
        self._runs.setdefault(step.name, Counter())[step_info().idempotency_key] += 1
        await self._dawdle()
        if step.name == self._twice:
            with suppress(Exception):  # whatever came of it was lost
                await self._run(step, args, kwargs, run)
        try:
            return await self._run(step, args, kwargs, run)
        finally:
            await self._dawdle()

    async def _run(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Awaitable[Any]]) -> Any:
        fake = self.fakes.get(step.name)
        if fake is None:
            return await run()
        outcome = fake(*args, **kwargs)
        return await outcome if inspect.isawaitable(outcome) else outcome

    async def _dawdle(self) -> None:
        if self._dice is not None:
            await self._dice.dawdle(ROUNDS)
