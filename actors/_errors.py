"""What can go wrong with actors, as one tree.

    PerdureError                     everything this project raises on purpose
    ├── DefinitionError              a class, a decorator or an option that cannot work; raised where it is written
    ├── UnknownActorType             no such type is hosted
    ├── UnknownHandler               the type has no such event, signal, query, workflow or timer
    ├── WrongArguments               (TypeError) they do not fit the handler's signature
    ├── NotSerializable              (TypeError) a value that no codec can store; names its path
    ├── NotDeserializable            stored bytes that the code of today cannot read
    ├── InvalidKey                   (ValueError) not a key
    │   └── KeyTooLong               more than 200 bytes of UTF-8
    ├── NotInActor                   a verb for actors' code, used elsewhere
    ├── NotDurable                   something that cannot be resumed after a crash, used in an actor
    ├── RuntimeNotRunning            the runtime or client has not started, or has ended
    ├── HostNotRunning               what only a running host can answer was asked, and none runs
    ├── PayloadTooLong               arguments or an answer beyond what may go from one process to another
    ├── ExtraNotInstalled            (ImportError) a package that only some need is missing
    ├── MailboxFull                  the actor has too much to do already
    ├── IdempotencyMismatch          a key used again for something else
    ├── AskTimeout                   (TimeoutError) no reply in time; the event may still be handled
    ├── ActorNotFound                it never existed, or was deleted
    ├── DeadLetterNotFound           the actor has no dead letter of that number
    ├── ActorCompleted               it has ended, or was deleted, before it answered
    ├── ActorQuarantined             it stands still until somebody looks at it
    │   ├── VersionMismatch          another version of its type wrote its past, and none that is hosted can go on from it
    │   ├── MigrationFailed          a migration of its state raised, or made what its class cannot hold
    │   └── NonDeterminismError      its code asks, on replay, for something else than when it first ran
    ├── ActorFailed                  its workflow raised; the original is the cause
    ├── ChildFailed                  a child's workflow raised; the original is the cause
    ├── CompensationFailed           a saga could not undo everything
    ├── ActorCancelled               it was cancelled; an ordinary exception for whoever waits for it
    ├── ActorDeadlock                it would wait for ever, for one that waits for it
    ├── WorkflowNotStarted           a result was asked of an actor whose workflow has not begun
    ├── WorkflowAlreadyStarted       with other arguments, or where none may be
    ├── StepFailed                   a step failed for good; the original is the cause
    ├── SignalTimeout                (TimeoutError) the signal did not come in time
    ├── ExportUnreadable             a file of exported actors that is damaged, cut short or too new
    ├── ActorsExist                  actors of an export are in the store already, and otherwise
    ├── DataLoss                     items of a stream that retention has removed
    ├── QueryChangedState            a query is for reading
    ├── TurnDidNotEnd                a handler that ran too long within one turn
    ├── HandlerInterrupted           the host died in it, again and again
    ├── WorkerDied                   the worker process that made a call died in it
    └── RemoteError                  stands for an exception that could not travel

Those that only reach whoever waits for an actor, or for a step, are in `_outcome_errors`; those of versions in `_version_errors`; those of
moving actors in `_archive` and `_moving`.

Every class builds its own sentence from the parts it is given, and `type(error)(*error.args)` makes an equal one: errors travel as replies.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from ..storage import PerdureError


def _existing(known: tuple[str, ...], name: str) -> str:
    """What there is instead of `name`, the nearest of it first."""
    from difflib import get_close_matches  # here, since it costs a millisecond that no program should pay before its first mistake

    if not known:
        return "There is none."
    nearest = get_close_matches(name, known, 1)
    meant = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return f"{meant}There is: {', '.join(known)}."


def shell_form(actor: str) -> str:
    """An actor's address as the command line takes it."""
    from shlex import quote  # here, for the same reason

    type_name, _, key = actor.partition("/")
    return f"{quote(type_name)} {quote(key)}"


