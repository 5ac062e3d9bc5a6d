"""Replay: bringing back the coroutines of a suspended actor, from the state before they began and the messages since.

The code runs as it ran first, and is held to what it asked for then; nothing that it asks for happens again. Then the state must be what
it was: where it is not, the actor's code depends on something that is not recorded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final, Protocol, TypeVar, final

from ._activation import Activation
from ._comparison import StateDiffers
from ._coroutines import Coroutines
from ._errors import ActorQuarantined
from ._journal import Recorded
from ._persistence import Reads, read_checkpoint, read_log
from ._records import Checkpoint, LogEntry, Snapshot
from ._standing import anyio_version, log_too_long, python_version
from ._taking import migrate, replay_turn, revive
from ._turn import Surroundings, Turn
from ._version_errors import MigrationFailed
from ._versions import is_outdated

T = TypeVar("T")


class Guard(Protocol):
    """Runs a piece of the user's code."""

    def __call__(self, activation: Activation, work: Callable[[], T], /) -> T:
        """What the work returns, or raises."""
        ...


SLICE: Final = 0.002  # seconds of replay before the host's loop gets a chance
AT_ONCE: Final = 256  # entries of a log that are read at once

MENDED: Final = "%s: after replay %s was not what it had been, and was set to that: something read the clock, chance or the world"

logger = logging.getLogger("perdure.actors")


@final
class Replayer:
    """Rebuilds what waits of actors. `guarded` runs a slice of it: the user's code may hang, or end the process."""

    __slots__ = ("_guarded", "_reads", "_stopwatch", "_surroundings")

    def __init__(
        self, reads: Reads, surroundings: Surroundings, guarded: Guard, stopwatch: Callable[[], float] = time.perf_counter
    ) -> None:
        self._reads = reads
        self._surroundings = surroundings
        self._guarded = guarded
        self._stopwatch = stopwatch

    async def replay(self, activation: Activation) -> None:
        """Give a suspended actor its instance and coroutines back.

        Raises NonDeterminismError, ActorQuarantined where the state differs, DamagedRecord, and what the code did not raise then.
        """
        snapshot = activation.snapshot
        assert snapshot is not None
        too_long = log_too_long(activation)
        if too_long is not None:
            raise too_long
        checkpoint = await read_checkpoint(self._reads, activation.suffix)
        coroutines = Coroutines()
        try:
            time = await self._time_of(activation, checkpoint)
            turn = Turn(activation.definition, activation.actor, snapshot.incarnation, 0, time, self._surroundings, read_only=True)
            state = self._state_today(activation, checkpoint.snapshot, coroutines)
            expected = self._state_today(activation, snapshot, coroutines)
            instance = self._guarded(activation, partial(revive, activation.definition, state, turn, coroutines))
            async for entries in self._log(activation):
                while entries:
                    self._guarded(activation, partial(self._handle_some, activation, instance, entries, coroutines))
                    if entries:
                        await asyncio.sleep(0)
            self._compare(activation, instance, expected)
        except BaseException as error:
            coroutines.evict()
            if isinstance(error, ActorQuarantined):
                _warn_of_versions(activation, checkpoint)
            raise
        activation.adopt(instance, coroutines)

    def _state_today(self, activation: Activation, before: Snapshot | None, coroutines: Coroutines) -> bytes:
        """The state of a snapshot; of another version it is migrated, where there is a path.

        Only for this replay: what is stored stays as it was until a turn is taken, so that the code of before can still take it back.
        """
        if before is None or not before.state:
            return b""
        definition = activation.definition
        if before.version != definition.version and definition.migrations.lead_from(before.version):
            work = partial(migrate, definition, activation.actor, before, self._surroundings, coroutines)
            before = self._guarded(activation, work)
        return before.state

    async def _log(self, activation: Activation) -> AsyncIterator[deque[LogEntry]]:
        logged = activation.standing.logged
        for start in range(0, logged, AT_ONCE):
            if start:
                await asyncio.sleep(0)  # reading does not wait
            yield deque(await read_log(self._reads, activation.suffix, start, min(start + AT_ONCE, logged)))

    async def _time_of(self, activation: Activation, checkpoint: Checkpoint) -> float:
        """When the instance was as the checkpoint has it: one without a state was made for the first turn of the log."""
        if checkpoint.snapshot is not None and checkpoint.snapshot.state:
            return checkpoint.snapshot.updated
        (first,) = await read_log(self._reads, activation.suffix, 0, 1)
        return first.time

    def _handle_some(self, activation: Activation, instance: object, entries: deque[LogEntry], coroutines: Coroutines) -> None:
        """Take entries until there are none, or the slice is over. To guard each by itself would cost a fifth (benchmarks/replay.py)."""
        end = self._stopwatch() + SLICE
        while entries:
            self._handle(activation, instance, entries.popleft(), coroutines)
            if self._stopwatch() > end:
                return

    def _handle(self, activation: Activation, instance: object, entry: LogEntry, coroutines: Coroutines) -> None:
        assert activation.snapshot is not None
        recorded = Recorded(activation.actor, entry)
        turn = Turn(
            activation.definition,
            activation.actor,
            activation.snapshot.incarnation,
            entry.number,
            entry.time,
            self._surroundings,
            entry.seq,
            entry.envelope.headers,
            recorded=recorded,
        )
        turn.attempt = entry.attempt
        replay_turn(activation.definition, instance, entry, turn, coroutines)

    def _compare(self, activation: Activation, instance: object, expected: bytes) -> None:
        definition = activation.definition
        if not expected or definition.encode_state(instance) == expected:  # of what was broken off, nobody knows what it had come to
            return
        try:
            patched = definition.mend_state(instance, expected)
        except StateDiffers as differs:
            raise _refusal(activation, differs) from None
        for path in patched:
            logger.warning(
                MENDED,
                activation.actor,
                path,
            )


def _refusal(activation: Activation, differs: StateDiffers) -> ActorQuarantined:
    """What a difference is put down to: of a migrated state to that, so that a mended migration ends it, or the version of before."""
    snapshot, definition = activation.snapshot, activation.definition
    assert snapshot is not None
    if not is_outdated(snapshot, definition):
        return ActorQuarantined(activation.actor, str(differs))
    text = f"{differs} that was migrated: what __init__ makes for its first message, or a migration for a later one, has to lead there"
    return MigrationFailed(activation.actor, snapshot.version, definition.version, text)


def _warn_of_versions(activation: Activation, checkpoint: Checkpoint) -> None:
    ours, theirs = (python_version(), anyio_version()), (checkpoint.python, checkpoint.anyio)
    if ours != theirs:
        logger.error(
            "%s waits since Python %s with anyio %s, and is replayed under Python %s with anyio %s: there it may go on",
            activation.actor,
            *theirs,
            *ours,
        )
