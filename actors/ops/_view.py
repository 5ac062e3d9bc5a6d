"""What a store holds, read without any code of the user's: types, actors, mailboxes, dead letters.

It reads what is durable, whether or not a host runs, and changes nothing. Nothing of the user's is unpickled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, NamedTuple, Self, cast, final

import msgspec

from ...storage import PerdureError, Store, StoreCorrupt, open_store, unpack
from .._catalogue import read_registry
from .._clock import SystemClock
from .._envelope import Envelope, Form
from .._errors import ActorNotFound, DeadLetterNotFound, UnknownActorType
from .._failure import Failure
from .._ids import ActorId, actor_id
from .._info import ActorInfo, DeadLetterInfo, dead_letter_info
from .._past import Past, read_past
from .._persistence import Table, below_actor, has_actors, read_actors, read_lane, scan_dead_letters
from .._query import read_info, scan_dead_letter_infos, scan_infos
from .._records import MAILBOX_ROW, DamagedRecord, Lane, Snapshot, status_named
from .._registry import RegistryEntry
from ._pickles import outline
from ._situation import Situation, keys_alike, read_host_state, read_situation
from ._tree import Name, Node, Plain, node_of

FIRST_MESSAGES: Final = 10  # of each lane that are shown


@final
class HistoryNotKept(PerdureError):
    """Nothing is kept of an actor's past."""

    def __init__(self, actor: ActorId) -> None:
        super().__init__(actor)
        self.actor = actor

    def __str__(self) -> str:
        return (
            f"{self.actor}: nothing of its past is kept. Say how many messages are to be, at least, and those that come are:\n"
            f"    @durable_actor(keep_history=10_000)"
        )


@final
class MessageView(NamedTuple):
    """A message that waits. `sent_at` in seconds since the epoch, `size` of its arguments in bytes."""

    seq: int
    kind: str
    name: str
    arguments: Node
    size: int
    sender: str | None
    key: str | None
    asked: bool
    sent_at: float


@final
class ActorView(NamedTuple):
    """All that is known of an actor. `events` and `interrupts` are the first that wait; `untaken` are signals that nobody waits for yet.

    `state` is None before the first turn, `problem` is why it is not shown whole, `quarantine` why the actor stands still.
    """

    info: ActorInfo
    codec: str
    state: Node | None
    state_size: int
    problem: str | None
    events: list[MessageView]
    interrupts: list[MessageView]
    untaken: list[MessageView]
    dead_letters: int
    quarantine: Failure | None
    raw_state: bytes


@final
class LetterView(NamedTuple):
    """A dead letter with its message's arguments and idempotency key."""

    info: DeadLetterInfo
    arguments: Node
    key: str | None


