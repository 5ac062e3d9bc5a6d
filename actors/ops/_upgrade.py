"""Whether the code of today goes on with the actors of a store: each is brought into memory as a host would do it, and let go of.

Nothing is written, and nothing that an actor's code asks for happens: no step runs, no message is sent. What changes while it is read,
since a host runs, is read again.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar, final

from ...storage import Entry
from .._activation import Activation
from .._calls import Call
from .._coroutines import Coroutines
from .._define import Definition
from .._envelope import STARTS, Envelope, Kind
from .._errors import ActorQuarantined, NonDeterminismError, UnknownActorType
from .._failure import Failure
from .._ids import ActorId
from .._performance import stops_its_actor
from .._persistence import Reads, Stored, Table, below_actor, read_actors, read_requests, scan_pages
from .._records import MAILBOX_ROW, NOTHING, DamagedRecord, MailboxRow, RequestKind, Snapshot, Status
from .._registry import Registry
from .._replaying import Replayer
from .._step import find_step
from .._taking import migrate, revive
from .._turn import Turn
from .._upgrades import is_of_versions
from .._version_errors import GOES_ON
from .._versions import is_outdated, version_for
from .._watchdog import Watchdog
from ._standins import Resources

ATTEMPTS: Final = 20  # at an actor that goes on while it is looked at
BEAT: Final = 1.0  # seconds between signs of life from an actor that takes its time

_OURS: Final = str(Path(__file__).parents[1])

T = TypeVar("T")


@final
class Verdict(StrEnum):
    """What becomes of an actor under the code of today."""

    GOES_ON = "goes on"
    MIGRATES = "migrates"
    QUARANTINED = "quarantined"
    STANDS_STILL = "stands still"  # already, for a cause that is none of the versions
    ENDED = "ended"
    UNSERVED = "unserved"
    UNCHECKED = "unchecked"


@final
class Concern(StrEnum):
    """What a finding is about."""

    QUARANTINED = "would be quarantined"
    STOPPED = "would be quarantined at a message"
    PUT_ASIDE = "would be put aside"  # a message
    UNSERVED = "would wait for a host that serves their type"
    STEP = "would wait for a step that is gone"
    UNREADABLE = "could not be queried any more"
    WARNED = "would go on, with a warning"
    UNCHECKED = "could not be checked"

    @property
    def is_refusal(self) -> bool:
        """Whether it is a reason not to deploy."""
        return self in {Concern.QUARANTINED, Concern.STOPPED, Concern.PUT_ASIDE}


@final
class Finding(NamedTuple):
    """Something about one actor that whoever deploys should know.

    `version` wrote its past, `target` is the newest that is hosted (0: none). `error` names what went wrong, and `text` says it. `name` is
    of the handler, timer or step; `then` and `now` are what it asked for when it first ran, and on replay.
    """

    concern: Concern
    actor: ActorId
    version: int
    target: int
    error: str
    text: str
    name: str = ""
    then: tuple[str, ...] = ()
    now: tuple[str, ...] = ()


@final
class Checked(NamedTuple):
    """What was found of one actor; `verdict` is None where it was not the actor itself that was looked at, or it has been deleted."""

    verdict: Verdict | None
    findings: list[Finding]


NOTHING_FOUND: Final = Checked(None, [])
UNSERVED: Final = """no class of the module has that name. If one has it under another, it keeps what is stored so:
    @durable_actor(name="{}")"""


@final
class Lent(NamedTuple):
    """What a check lends to the turns that it replays."""

    registry: Registry
    resources: Resources


@final
class Hearing(logging.Handler):
    """Hears what replay warns of, to be told with the actor it is about."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []

    def listen(self, logger: logging.Logger) -> None:
        """Hear a logger, also where the user's configuration has silenced it, as `dictConfig` does with all that are there by default."""
        logging.disable(logging.NOTSET)
        logger.disabled = False
        logger.setLevel(self.level)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """As in `logging`."""
        self.heard.append(record.getMessage())


