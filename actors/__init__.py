"""Durable actors: ordinary classes whose state survives the process."""

import typing

from ._clock import Alarm, Clock, SystemClock
from ._codec import Codec, PickleCodec, codec_named
from ._define import durable_actor
from ._durable import CurrentActor, cancel_timer, continue_as_new, current_actor, emit, set_timer, wait_for_signal, wait_until
from ._errors import (
    ActorCompleted,
    ActorEvicted,
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
    NonDeterminismError,
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
from ._info import ActorInfo, DeadLetterInfo, StreamItem, TimerInfo, Waiting
from ._marks import (
    Event,
    Query,
    Signal,
    Timer,
    Transient,
    Waits,
    Workflow,
    on_activate,
    on_event,
    on_signal,
    on_timer,
    query,
    signal,
    workflow,
)
from ._outcome_errors import (
    ActorCancelled,
    ActorDeadlock,
    ActorFailed,
    DataLoss,
    SignalTimeout,
    StepFailed,
    WorkflowAlreadyStarted,
    WorkflowNotStarted,
)
from ._policy import Rate, Retry
from ._records import Cursor
from ._ref import ActorRef, Starter, WorkflowRef, send_signal
from ._renames import Placeholder, rename
from ._runtime import Runtime
from ._step import Step, StepInfo, step, step_info

if typing.TYPE_CHECKING:
    from ._client import Client
    from ._named import NamedRef

__all__ = [
    "ActorCancelled",
    "ActorCompleted",
    "ActorDeadlock",
    "ActorEvicted",
    "ActorFailed",
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
    "DataLoss",
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
    "NonDeterminismError",
    "NotDeserializable",
    "NotDurable",
    "NotInActor",
    "NotSerializable",
    "PickleCodec",
    "Placeholder",
    "Query",
    "QueryChangedState",
    "Rate",
    "RemoteError",
    "Retry",
    "Runtime",
    "RuntimeNotRunning",
    "Signal",
    "SignalTimeout",
    "Starter",
    "Step",
    "StepFailed",
    "StepInfo",
    "StreamItem",
    "SystemClock",
    "Timer",
    "TimerInfo",
    "Transient",
    "TurnDidNotEnd",
    "UnknownActorType",
    "UnknownHandler",
    "VersionMismatch",
    "Waiting",
    "Waits",
    "WorkerDied",
    "Workflow",
    "WorkflowAlreadyStarted",
    "WorkflowNotStarted",
    "WorkflowRef",
    "WrongArguments",
    "cancel_timer",
    "codec_named",
    "continue_as_new",
    "current_actor",
    "durable_actor",
    "emit",
    "on_activate",
    "on_event",
    "on_signal",
    "on_timer",
    "query",
    "rename",
    "send_signal",
    "set_timer",
    "signal",
    "step",
    "step_info",
    "wait_for_signal",
    "wait_until",
    "workflow",
]


def __getattr__(name: str) -> object:
    if name not in {"Client", "NamedRef"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import _client, _named  # a host needs no client's parts: 8 ms

    return _client.Client if name == "Client" else _named.NamedRef