@final
class DefinitionError(PerdureError):
    """A class, decorator or option that cannot work, found where it is written. `where` is its qualified name."""

    __module__ = "perdure.actors"

    def __init__(self, where: str, problem: str, cure: str) -> None:
        super().__init__(where, problem, cure)
        self.where = where
        self.problem = problem
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}. {self.cure}"


@final
class UnknownActorType(PerdureError):
    """No actor type of that name is hosted. `known` are the names that are."""

    __module__ = "perdure.actors"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(name, self.known)

    def __str__(self) -> str:
        cure = "Give its class to the host, or to the client: Runtime(…, actors=[…])."
        return f"no actor type is named {self.name!r}. {_existing(self.known, self.name)} {cure}"


@final
class UnknownHandler(PerdureError):
    """The actor type has no such handler. `meant` shows the right call.

    `wanted` is what was looked for: "event", "signal", "query", "workflow" or "timer".
    """

    __module__ = "perdure.actors"

    def __init__(self, type_name: str, name: str, wanted: str, known: Iterable[str], meant: str = "") -> None:
        self.type_name = type_name
        self.name = name
        self.wanted = wanted
        self.known = tuple(known)
        self.meant = meant
        super().__init__(type_name, name, wanted, self.known, meant)

    def __str__(self) -> str:
        missing = f"{self.type_name} has no {self.wanted} {self.name!r}. "
        return missing + (self.meant or _existing(self.known, self.name))


@final
class WrongArguments(PerdureError, TypeError):
    """The arguments do not fit the handler; nothing was sent. `signature` is what it takes, `problem` what is wrong."""

    __module__ = "perdure.actors"

    def __init__(self, handler: str, signature: str, problem: str) -> None:
        super().__init__(handler, signature, problem)
        self.handler = handler
        self.signature = signature
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.handler}{self.signature} cannot be called so: {self.problem}."


@final
class NotSerializable(PerdureError, TypeError):
    """A value that the codec cannot store. `path` leads to it (`self.lines[3].socket`), `kind` is its type, `reason` the codec's words."""

    __module__ = "perdure.actors"

    def __init__(self, path: str, kind: str, reason: str) -> None:
        super().__init__(path, kind, reason)
        self.path = path
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.path} is a {self.kind}, which cannot be stored ({self.reason}). Keep plain data there;"
            f" what belongs to the process is annotated Transient[…] and set in @on_activate, or given to Runtime(…, resources=…)."
        )

    def within(self, outer: str) -> NotSerializable:
        """The same refusal, told from further outside: `value.socket` within `self.lines` is `self.lines.socket`."""
        return NotSerializable(outer + self.path.removeprefix("value"), self.kind, self.reason)


@final
class NotDeserializable(PerdureError):
    """Stored bytes that today's code cannot read: damaged, or of a class that has gone. `codec` is the codec's name.

    `gone` is the dotted name of what cannot be found, and `found` where something of that name is today; `version` is that of the state
    which it is in, 0 for what is no state.
    """

    __module__ = "perdure.actors"

    def __init__(self, codec: str, reason: str, gone: str = "", found: str = "", version: int = 0) -> None:
        super().__init__(codec, reason, gone, found, version)
        self.codec = codec
        self.reason = reason
        self.gone = gone
        self.found = found
        self.version = version

    def __str__(self) -> str:
        said = f"stored data cannot be read by the codec {self.codec!r} ({self.reason})."
        if self.gone:
            said += f' If {self.gone} has moved, say so before the host starts:\n    rename("{self.gone}", "{self.found or "…"}")'
        elif not self.version:
            said += ' If a class or module has moved, say so before the host starts: rename("old.module.Old", "new.module.New").'
        return said + self._by_migration if self.version else said

    @property
    def _by_migration(self) -> str:
        taken = f", where {self.gone} is a Placeholder" if self.gone else ""
        return (
            f"\nOr let the next version of the actor's class take its state over{taken}:\n"
            f"    @durable_actor(version={self.version + 1})\n"
            f"    ...\n"
            f"        @migrate({self.version})\n"
            f"        @staticmethod\n"
            f"        def from_version_{self.version}(state: dict[str, Any]) -> dict[str, Any]: ..."
        )

    def in_state_of(self, version: int) -> NotDeserializable:
        """The same, of an actor's state, which that version has written."""
        return NotDeserializable(self.codec, self.reason, self.gone, self.found, version)