@final
class Checker:
    """Looks at actors, one at a time. `beat` is called about once a second while it does."""

    def __init__(self, reads: Reads, registry: Registry, watchdog: Watchdog, hearing: Hearing, beat: Callable[[], None]) -> None:
        self._reads = reads
        self._registry = registry
        self._watchdog = watchdog
        self._hearing = hearing
        self._beat = beat
        self._beaten = time.monotonic()
        self._lent = Lent(registry, Resources())
        self._replayer = Replayer(reads, self._lent, self._guarded)
        self._spare = Coroutines()

    # --- actors ---

    async def check(self, actor: ActorId) -> Checked:
        """What becomes of an actor."""
        for _ in range(ATTEMPTS):
            history = await self._history(actor)
            (stored,) = await read_actors(self._reads, [actor])
            checked = await self._look(actor, stored)
            if checked.verdict is not Verdict.QUARANTINED or await self._is_still(actor, stored, history):
                return checked
        text = f"it went on {ATTEMPTS} times while it was looked at"
        return Checked(Verdict.UNCHECKED, [self._finding(Concern.UNCHECKED, actor, None, "", text)])

    async def _look(self, actor: ActorId, stored: Stored | DamagedRecord) -> Checked:
        if isinstance(stored, DamagedRecord):
            return self._quarantined(actor, None, stored)
        snapshot = stored.snapshot
        if snapshot is None:
            return NOTHING_FOUND
        if not self._registry.serves(actor.type):
            return Checked(Verdict.UNSERVED, [self._unserved(actor, snapshot)])
        if stored.quarantine is not None and not is_of_versions(stored.quarantine.failure):
            return Checked(Verdict.STANDS_STILL, [])
        self._lent.resources.used.clear()
        self._hearing.heard.clear()
        try:
            verdict, definition = await self._bring_back(actor, snapshot)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  it runs the user's code
            return self._refused(actor, snapshot, error)
        findings = [] if snapshot.status.is_end else await self._concerns(actor, snapshot, definition)
        return Checked(verdict, findings)

    async def _bring_back(self, actor: ActorId, snapshot: Snapshot) -> tuple[Verdict, Definition]:
        definition = version_for(self._registry, actor, snapshot)
        verdict = Verdict.MIGRATES if is_outdated(snapshot, definition) else Verdict.GOES_ON
        if snapshot.status is Status.SUSPENDED:
            await self._replay(definition, actor, snapshot)
            return verdict, definition
        if verdict is Verdict.MIGRATES:
            snapshot = self._run(actor, partial(migrate, definition, actor, snapshot, self._lent))
        turn = Turn(definition, actor, snapshot.incarnation, 0, snapshot.updated, self._lent, read_only=True)
        self._run(actor, partial(revive, definition, snapshot.state, turn))
        return Verdict.ENDED if snapshot.status.is_end else verdict, definition

    async def _replay(self, definition: Definition, actor: ActorId, snapshot: Snapshot) -> None:
        activation = Activation(actor, definition)
        activation.install(snapshot, None)
        await self._replayer.replay(activation)
        self._guarded(activation, activation.forget_instance)

    async def _history(self, actor: ActorId) -> list[Entry]:
        """Where its log begins."""
        return await self._reads.scan(below_actor(Table.CHECKPOINT, actor), limit=1)

    async def _is_still(self, actor: ActorId, before: Stored | DamagedRecord, history: list[Entry]) -> bool:
        """Whether what was read of a suspended actor, at several moments, was of one history: then only its log may have grown."""
        if isinstance(before, DamagedRecord) or before.snapshot is None or before.snapshot.status is not Status.SUSPENDED:
            return True  # it was one record
        (after,) = await read_actors(self._reads, [actor])
        if isinstance(after, DamagedRecord) or after.snapshot is None or after.snapshot.status is not Status.SUSPENDED:
            return False
        return after.snapshot.incarnation == before.snapshot.incarnation and await self._history(actor) == history

    # --- what is said of them ---

    def _refused(self, actor: ActorId, snapshot: Snapshot, error: BaseException) -> Checked:
        if self._lent.resources.used:
            text = f"its code uses the resource {self._lent.resources.used[0]!r}, which only a host has"
            return Checked(Verdict.UNCHECKED, [self._finding(Concern.UNCHECKED, actor, snapshot, "", text)])
        if not (snapshot.status.is_end or (snapshot.standing or NOTHING).is_waiting):
            return self._quarantined(actor, snapshot, error)
        verdict = Verdict.ENDED if snapshot.status.is_end else Verdict.GOES_ON
        return Checked(verdict, [self._finding(Concern.UNREADABLE, actor, snapshot, type(error).__name__, text_of(error))])

    def _quarantined(self, actor: ActorId, snapshot: Snapshot | None, error: BaseException) -> Checked:
        text = "\n".join([text_of(error), *self._heard(actor)])
        finding = self._finding(Concern.QUARANTINED, actor, snapshot, type(error).__name__, text)
        if isinstance(error, NonDeterminismError):
            finding = finding._replace(name=error.handler, then=error.then, now=error.now)
        return Checked(Verdict.QUARANTINED, [finding])

    def _unserved(self, actor: ActorId, snapshot: Snapshot) -> Finding:
        return self._finding(Concern.UNSERVED, actor, snapshot, "", UNSERVED.format(actor.type))

    async def _concerns(self, actor: ActorId, snapshot: Snapshot, definition: Definition) -> list[Finding]:
        """What is wrong with an actor that goes on."""
        found = [self._finding(Concern.WARNED, actor, snapshot, "", said) for said in self._heard(actor)]
        for timer in (snapshot.standing or NOTHING).timers:
            problem = self._problem(actor, partial(definition.timer, timer.name))
            if problem is not None:
                found.append(self._put_aside(actor, snapshot, f"timer {timer.name}", problem))
        if snapshot.status is Status.SUSPENDED:
            found += await self._lost_steps(actor, snapshot)
        return found

    async def _lost_steps(self, actor: ActorId, snapshot: Snapshot) -> list[Finding]:
        found: list[Finding] = []
        for row in await read_requests(self._reads, actor):
            problem = self._problem(actor, partial(find_step, row.name)) if row.kind is RequestKind.STEP else None
            if problem is not None:
                found.append(self._finding(Concern.STEP, actor, snapshot, "", str(problem))._replace(name=f"step {row.name}"))
        return found

    def _heard(self, actor: ActorId) -> list[str]:
        """What was warned of, in words that are the same for all actors."""
        return [said.removeprefix(f"{actor}: ").replace(str(actor), "it") for said in self._hearing.heard]

    def _finding(self, concern: Concern, actor: ActorId, snapshot: Snapshot | None, error: str, text: str) -> Finding:
        versions = self._registry.versions(actor.type)
        version = 0 if snapshot is None else snapshot.version
        return Finding(concern, actor, version, versions[0].version if versions else 0, error, text)

    def _put_aside(self, actor: ActorId, snapshot: Snapshot | None, name: str, error: BaseException) -> Finding:
        return self._finding(Concern.PUT_ASIDE, actor, snapshot, type(error).__name__, text_of(error))._replace(name=name)

    # --- messages ---

    async def check_mail(self, actor: ActorId) -> Checked:
        """Which of the messages in an actor's mailbox could not be handled."""
        snapshot, definition = await self._who_handles(actor)
        if definition is None:
            return NOTHING_FOUND
        found: list[Finding] = []
        async for entries in scan_pages(self._reads, below_actor(Table.MAILBOX, actor)):
            rows = [MAILBOX_ROW.read(entry.value) for entry in entries]
            envelopes = [row.envelope for row in rows if isinstance(row, MailboxRow)]
            found += self._unfit(actor, snapshot, definition, envelopes)
        return Checked(None, found)

    async def check_arrival(self, actor: ActorId, envelope: Envelope) -> Checked:
        """Whether a message could be handled that is not in its actor's mailbox yet."""
        if not self._registry.serves(actor.type):
            error = UnknownActorType(actor.type, [definition.name for definition in self._registry])
            return Checked(None, [self._put_aside(actor, None, _said(envelope), error)])
        snapshot, definition = await self._who_handles(actor)
        return NOTHING_FOUND if definition is None else Checked(None, self._unfit(actor, snapshot, definition, [envelope]))

    async def _who_handles(self, actor: ActorId) -> tuple[Snapshot | None, Definition | None]:
        """The snapshot and version of an actor that handles messages; no version for one that does not, which has been said."""
        (stored,) = await read_actors(self._reads, [actor])
        if isinstance(stored, DamagedRecord) or (stored.snapshot is not None and stored.snapshot.status.is_end):
            return None, None
        try:
            return stored.snapshot, version_for(self._registry, actor, stored.snapshot)
        except (ActorQuarantined, UnknownActorType):
            return stored.snapshot, None

    def _unfit(self, actor: ActorId, snapshot: Snapshot | None, definition: Definition, envelopes: list[Envelope]) -> list[Finding]:
        found: list[Finding] = []
        for envelope in envelopes:
            problem = self._problem(actor, partial(_bind, definition, envelope))
            if problem is not None:
                finding = self._put_aside(actor, snapshot, _said(envelope), problem)
                found.append(finding._replace(concern=Concern.STOPPED) if stops_its_actor(envelope.kind, problem) else finding)
        return found

    # --- the user's code ---

    def _run(self, actor: ActorId, work: Callable[[Coroutines], T]) -> T:
        """Have code run that may leave nothing behind."""
        spare = self._spare
        try:
            return self._guard(actor, partial(work, spare))
        finally:
            if not spare.at_rest:
                self._spare = Coroutines()
                spare.evict()

    def _problem(self, actor: ActorId, work: Callable[[], object]) -> BaseException | None:
        try:
            self._guard(actor, work)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  decoding runs the user's code
            return error
        return None

    def _guarded(self, activation: Activation, work: Callable[[], T]) -> T:
        return self._guard(activation.actor, work)

    def _guard(self, actor: ActorId, work: Callable[[], T]) -> T:
        now = time.monotonic()
        if now - self._beaten > BEAT:
            self._beaten = now
            self._beat()
        return self._watchdog.guard((actor, "the way into memory"), work)


