"""The processes that check actors, each with the store and the module to itself, and the one that hands them out.

What an actor's code does to a process is that actor's finding: one that ends it, or does not come back, costs the others nothing.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Final, NamedTuple, final

import anyio
import anyio.lowlevel

from ...storage import PerdureError, Store, StoreError, open_store
from .._envelope import Envelope
from .._ids import ActorId
from .._persistence import scan_actors, scan_arrivals, scan_work
from .._records import ArrivalRow
from .._registry import Registry
from .._watchdog import Watchdog
from ._serving import actor_classes, import_named
from ._upgrade import Checked, Checker, Concern, Finding, Hearing, Verdict
from ._upgrade_report import Report

AT_ONCE: Final = 256  # actors that a worker is given
LOOK: Final = 0.2  # seconds between looks at workers of which nothing is heard
OVERDUE: Final = 3  # times the limit without a sign of life, and a worker is ended: beyond twice, it ends itself


@final
class CheckFailed(PerdureError):
    """The check itself came to nothing. `module` is what was to be checked, `problem` what happened."""

    def __init__(self, module: str, problem: str) -> None:
        super().__init__(module, problem)
        self.module = module
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.module}: {self.problem}"


@final
class Job(NamedTuple):
    """Actors to look at; their mail instead if `mail`, or the messages `arrivals` to them, one each."""

    actors: list[ActorId]
    mail: bool = False
    arrivals: list[Envelope] | None = None


@final
class Task(NamedTuple):
    """What every worker of a check is told: the store, the module, and how many seconds an actor may take."""

    url: str
    module: str
    limit: float


async def check_all(task: Task, jobs: int, report: Report, follow: Callable[[], None]) -> None:
    """Fill the report, with so many processes; `follow` is called whenever it has grown. Raises CheckFailed, and what the store raises."""
    async with _opened(task.url) as store:
        crew = _Crew(task, jobs, report)
        try:
            await crew.run(_jobs(store), follow)
        finally:
            crew.close()


async def count_actors(url: str) -> int:
    """How many actors a store has."""
    async with _opened(url) as store:
        return sum([len(page) async for page in scan_actors(store, None, None, "")])


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Store]:
    store = open_store(url, create=False)
    try:
        yield store
    finally:
        await store.close()


async def _jobs(store: Store) -> AsyncIterator[Job]:
    async for page in scan_actors(store, None, None, ""):
        yield Job(page)
    some: list[ActorId] = []
    async for actor in scan_work(store):
        some.append(actor)
        if len(some) == AT_ONCE:
            yield Job(some, mail=True)
            some = []
    if some:
        yield Job(some, mail=True)
    async for _, row in scan_arrivals(store):
        if isinstance(row, ArrivalRow):
            yield Job([ActorId(row.type, row.key)], arrivals=[row.envelope])


# --- the one that hands out ---


@final
class _Crew:
    """The workers of one check."""

    def __init__(self, task: Task, jobs: int, report: Report) -> None:
        self._task = task
        self._jobs = jobs
        self._report = report
        self._workers: list[_Worker] = []

    async def run(self, jobs: AsyncIterator[Job], follow: Callable[[], None]) -> None:
        """Have all of it done."""
        more = True
        while more or any(worker.rest for worker in self._workers):
            worker = self._free() if more else None
            if worker is not None:
                job = await anext(jobs, None)
                more = job is not None
                if job is not None:
                    worker.give(job)
                continue
            self._hear()
            follow()
            await anyio.lowlevel.checkpoint()  # somebody may have had enough

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join()

    def _free(self) -> _Worker | None:
        for worker in self._workers:
            if not worker.rest:
                return worker
        if len(self._workers) == self._jobs:
            return None
        self._workers.append(_Worker(self._task))
        return self._workers[-1]

    def _hear(self) -> None:
        busy = [worker for worker in self._workers if worker.rest]
        spoken = wait([worker.connection for worker in busy], LOOK)
        for worker in busy:
            if worker.connection in spoken:
                for checked in worker.hear():
                    self._report.add(checked)
            elif worker.is_overdue:
                worker.kill()  # which is heard of next


@final
class _Worker:
    """A process, and what it has still to do; another process takes over where one has ended."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.rest: Job | None = None
        self._start()

    def give(self, job: Job) -> None:
        """Have it look at some actors."""
        self._heard = time.monotonic()
        self.rest = job if job.actors else None
        with suppress(OSError):  # it has ended, which is heard of when it is listened to
            self.connection.send(job)

    @property
    def is_overdue(self) -> bool:
        """Whether nothing was heard of it for so long that nothing will be."""
        return self._is_ready and time.monotonic() - self._heard > OVERDUE * self._task.limit

    def hear(self) -> Iterator[Checked]:
        """What it has said. Raises CheckFailed where it cannot read the store, or has ended before it could begin."""
        try:
            while self.rest is not None and self.connection.poll():
                said: Checked | str | None = self.connection.recv()
                self._heard, self._is_ready = time.monotonic(), True
                if isinstance(said, str):
                    raise CheckFailed(self._task.module, said)
                if said is not None:
                    self._go_on()
                    yield said
        except (EOFError, OSError):
            yield self._replace()

    def kill(self) -> None:
        """End the process."""
        self._process.kill()

    def join(self) -> None:
        """Wait for the end of the process, and let go of it."""
        self._process.join()
        self._process.close()
        self.connection.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy an open store
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, self._task), name="perdure-check", daemon=True)
        self._process.start()
        theirs.close()
        self._is_ready, self._heard = False, time.monotonic()

    def _go_on(self) -> None:
        rest = self.rest
        assert rest is not None
        rest = Job(rest.actors[1:], rest.mail, None if rest.arrivals is None else rest.arrivals[1:])
        self.rest = rest if rest.actors else None

    def _replace(self) -> Checked:
        """Have another process go on behind the actor at which this one has ended."""
        self._process.kill()
        self._process.join()
        ended = _ending(self._process.exitcode)
        if not self._is_ready or self.rest is None:
            problem = f"a process that was to check actors {ended} before it could begin: see what it has printed"
            raise CheckFailed(self._task.module, problem)
        deadly, is_state = self.rest.actors[0], not self.rest.mail and self.rest.arrivals is None
        self._go_on()
        rest = self.rest
        self.join()
        self._start()
        if rest is not None:
            self.give(rest)
        text = f"its code ends the process that runs it, or does not come back: the one that checked it {ended}"
        return Checked(Verdict.QUARANTINED if is_state else None, [Finding(Concern.QUARANTINED, deadly, 0, 0, "process", text)])