class InvalidKey(PerdureError, ValueError):
    """What was given is no key of an actor. `key` is shown in a readable form."""

    __module__ = "perdure.actors"

    def __init__(self, type_name: str, key: str, reason: str) -> None:
        super().__init__(type_name, key, reason)
        self.type_name = type_name
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.key} is no key for an actor of type {self.type_name}: {self.reason}. Any Unicode text of up to 200 bytes is."


@final
class KeyTooLong(InvalidKey):
    """The key is longer than `limit` bytes of UTF-8; it has `size`."""

    __module__ = "perdure.actors"

    def __init__(self, type_name: str, key: str, size: int, limit: int) -> None:
        shown = key if len(key) <= 40 else f"{key[:40]}…"
        InvalidKey.__init__(self, type_name, repr(shown), f"it has {size} bytes of UTF-8, and {limit} are allowed")
        self.args = (type_name, shown, size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"{super().__str__()} Hash what is longer, and keep the long form in the actor's state."


@final
class NotInActor(PerdureError):
    """A verb that only an actor's code may use was used elsewhere. `verb` is its name, `where` it works."""

    __module__ = "perdure.actors"

    def __init__(self, verb: str, where: str = "an actor's code, while it handles a message. Outside, use the Runtime or a Client") -> None:
        super().__init__(verb, where)
        self.verb = verb
        self.where = where

    def __str__(self) -> str:
        return f"{self.verb} works only in {self.where}."


@final
class NotDurable(PerdureError):
    """An actor's code used something that does not survive its process. `what` says what, `cure` what to do instead."""

    __module__ = "perdure.actors"

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what, cure)
        self.what = what
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.what}: after a crash nothing could bring that back. Instead, {self.cure}."


@final
class RuntimeNotRunning(PerdureError):
    """The runtime or client was used before it started or after it ended. `what` was asked of it, `why` it cannot be, `cure` helps."""

    __module__ = "perdure.actors"

    def __init__(
        self,
        what: str,
        why: str = "the runtime is not running",
        cure: str = "Use it inside `async with Runtime(…)` or `async with Client(…)`.",
    ) -> None:
        super().__init__(what, why, cure)
        self.what = what
        self.why = why
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.what}: {self.why}. {self.cure}"


@final
class HostNotRunning(PerdureError):
    """Something that only a running host can answer was asked by a client. `what` was asked, `why` is what is known of the host."""

    __module__ = "perdure.actors"

    def __init__(self, store: str, what: str, why: str) -> None:
        super().__init__(store, what, why)
        self.store = store
        self.what = what
        self.why = why

    def __str__(self) -> str:
        return (
            f"{self.store}: only a host can answer {self.what!r}, and {self.why}. Start one:\n    perdure run MODULE --store {self.store}"
        )


@final
class ExtraNotInstalled(PerdureError, ImportError):
    """A package that only some need is missing. `package` is its name, `extra` the extra of Perdure that brings it."""

    __module__ = "perdure.actors"

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, extra)
        self.package = package
        self.extra = extra

    def __str__(self) -> str:
        return f'{self.package} is not installed. Install it with Perdure:\n    pip install "perdure[{self.extra}]"'


@final
class PayloadTooLong(PerdureError, ValueError):
    """More bytes than may go between a client and its host at once: `what` has `size`, and `limit` are allowed. What was done is done."""

    __module__ = "perdure.actors"

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(what, size, limit)
        self.what = what
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        cure = "Send it in parts, keep it in a file and send the path, or ask in the host's own process."
        return f"{self.what} has {self.size} bytes, and {self.limit} are allowed between processes. {cure}"


