"""References by name: for tools that have no code of the user's, and speak JSON.

Arguments are checked against what the store says of the handler before anything is stored. Nothing is unpickled: results come as JSON,
and what a handler raised comes as a RemoteError.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Protocol, Self, final

import msgspec

from ._digest import digest
from ._envelope import Form, Kind
from ._errors import RemoteError
from ._ids import ActorId
from ._info import ActorInfo
from ._records import LETTER_CHANGE, LetterChange, Outcome, Raised
from ._ref import ActorRef, Port, Request, ask_host

_WANTED: Final = {"declared": "signal", "start": "workflow", "start_new": "workflow", "restart": "workflow"}  # of a letter's kind


class NamedPort(Port, Protocol):
    """A port that knows what can be called by name."""

    async def named_call(self, target: ActorId, wanted: str, name: str, arguments: str | bytes) -> Request:
        """The request that a call with JSON comes to; `wanted` is "event", "signal", "query", "workflow" or "timer"."""
        ...


@final
class NamedRef:
    """The address of an actor whose class is not at hand, with the verbs that reach it.

    Arguments are a JSON object (by name), an array (by position), or a single value that is neither. Every verb but `info` raises
    UnknownActorType, UnknownHandler and WrongArguments before anything is stored; the last one also for a handler whose arguments have no
    JSON form. Checking them takes jsonschema: ExtraNotInstalled says how to get it.
    """

    __module__ = "perdure.actors"
    __slots__ = ("_idempotency_key", "_port", "_timeout", "id")

    def __init__(self, target: ActorId, port: NamedPort, idempotency_key: str | None = None, timeout: timedelta | None = None) -> None:
        self.id = target
        self._port = port
        self._idempotency_key = idempotency_key
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<NamedRef {self.id}>"

    @property
    def key(self) -> str:
        """The actor's key."""
        return self.id.key

    def options(self, *, idempotency_key: str | None = None, timeout: timedelta | None = None) -> Self:
        """As `ActorRef.options`. A key that came with JSON stands for the same arguments in JSON alone."""
        ActorRef[object](self.id, self._port).options(idempotency_key=idempotency_key)  # which refuses what is no key
        return type(self)(self.id, self._port, idempotency_key, timeout)

    async def ask(self, event: str, arguments: str | bytes = "{}") -> str:
        """Send an event, and return what its handler returns, as JSON; what has no JSON form is shown as text.

        Raises RemoteError for what the handler raises or the actor refuses, AskTimeout.
        """
        return _shown(await self._port.ask(await self._request("event", event, arguments)))

    async def send_event(self, event: str, arguments: str | bytes = "{}") -> None:
        """Send an event; returns once it is durable."""
        await self._port.send(await self._request("event", event, arguments))

    async def send_signal(self, signal: str, arguments: str | bytes = "{}") -> None:
        """Send a signal, handled or declared; returns once it is durable."""
        await self._port.send(await self._request("signal", signal, arguments))

    async def query(self, query: str, arguments: str | bytes = "{}") -> str:
        """What a query returns, as JSON. Raises HostNotRunning, and RemoteError for what the query raises."""
        return _shown(await self._port.query(await self._request("query", query, arguments)))

    async def info(self) -> ActorInfo:
        """As `ActorRef.info`."""
        return await self._port.info(self.id)

    async def delete(self) -> None:
        """As `ActorRef.delete`."""
        await self._ref().delete()

    async def cancel(self, reason: str = "") -> None:
        """As `ActorRef.cancel`."""
        await self._ref().cancel(reason)

    async def terminate(self, reason: str = "") -> None:
        """As `ActorRef.terminate`."""
        await self._ref().terminate(reason)

    async def retry(self) -> None:
        """As `ActorRef.retry`."""
        await self._ref().retry()

    async def redrive(self, *seqs: int) -> int:
        """As `ActorRef.redrive`."""
        return await self._ref().redrive(*seqs)

    async def drop_dead_letters(self, *seqs: int) -> int:
        """As `ActorRef.drop_dead_letters`; also of a type that no host serves."""
        return await self._ref().drop_dead_letters(*seqs)

    async def edit_dead_letter(self, seq: int, arguments: str | bytes = "{}") -> None:
        """As `ActorRef.edit_dead_letter`."""
        letter = await self._port.dead_letter(self.id, seq)
        call = await self._request(_WANTED.get(letter.kind, letter.kind), letter.handler, arguments)
        payload = LETTER_CHANGE.pack(LetterChange([seq], call.name, call.payload))
        await ask_host(self._port, call._replace(kind=Kind.EDIT, name="edit_dead_letter", payload=payload, form=Form.JSON, key=None))

    def _ref(self) -> ActorRef[object]:
        return ActorRef[object](self.id, self._port).options(timeout=self._timeout)

    async def _request(self, wanted: str, name: str, arguments: str | bytes) -> Request:
        request = await self._port.named_call(self.id, wanted, name, arguments)
        timeout = None if self._timeout is None else self._timeout.total_seconds()
        if self._idempotency_key is None:
            return request._replace(timeout=timeout)
        used_for = digest((name, msgspec.json.decode(request.payload)))
        return request._replace(timeout=timeout, key=(self._idempotency_key, used_for))


def _shown(outcome: Outcome) -> str:
    if isinstance(outcome, Raised):
        failure = outcome.failure
        raise RemoteError(failure.type_name, failure.text, failure.traceback)
    return outcome.payload.decode()
