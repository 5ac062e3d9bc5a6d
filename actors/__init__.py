"""Durable actors: ordinary classes whose state survives the process."""

import typing

from ._children import spawn
from ._clock import Alarm, Clock, SystemClock
from ._codec import Codec, PickleCodec, codec_named
from ._define import durable_actor
from ._durable import CurrentActor, cancel_timer, continue_as_new, current_actor, emit, patched, set_timer, wait_for_signal, wait_until
from ._errors import (
    ActorCompleted,
    ActorEvicted,
    ActorNotFound,
    ActorQuarantined,
    AskTimeout,
    DeadLetterNotFound,
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
    PayloadTooLong,
    QueryChangedState,
    RemoteError,
    RuntimeNotRunning,
    TurnDidNotEnd,
    UnknownActorType,
    UnknownHandler,
    WorkerDied,
    WrongArguments,
)
from ._ids import ActorId
from ._info import ActorInfo, ChildExit, ChildInfo, DeadLetterInfo, StreamItem, TimerInfo, Waiting
from ._marks import (
    Event,
    Query,
    Signal,
    Timer,
    Transient,
    Waits,
    Workflow,
    migrate,
    on_activate,
    on_child_exit,
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
    ChildFailed,
    CompensationFailed,
    DataLoss,
    SignalTimeout,
    StepFailed,
    WorkflowAlreadyStarted,
    WorkflowNotStarted,
)
from ._policy import Backoff, OneForAll, OneForOne, Rate, RestForOne, Retry, Supervision
from ._records import Cursor
from ._ref import ActorRef, Starter, WorkflowRef, send_signal
from ._renames import Placeholder, rename
from ._runtime import Runtime
from ._saga import Saga, saga
from ._step import Compensated, Step, StepInfo, Unknown, UnknownOutcome, step, step_info
from ._version_errors import MigrationFailed, VersionMismatch

if typing.TYPE_CHECKING:
    from ._archive import ExportUnreadable
    from ._client import Client
    from ._moving import ActorsExist, Moved, export_actors, import_actors
    from ._named import NamedRef
    from ._past import HistoryEntry

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
    "ActorsExist",
    "Alarm",
    "AskTimeout",
    "Backoff",
    "ChildExit",
    "ChildFailed",
    "ChildInfo",
    "Client",
    "Clock",
    "Codec",
    "Compensated",
    "CompensationFailed",
    "CurrentActor",
    "Cursor",
    "DataLoss",
    "DeadLetterInfo",
    "DeadLetterNotFound",
    "DefinitionError",
    "Event",
    "ExportUnreadable",
    "ExtraNotInstalled",
    "HandlerInterrupted",
    "HistoryEntry",
    "HostNotRunning",
    "IdempotencyMismatch",
    "InvalidKey",
    "KeyTooLong",
    "MailboxFull",
    "MigrationFailed",
    "Moved",
    "NamedRef",
    "NonDeterminismError",
    "NotDeserializable",
    "NotDurable",
    "NotInActor",
    "NotSerializable",
    "OneForAll",
    "OneForOne",
    "PayloadTooLong",
    "PickleCodec",
    "Placeholder",
    "Query",
    "QueryChangedState",
    "Rate",
    "RemoteError",
    "RestForOne",
    "Retry",
    "Runtime",
    "RuntimeNotRunning",
    "Saga",
    "Signal",
    "SignalTimeout",
    "Starter",
    "Step",
    "StepFailed",
    "StepInfo",
    "StreamItem",
    "Supervision",
    "SystemClock",
    "Timer",
    "TimerInfo",
    "Transient",
    "TurnDidNotEnd",
    "Unknown",
    "UnknownActorType",
    "UnknownHandler",
    "UnknownOutcome",
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
    "export_actors",
    "import_actors",
    "migrate",
    "on_activate",
    "on_child_exit",
    "on_event",
    "on_signal",
    "on_timer",
    "patched",
    "query",
    "rename",
    "saga",
    "send_signal",
    "set_timer",
    "signal",
    "spawn",
    "step",
    "step_info",
    "wait_for_signal",
    "wait_until",
    "workflow",
]


_LAZY: typing.Final = {  # what no host needs: 8 ms
    "ActorsExist": "_moving",
    "Client": "_client",
    "ExportUnreadable": "_archive",
    "HistoryEntry": "_past",
    "Moved": "_moving",
    "NamedRef": "_named",
    "export_actors": "_moving",
    "import_actors": "_moving",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