@final
class MailboxFull(PerdureError):
    """The actor's mailbox holds `limit` messages, as many as its type allows; the new one was not stored."""

    __module__ = "perdure.actors"

    def __init__(self, actor: object, limit: int) -> None:
        self.actor = str(actor)
        self.limit = limit
        super().__init__(self.actor, limit)

    def __str__(self) -> str:
        return (
            f"the mailbox of {self.actor} is full: {self.limit} messages wait. Send again later, or raise durable_actor(mailbox_limit=…)."
        )


@final
class IdempotencyMismatch(PerdureError):
    """An idempotency key came again with another handler or other arguments; nothing was done. `first` is what it stood for."""

    __module__ = "perdure.actors"

    def __init__(self, actor: object, key: str, first: str, now: str) -> None:
        self.actor = str(actor)
        self.key = key
        self.first = first
        self.now = now
        super().__init__(self.actor, key, first, now)

    def __str__(self) -> str:
        what = f"{self.now!r} after {self.first!r}" if self.now != self.first else f"{self.now!r} with other arguments"
        return f"{self.actor} knows the idempotency key {self.key!r} already, and now it came for {what}. Use one key for one message only."


@final
class AskTimeout(PerdureError, TimeoutError):
    """No reply came within `seconds`. The event stays in the mailbox and may still be handled."""

    __module__ = "perdure.actors"

    def __init__(self, actor: object, handler: str, seconds: float) -> None:
        super().__init__()
        self.actor = str(actor)
        self.handler = handler
        self.seconds = seconds
        self.args = (self.actor, handler, seconds)

    def __str__(self) -> str:
        return (
            f"{self.actor} did not answer {self.handler!r} within {self.seconds:g} s. The event may still be handled:"
            f" ask again with the same idempotency key to hear its outcome."
        )


@final
class ActorNotFound(PerdureError):
    """There is no such actor: no message ever reached it, or it was deleted. `alike` are keys of its type that look like it, if known."""

    __module__ = "perdure.actors"

    def __init__(self, actor: object, alike: Iterable[str] = ()) -> None:
        self.actor = str(actor)
        self.alike = tuple(alike)
        super().__init__(self.actor, self.alike)

    def __str__(self) -> str:
        meant = f" Did you mean {' or '.join(map(repr, self.alike))}?" if self.alike else ""
        return f"there is no actor {self.actor}.{meant} The first message to it makes it."


@final
class DeadLetterNotFound(PerdureError):
    """The actor has no dead letter of that number: it never had, or the letter was redriven or dropped meanwhile."""

    __module__ = "perdure.actors"

    def __init__(self, actor: object, seq: int) -> None:
        self.actor = str(actor)
        self.seq = seq
        super().__init__(self.actor, seq)

    def __str__(self) -> str:
        return f"{self.actor} has no dead letter {self.seq}. Those it has: perdure dead-letters list {shell_form(self.actor)}."


@final
class ActorCompleted(PerdureError):
    """The actor ended before it answered: its workflow is done, or it was deleted."""

    __module__ = "perdure.actors"

    def __init__(self, actor: object) -> None:
        self.actor = str(actor)
        super().__init__(self.actor)

    def __str__(self) -> str:
        return (
            f"{self.actor} has ended, or was deleted, before it answered. Start it anew with if_exists='restart', or send to another key."
        )


class ActorQuarantined(PerdureError):
    """The actor stands still, with everything it has kept, because of `cause`; no other actor is affected."""

    __module__ = "perdure.actors"

    def __init__(self, actor: object, cause: str) -> None:
        self.actor = str(actor)
        self.cause = cause
        super().__init__(self.actor, cause)

    def __str__(self) -> str:
        end = "\n" if "\n" in self.cause else ". "  # nothing is put at the end of a line that is to be copied
        return (
            f"{self.actor} is quarantined: {self.cause}{end}Nothing of it is lost. Mend the cause, then let it go on:"
            f" await ref.retry(), or perdure retry {shell_form(self.actor)}."
        )


