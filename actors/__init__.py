"""Durable actors: ordinary classes whose state survives the process."""

import typing

from ._clock import Alarm, Clock, SystemClock
from ._codec import Codec, PickleCodec, codec_named
from ._define import durable_actor
from ._durable import CurrentActor, current_actor
from ._errors import (
    ActorCompleted,
    ActorNotFound,
    ActorQuarantined,
    AskTimeout,
    DefinitionError,
    ExtraNotInstalled,
    HandlerInterrupted,
    HostNotRunning,
    IdempotencyMismatch,
    InvalidKey,
    KeyTooLong,
    MailboxFull,
    NotDeserializable,
    NotDurable,
    NotInActor,
    NotSerializable,
    QueryChangedState,
    RemoteError,
    RuntimeNotRunning,
    TurnDidNotEnd,
    UnknownActorType,
    UnknownHandler,
    VersionMismatch,
    WorkerDied,
    WrongArguments,
)
from ._ids import ActorId
from ._info import ActorInfo, DeadLetterInfo
from ._marks import Event, Query, Signal, Transient, Waits, on_activate, on_event, on_signal, query, signal
from ._policy import Retry
from ._records import Cursor
from ._ref import ActorRef, send_signal
from ._renames import Placeholder, rename
from ._runtime import Runtime

if typing.TYPE_CHECKING:
    from ._client import Client
    from ._named import NamedRef

__all__ = [
    "ActorCompleted",
    "ActorId",
    "ActorInfo",
    "ActorNotFound",
    "ActorQuarantined",
    "ActorRef",
    "Alarm",
    "AskTimeout",
    "Client",
    "Clock",
    "Codec",
    "CurrentActor",
    "Cursor",
    "DeadLetterInfo",
    "DefinitionError",
    "Event",
    "ExtraNotInstalled",
    "HandlerInterrupted",
    "HostNotRunning",
    "IdempotencyMismatch",
    "InvalidKey",
    "KeyTooLong",
    "MailboxFull",
    "NamedRef",
    "NotDeserializable",
    "NotDurable",
    "NotInActor",
    "NotSerializable",
    "PickleCodec",
    "Placeholder",
    "Query",
    "QueryChangedState",
    "RemoteError",
    "Retry",
    "Runtime",
    "RuntimeNotRunning",
    "Signal",
    "SystemClock",
    "Transient",
    "TurnDidNotEnd",
    "UnknownActorType",
    "UnknownHandler",
    "VersionMismatch",
    "Waits",
    "WorkerDied",
    "WrongArguments",
    "codec_named",
    "current_actor",
    "durable_actor",
    "on_activate",
    "on_event",
    "on_signal",
    "query",
    "rename",
    "send_signal",
    "signal",
]


def __getattr__(name: str) -> object:
    if name not in {"Client", "NamedRef"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import _client, _named  # a host needs no client's parts: 8 ms

    return _client.Client if name == "Client" else _named.NamedRef
