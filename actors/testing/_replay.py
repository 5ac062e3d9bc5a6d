"""Histories replayed: what an actor did, run again by the code of today, without a store and without a host.

No step runs and no message is sent: whatever was asked for then is given what came of it then.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar, final

from ...storage import Batch, Entry, Range
from .._activation import Activation
from .._define import definition_of
from .._ids import ActorId
from .._past import Past, Stretch, read_past_file
from .._persistence import put_checkpoint, put_log_entry
from .._records import Snapshot, Standing, Status
from .._registry import Registry
from .._replaying import Replayer
from .._version_errors import VersionMismatch
from .._versions import version_for
from ..ops._standins import Resources, ResourceUsed
from ..ops._upgrade import Hearing

T = TypeVar("T")


@final
class Replayed(NamedTuple):
    """What a replay came to: how many `turns`, in how many `stretches` from one that began to wait to one after which nothing waited.

    `passed_over` are stretches of versions that the class does not replay, and that are over. `warnings` are what a host would have
    logged: where the code now asks with other arguments, or leads to another state, and would go on all the same.
    """

    turns: int
    stretches: int
    passed_over: int
    warnings: tuple[str, ...]


Replayed.__module__ = "perdure.actors.testing"


def replay_history(path: str | os.PathLike[str], *actors: type, resources: Mapping[str, Any] | None = None) -> Replayed:
    """Run what `perdure export-history` has written against the class of today: every stretch in which the actor's code waited.

    `actors` are its class, and older versions of that, if they are still hosted. The types that it spawns or sends to are found by
    themselves if they are at the top of their modules; else all of them are given, as to a host. So are `resources` that its code uses.
    It is called plainly, wherever: no event loop is needed, and one that runs is not used.

    Raises NonDeterminismError where the code asks for something else than it did then, ActorQuarantined where it leads to a state of
    another shape, VersionMismatch where it does not go on with what its versions wrote, MigrationFailed, and whatever the code raises that
    it did not raise then; UnknownActorType for another type's history, and ExportUnreadable. The file is trusted as a store is: it holds
    pickles, if the actor's codec makes them.
    """
    past = read_past_file(path)
    definitions = [definition_of(actor) for actor in actors]
    registry = Registry(definitions, grows=len({each.name for each in definitions}) == 1)
    registry.require(past.actor.type)
    lent = _Lent(registry, Resources() if resources is None else resources)
    with _hearing() as hearing:
        return _replay_all(past, lent)._replace(warnings=tuple(hearing.heard))


def replay_past(past: Past, registry: Registry, resources: Mapping[str, Any]) -> Replayed:
    """The same for what a store has of an actor; nothing is heard of what a host would have logged. Raises as `replay_history`."""
    return _replay_all(past, _Lent(registry, resources))


@final
class _Lent(NamedTuple):
    """What the turns are lent."""

    registry: Registry
    resources: Mapping[str, Any]


@final
class _Rows:
    """A batch, read."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    async def read(self, keys: list[bytes]) -> list[bytes | None]:
        """As `Reads.read`."""
        return [self._batch.puts.get(key) for key in keys]

    async def scan(self, _: Range, /, *, limit: int, reverse: bool = False) -> list[Entry]:
        """As `Reads.scan`; a replay does not."""
        return []


@contextmanager
def _hearing() -> Iterator[Hearing]:
    logger, hearing, here = logging.getLogger("perdure.actors"), Hearing(), threading.get_ident()
    hearing.addFilter(lambda record: record.thread == here)
    was = logger.level, logger.disabled, logger.propagate, logger.manager.disable
    logger.propagate = logger.propagate and logger.isEnabledFor(logging.WARNING)
    hearing.listen(logger)  # what a replay finds is not for whoever has configured logging to say
    try:
        yield hearing
    finally:
        logger.removeHandler(hearing)
        logger.setLevel(was[0])
        _, logger.disabled, logger.propagate, disabled = was
        logging.disable(disabled)


def _replay_all(past: Past, lent: _Lent) -> Replayed:
    turns = stretches = 0
    unfit: list[VersionMismatch] = []
    for stretch in past.stretches():
        try:
            _drive(_replay(past.actor, stretch, lent))
            turns, stretches = turns + len(stretch.rows), stretches + 1
        except VersionMismatch as mismatch:
            if stretch.is_open:
                raise
            unfit.append(mismatch)
        except Exception as error:
            if isinstance(lent.resources, Resources) and lent.resources.used:
                raise ResourceUsed(lent.resources.used[0]) from error
            raise
    if unfit and not stretches:  # else a test that replays nothing would pass
        raise unfit[-1]
    return Replayed(turns, stretches, len(unfit), ())


def _drive(work: Coroutine[Any, Any, None]) -> None:
    """Run what waits for nothing but its turn."""
    with suppress(StopIteration):
        while True:
            work.send(None)


def _unguarded(_: Activation, work: Callable[[], T]) -> T:
    return work()


async def _replay(actor: ActorId, stretch: Stretch, lent: _Lent) -> None:
    first, last = stretch.rows[0], stretch.rows[-1]
    assert first.before is not None
    versions = stretch.versions
    snapshot = Snapshot(
        stretch.incarnation(actor),
        versions[0],
        Status.SUSPENDED,
        0,
        0,
        last.entry.number,
        first.entry.time,
        last.entry.time,
        stretch.state or b"",
        None,
        Standing(logged=len(stretch.rows), past=versions[1:]),
    )
    activation = Activation(actor, version_for(lent.registry, actor, snapshot))
    activation.install(snapshot, None)
    rows = Batch()
    put_checkpoint(rows, activation.suffix, first.before)
    for place, entry in enumerate(stretch.log):
        put_log_entry(rows, activation.suffix, place, entry)
    await Replayer(_Rows(rows), lent, _unguarded).replay(activation)
    activation.forget_instance()