def text_of(error: BaseException) -> str:
    """What is wrong, the line to write, and where it is if that is in the user's code; without what need not be said before a deploy."""
    if isinstance(error, ActorQuarantined):
        whole = str(error)
        said = whole.removeprefix(f"{error.actor} is quarantined: ").removesuffix(GOES_ON) if whole.endswith(GOES_ON) else error.cause
        return "\n".join([said.rstrip(), *_place(error.__cause__)])
    if isinstance(error, DamagedRecord):
        return f"its records are damaged: {error}"
    failure = Failure.of(error)
    return "\n".join([f"{failure.type_name.removeprefix('perdure.actors.')}: {failure.text}", *_place(error)])


def _place(error: BaseException | None) -> list[str]:
    """The line of the user's code that raised, if it was theirs."""
    frames = [] if error is None else traceback.extract_tb(error.__traceback__)
    return [f"    {each.filename}:{each.lineno}, in {each.name}" for each in frames[-1:] if not each.filename.startswith(_OURS)]


def _bind(definition: Definition, envelope: Envelope) -> None:
    """Raise what keeps a message from being handled."""
    call = _call_of(definition, envelope)
    if call is not None:
        call.decode(envelope.payload, envelope.form)


def _call_of(definition: Definition, envelope: Envelope) -> Call | None:
    """What of the user's code a message calls; None if it is for something that waits, or for the host."""
    match envelope.kind:
        case Kind.EVENT:
            return definition.event(envelope.name)
        case Kind.TIMER:
            return definition.timer(envelope.name)
        case Kind.SIGNAL:
            return definition.signal_handler(envelope.name)
        case Kind.DECLARED:
            return definition.declared(envelope.name)
        case kind if kind in STARTS:
            return definition.require_workflow()
        case _:
            return None


def _said(envelope: Envelope) -> str:
    return f"{envelope.kind.name.lower()} {envelope.name}"