def _ending(status: int | None) -> str:
    if status is not None and status < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


# --- a worker ---


def work(connection: Connection, task: Task) -> None:
    """Look at what comes by the connection, until that ends: the work of a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that hands out hears it
    sys.stdout = sys.stderr  # the other belongs to the report
    registry = Registry.of_classes(actor_classes(import_named(task.module)))
    hearing = _be_quiet()
    watchdog = Watchdog(task.limit)
    watchdog.start()
    try:
        with suppress(EOFError, BrokenPipeError):
            anyio.run(_work, connection, task.url, registry, watchdog, hearing)
    finally:
        watchdog.stop()


def _be_quiet() -> Hearing:
    """Silence what is said again on replay, and what the host would warn of; that is told with the actor it is about."""
    warnings.simplefilter("ignore")
    logging.getLogger().handlers = [logging.NullHandler()]
    ours, hearing = logging.getLogger("perdure"), Hearing()
    ours.propagate, ours.handlers = False, [logging.NullHandler()]
    hearing.listen(heard := logging.getLogger("perdure.actors"))
    heard.handlers = [hearing]
    return hearing


async def _work(connection: Connection, url: str, registry: Registry, watchdog: Watchdog, hearing: Hearing) -> None:
    async with _opened(url) as store:
        checker = Checker(store, registry, watchdog, hearing, lambda: connection.send(None))
        connection.send(None)
        while True:
            job: Job = connection.recv()
            for place, actor in enumerate(job.actors):
                try:
                    said: Checked | str = await _look(checker, job, place, actor)
                except StoreError as error:
                    said = str(error)
                connection.send(said)


async def _look(checker: Checker, job: Job, place: int, actor: ActorId) -> Checked:
    if job.arrivals is not None:
        return await checker.check_arrival(actor, job.arrivals[place])
    return await (checker.check_mail(actor) if job.mail else checker.check(actor))