@final
class StoreView:
    """An open store, for reading. Use it with `async with`; raises StoreError for a store that is not there or damaged."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: Store | None = None

    def __repr__(self) -> str:
        return f"<StoreView of {self._url}>"

    async def __aenter__(self) -> Self:
        self._opened = open_store(self._url, create=False)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._opened is not None:
            await self._opened.close()

    @property
    def _store(self) -> Store:
        assert self._opened is not None, "a view is read inside `async with`"
        return self._opened

    async def types(self) -> list[RegistryEntry]:
        """The actor types that the last host served, in order of name and version."""
        return await read_registry(self._store)

    async def has_host(self) -> bool:
        """Whether a host answers at the door that the last one wrote down."""
        return bool((await read_host_state(self._store)).is_running)

    async def check_type(self, name: str) -> None:
        """Raise UnknownActorType, naming what there is, unless a host has served this type or actors of it exist."""
        known = dict.fromkeys(entry.name for entry in await self.types())
        if name not in known and not await has_actors(self._store, name):
            raise UnknownActorType(name, known)

    async def actors(self, type_name: str | None, status: str | None, prefix: str) -> AsyncIterator[ActorInfo]:
        """The infos of all actors that fit, in order of (type, key). Raises UnknownActorType; ValueError for an unknown status."""
        wanted = None if status is None else status_named(status)
        if type_name is not None:
            await self.check_type(type_name)
        async for info in scan_infos(self._store, type_name, wanted, prefix):
            if info.id.key.startswith(prefix):
                yield info

    async def actor(self, type_name: str, key: str) -> ActorView:
        """One actor. Raises UnknownActorType, ActorNotFound, KeyTooLong."""
        await self.check_type(type_name)
        actor = actor_id(type_name, key)
        try:
            info = await read_info(self._store, actor)
        except ActorNotFound:
            raise ActorNotFound(actor, await keys_alike(self._store, actor)) from None
        stored = (await read_actors(self._store, [actor]))[0]
        snapshot = None if isinstance(stored, DamagedRecord) else stored.snapshot
        codec = await self._codec(type_name, info.version)
        raw = b"" if snapshot is None else snapshot.state  # empty, too, if its first message has failed so far
        state, problem = _tree(codec, raw) if raw else (None, None)
        return ActorView(
            info=info,
            codec=codec,
            state=state,
            state_size=len(raw),
            problem=problem,
            events=await self._waiting(actor, Lane.EVENTS, codec, snapshot),
            interrupts=await self._waiting(actor, Lane.INTERRUPTS, codec, snapshot),
            untaken=await self._untaken(actor, codec),
            dead_letters=len([letter async for letter in scan_dead_letters(self._store, *actor)]),
            quarantine=None if isinstance(stored, DamagedRecord) or stored.quarantine is None else stored.quarantine.failure,
            raw_state=raw,
        )

    async def situation(self, type_name: str, key: str) -> Situation:
        """Why one actor does what it does, or nothing. Raises UnknownActorType, ActorNotFound, KeyTooLong."""
        await self.check_type(type_name)
        actor = actor_id(type_name, key)
        found = await read_situation(self._store, actor, await self.types(), SystemClock().now())
        if found.stand.status == "missing" and not found.arriving and not found.letters.counted:
            raise ActorNotFound(actor, await keys_alike(self._store, actor))
        return found

    async def past(self, type_name: str, key: str) -> Past:
        """What is kept of an actor's past. Raises UnknownActorType, ActorNotFound, HistoryNotKept."""
        await self.check_type(type_name)
        actor = actor_id(type_name, key)
        try:
            past = await read_past(self._store, actor)
        except DamagedRecord as damage:
            raise StoreCorrupt(self._url, f"the history of {actor} is damaged: {damage}") from damage
        if past is None:
            raise ActorNotFound(actor)
        if not past.rows:
            raise HistoryNotKept(actor)
        return past

    async def dead_letters(self, type_name: str | None, key: str | None) -> AsyncIterator[DeadLetterInfo]:
        """What could not be handled: of all actors, of a type, of one actor. Raises UnknownActorType."""
        found = False
        async for letter in scan_dead_letter_infos(self._store, type_name, key):
            found = True
            yield letter
        if type_name is not None and not found:  # what could not be read has letters, and is of no type
            await self.check_type(type_name)

    async def dead_letter(self, type_name: str, key: str, seq: int) -> LetterView:
        """One dead letter. Raises UnknownActorType; DeadLetterNotFound if the actor has none of that number."""
        actor = actor_id(type_name, key)
        codec = await self._codec(type_name, 0)
        async for _, number, letter in scan_dead_letters(self._store, *actor):
            if number == seq:
                envelope, info = letter.envelope, dead_letter_info(actor, seq, letter)
                return LetterView(info, _arguments(envelope, codec), envelope.key[0] if envelope.key else None)
        await self.check_type(type_name)
        raise DeadLetterNotFound(actor, seq)

    async def _codec(self, type_name: str, version: int) -> str:
        entries = [entry for entry in await self.types() if entry.name == type_name]
        exact = [entry for entry in entries if entry.version == version]
        return (exact or entries[-1:])[0].codec if entries else "pickle"

    async def _waiting(self, actor: ActorId, lane: Lane, codec: str, snapshot: Snapshot | None) -> list[MessageView]:
        after = 0
        if snapshot is not None:
            after = snapshot.event if lane is Lane.EVENTS else snapshot.interrupt
        try:
            items, _, _ = await read_lane(self._store, actor, lane, after)
        except DamagedRecord:
            return []  # its info says so
        return [_message(item.seq, item.envelope, codec) for item in items[:FIRST_MESSAGES]]

    async def _untaken(self, actor: ActorId, codec: str) -> list[MessageView]:
        entries = await self._store.scan(below_actor(Table.SIGNALS, actor), limit=FIRST_MESSAGES)
        rows = [(unpack(entry.key)[-1], MAILBOX_ROW.read(entry.value)) for entry in entries]
        return [_message(cast("int", seq), row.envelope, codec) for seq, row in rows if not isinstance(row, DamagedRecord)]


def _message(seq: int, envelope: Envelope, codec: str) -> MessageView:
    return MessageView(
        seq=seq,
        kind=envelope.kind.name.lower(),
        name=envelope.name,
        arguments=_arguments(envelope, codec),
        size=len(envelope.payload),
        sender=envelope.sender,
        key=None if envelope.key is None else envelope.key[0],
        asked=envelope.ask,
        sent_at=envelope.sent_at,
    )


def _arguments(envelope: Envelope, codec: str) -> Node:
    return _tree("msgspec-json" if envelope.form is Form.JSON else codec, envelope.payload)[0]


def _tree(codec: str, data: bytes) -> tuple[Node, str | None]:
    """What bytes of a codec hold, and why that is not all of it, if so."""
    if codec == "pickle":
        return outline(data)
    if codec not in _DECODERS:
        return Plain(data), f"only the program knows its codec {codec!r}"
    try:
        return node_of(_DECODERS[codec].decode(data)), None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Name(f"({len(data):,} bytes)"), f"it is damaged ({error})"


_DECODERS: Final = cast(
    "dict[str, msgspec.json.Decoder[object] | msgspec.msgpack.Decoder[object]]",
    {"msgspec": msgspec.msgpack.Decoder(), "msgspec-json": msgspec.json.Decoder()},
)