@final
class QueryChangedState(PerdureError):
    """A query changed the actor's state; the change was thrown away."""

    __module__ = "perdure.actors"

    def __init__(self, actor: object, query: str) -> None:
        self.actor = str(actor)
        self.query = query
        super().__init__(self.actor, query)

    def __str__(self) -> str:
        return (
            f"the query {self.query!r} changed the state of {self.actor}; the change is thrown away. Queries read, events write:\n"
            f"    @query      # what was written\n"
            f"    @on_event   # what was meant, if it has to change something"
        )


@final
class TurnDidNotEnd(PerdureError):
    """A handler ran on and on, and its turn was rolled back. `after` is what it used up, `where` the line it was at, or the handler."""

    __module__ = "perdure.actors"

    def __init__(self, after: str, where: str) -> None:
        super().__init__(after, where)
        self.after = after
        self.where = where

    def __str__(self) -> str:
        return (
            f"{self.where} was not done after {self.after}, so the turn is rolled back."
            f" A turn has to end: split long work into several events, or do it in a @step."
        )


@final
class HandlerInterrupted(PerdureError):
    """The host process died `times` times while it handled this message, so the message was put aside."""

    __module__ = "perdure.actors"

    def __init__(self, actor: object, handler: str, times: int) -> None:
        self.actor = str(actor)
        self.handler = handler
        self.times = times
        super().__init__(self.actor, handler, times)

    def __str__(self) -> str:
        return (
            f"the host died {self.times} times while {self.actor} handled {self.handler!r}; the message is put aside as a dead letter."
            f" Look for what ends the process there (os._exit, a crash in C code, too much memory), then put the message back:"
            f" perdure dead-letters redrive {shell_form(self.actor)}."
        )


@final
class WorkerDied(PerdureError):
    """The worker process that made the call died in it; no other call is affected. `how` says how: "was killed by SIGKILL"."""

    __module__ = "perdure.actors"

    def __init__(self, call: str, how: str) -> None:
        super().__init__(call, how)
        self.call = call
        self.how = how

    def __str__(self) -> str:
        return (
            f"the worker process that made the call {self.call!r} {self.how}. Look for what ends the process there: os._exit, a crash in"
            f" C code, or too much memory (then the kernel killed it, and its log says so)."
        )


@final
class RemoteError(PerdureError):
    """Stands for an exception that could not travel itself: its class's name, its text, and its traceback as text."""

    __module__ = "perdure.actors"

    def __init__(self, type_name: str, text: str, traceback: str = "") -> None:
        super().__init__(type_name, text, traceback)
        self.type_name = type_name
        self.text = text
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}" if self.text else self.type_name


@final
class NonDeterminismError(ActorQuarantined):
    """Code that no longer fits its past: a replayed turn asked for `now`; when it first ran it asked for `then`."""

    __module__ = "perdure.actors"

    def __init__(self, actor: object, seq: int, handler: str, now: Iterable[str], then: Iterable[str]) -> None:
        self.seq = seq
        self.handler = handler
        self.now = tuple(now)
        self.then = tuple(then)
        ActorQuarantined.__init__(
            self,
            actor,
            f"the replay of message {seq} ({handler}) asked for {_listed(self.now)}; when it first ran it asked for {_listed(self.then)}.\n"
            f"    time.time(), random.random(), os.environ   # differ each run\n"
            f"    current_actor().now(), current_actor().random, a @step   # are the same on replay\n"
            f"`perdure lint` finds such places; if the code was changed on purpose, host the old code until the actor has ended",
        )
        self.args = (self.actor, seq, handler, self.now, self.then)


def _listed(asked: tuple[str, ...]) -> str:
    return ", ".join(asked) if asked else "nothing"


class ActorEvicted(BaseException):
    """Raised where clean-up code asks for something durable while its actor leaves memory.

    Control flow, and no error: the actor goes on later where it waits.
    """

    __module__ = "perdure.actors"

    def __init__(self, asked: str) -> None:
        super().__init__(asked)
        self.asked = asked

    def __str__(self) -> str:
        return f"{self.asked} was asked for while the actor leaves memory; it goes on where it waits when it is brought back."
