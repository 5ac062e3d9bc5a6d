"""The linearizability checker: searches for an order of operations that one actor, alone in the world, could have given these answers in.

An order that is found respects the times: what was answered before another was called comes before it. If none is found there is none.

The search is that of Wing and Gong, "Testing and Verifying Concurrent Objects" (1993), with what Lowe, "Testing for Linearizability"
(2017), remembers of it, as Porcupine does: a set of linearized operations that led to the same state before leads nowhere again. A history
of many objects is linearizable if that of each is (Herlihy and Wing, 1990), so each is searched alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, NamedTuple, final

NO_STATE: Final = object()
BESIDE: Final = 12  # operations that are shown with the one that does not fit


@final
class Operation(NamedTuple):
    """What a process wanted of an object, and what it heard. Times are places in one order of calls and returns.

    `returned` is None where the process never heard: then it took effect at any time after the call, or never, and `outcome` says nothing.
    """

    process: str
    name: str
    arguments: tuple[Any, ...]
    outcome: Any
    called: int
    returned: int | None

    def __str__(self) -> str:
        heard = "?" if self.returned is None else f"{self.outcome!r}"
        called = f"{self.name}({', '.join(map(repr, self.arguments))})"
        return f"[{self.called:>6} … {self.returned or '':>6}] {self.process}: {called} -> {heard}"


@final
class Specification(NamedTuple):
    """What an object is to do: its first state, and (state, name, arguments) -> (next state, outcome)."""

    initial: Hashable
    apply: Callable[[Any, str, tuple[Any, ...]], tuple[Hashable, Any]]


@final
class Verdict(NamedTuple):
    """`order` is one that explains the history, or None; then no order gets beyond the return of `blocked`. `steps` is what that took."""

    order: list[Operation] | None
    blocked: Operation | None
    steps: int


def judge(history: Iterable[Operation], specification: Specification) -> Verdict:
    """Whether an object can have behaved so."""
    return Search(history, specification).run()


def complaint(history: Iterable[Operation], blocked: Operation) -> str:
    """The operation that does not fit, after those that were under way shortly before."""
    assert blocked.returned is not None
    before = [each for each in history if each.called < blocked.returned and each != blocked]
    beside = sorted(before, key=lambda each: each.returned or each.called)[-BESIDE:]
    return "\n".join(["no order explains", *map(str, beside), f"and then {blocked}"])


@final
class Search:
    """One search. Calls and returns not yet linearized are a doubly linked list; entry 0 is its beginning and its end."""

    def __init__(self, history: Iterable[Operation], specification: Specification) -> None:
        self._specification = specification
        self._operations = sorted(history, key=lambda operation: operation.called)
        times = [(operation.called, place, True) for place, operation in enumerate(self._operations)]
        times += [(each.returned, place, False) for place, each in enumerate(self._operations) if each.returned is not None]
        self._entries = [(-1, False), *((place, is_call) for _, place, is_call in sorted(times))]
        self._next = [*range(1, len(self._entries)), 0]
        self._previous = [len(self._entries) - 1, *range(len(self._entries) - 1)]
        self._of = [[0, 0] for _ in self._operations]  # the entries of an operation: its call, its return
        for entry, (place, is_call) in enumerate(self._entries[1:], 1):
            self._of[place][not is_call] = entry
        self._furthest = 0  # the last return that had to be reached
        self._steps = 0

    def run(self) -> Verdict:
        """Search to the end."""
        order: list[int] = []
        states = [self._specification.initial]
        linearized, seen = 0, set[tuple[int, Hashable]]()
        ways = [self._ways(states[0], NO_STATE)]
        while (options := ways[-1]) is not None:
            if options:
                place, state = options.pop()
                known = linearized | 1 << place, state
                if known not in seen:
                    seen.add(known)
                    linearized = known[0]
                    order.append(place)
                    self._lift(place)
                    ways.append(self._ways(state, states[-1] if self._operations[place].returned is None else NO_STATE))
                    states.append(state)
            elif order:
                ways.pop()
                states.pop()
                place = order.pop()
                linearized ^= 1 << place
                self._put_back(place)
            else:
                return Verdict(None, self._operations[self._entries[self._furthest][0]], self._steps)
        return Verdict([self._operations[place] for place in order], None, self._steps)

    def _ways(self, state: Hashable, before: Hashable) -> list[tuple[int, Hashable]] | None:
        """(operation, next state) for all that may come next, the best last; None if nothing that was answered is left.

        Whatever was called before the first return may. An operation without an answer is better kept for when it is needed; one that
        changes nothing never is, and of several that are the same the first serves as well as the others. If the last one has no answer,
        `before` is the state before it: what leads from there to the same, too, had no need of it, and is tried without it. So those that
        were never heard of cost little, although every set of them might have taken effect.
        """
        answered: list[tuple[int, Hashable]] = []
        unheard: dict[tuple[str, tuple[Any, ...]], tuple[int, Hashable]] = {}
        self._steps += 1
        entry = self._next[0]
        while entry:
            place, is_call = self._entries[entry]
            if not is_call:
                self._furthest = max(self._furthest, entry)
                return [*unheard.values(), *reversed(answered)]
            operation = self._operations[place]
            after, outcome = self._apply(state, operation)
            if operation.returned is None:
                if after != state and (before is NO_STATE or self._apply(before, operation)[0] != after):
                    unheard.setdefault((operation.name, operation.arguments), (place, after))
            elif outcome == operation.outcome and (before is NO_STATE or self._apply(before, operation) != (after, outcome)):
                answered.append((place, after))
            entry = self._next[entry]
        return None

    def _apply(self, state: Hashable, operation: Operation) -> tuple[Hashable, Any]:
        return self._specification.apply(state, operation.name, operation.arguments)

    def _lift(self, place: int) -> None:
        """Take the entries of an operation out of the list."""
        for entry in self._of[place]:
            if entry:
                self._next[self._previous[entry]] = self._next[entry]
                self._previous[self._next[entry]] = self._previous[entry]

    def _put_back(self, place: int) -> None:
        """Undo the last `_lift` that has not been undone."""
        for entry in reversed(self._of[place]):
            if entry:
                self._next[self._previous[entry]] = entry
                self._previous[self._next[entry]] = entry
