"""What `retry`, `cancel`, `terminate` and the changing commands of `dead-letters` do: requests that only a host can do.

Each is durable before it is waited for, and no command waits for ever: a host that comes too late for the command still does what it asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar

import typer

from ..._client import Client
from ..._errors import AskTimeout
from .._tree import printable
from .._view import StoreView
from .._wording import counted
from ._looking import print_json
from ._screen import complain, console, key_text

T = TypeVar("T")

PATIENCE: Final = timedelta(seconds=10)  # with a host that runs
SHORT_PATIENCE: Final = timedelta(seconds=1)  # without: as long as one needs to start again


async def retry(store: str, type_name: str, key: str) -> None:
    """Let a quarantined actor go on, and say so once a host has done it."""
    async with _asking(store) as (client, patience):
        await client.ref(type_name, key).options(timeout=patience).retry()
        console().print(f"{type_name}/{key_text(key)} goes on")


async def retry_all(store: str, type_name: str) -> None:
    """Let all quarantined actors of a type go on; one that still cannot is named, and the others do."""
    async with _asking(store) as (client, patience):
        keys = [info.id.key async for info in client.actors(type_name, status="quarantined")]
        asked = [client.ref(type_name, key).options(timeout=patience).retry() for key in keys]

        def say(done: list[None]) -> None:
            console().print(f"{type_name}: {counted(len(done), 'actor')} let go on")

        await _hear_all(type_name, "retry", asked, say)


async def cancel(store: str, type_name: str, key: str, reason: str) -> None:
    """Ask an actor to end, and say so once it has been told."""
    async with _asking(store) as (client, patience):
        await client.ref(type_name, key).options(timeout=patience).cancel(reason)
        console().print(f"{type_name}/{key_text(key)} is asked to end")


async def terminate(store: str, type_name: str, key: str, reason: str) -> None:
    """End an actor, and say so once a host has done it."""
    async with _asking(store) as (client, patience):
        await client.ref(type_name, key).options(timeout=patience).terminate(reason)
        console().print(f"{type_name}/{key_text(key)} has ended")


async def redrive(store: str, type_name: str, key: str, seqs: list[int], *, as_json: bool) -> None:
    """Put dead letters of an actor back, and say how many."""
    async with _asking(store, as_json) as (client, patience):
        count = await client.ref(type_name, key).options(timeout=patience).redrive(*seqs)
        _say("redriven", count, f"{type_name}/{key_text(key)}: {counted(count, 'message')} put back", as_json)


async def redrive_all(store: str, type_name: str, *, as_json: bool) -> None:
    """Put the dead letters of all actors of a type back; an actor that refuses is named, and the others are done."""
    async with _asking(store, as_json) as (client, patience):
        keys = dict.fromkeys([letter.actor.key async for letter in client.dead_letters(type_name)])
        asked = [client.ref(type_name, key).options(timeout=patience).redrive() for key in keys]

        def say(done: list[int]) -> None:
            _say("redriven", sum(done), f"{type_name}: {counted(sum(done), 'message')} put back", as_json)

        await _hear_all(type_name, "redrive", asked, say)


async def _hear_all(type_name: str, verb: str, asked: Sequence[Coroutine[Any, Any, T]], say: Callable[[list[T]], None]) -> None:
    """Hear what all answer: `say` tells of those who did it, and whoever refuses is named."""
    answers = await asyncio.gather(*asked, return_exceptions=True)
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    late = [error for error in errors if isinstance(error, AskTimeout)]
    done = [answer for answer in answers if not isinstance(answer, BaseException)]
    if done or not late:
        say(done)
    for error in errors:
        if error not in late:
            complain(error)
    if len(errors) > len(late):
        raise typer.Exit(1)
    if late:
        raise AskTimeout(f"{counted(len(late), 'actor')} of {type_name}", verb, late[0].seconds)


async def drop(store: str, type_name: str, key: str, seqs: list[int], *, as_json: bool) -> None:
    """Forget dead letters of an actor, and say how many."""
    async with _asking(store, as_json) as (client, patience):
        count = await client.ref(type_name, key).options(timeout=patience).drop_dead_letters(*seqs)
        _say("dropped", count, f"{type_name}/{key_text(key)}: {counted(count, 'dead letter')} dropped", as_json)


async def edit(store: str, type_name: str, key: str, seq: int, arguments: str, *, as_json: bool) -> None:
    """Give a dead letter other arguments, and say so."""
    async with _asking(store, as_json) as (client, patience):
        await client.ref(type_name, key).options(timeout=patience).edit_dead_letter(seq, arguments)
        _say("edited", 1, f"{type_name}/{key_text(key)}: dead letter {seq} has other arguments; redrive puts it back", as_json)


@asynccontextmanager
async def _asking(store: str, as_json: bool = False) -> AsyncIterator[tuple[Client, timedelta]]:
    """A client, and how long it is to wait; if it waits in vain, that is said."""
    async with StoreView(store) as view:
        hosted = await view.has_host()
    try:
        async with Client(store) as client:
            yield client, PATIENCE if hosted else SHORT_PATIENCE
    except AskTimeout as late:
        why = (
            f"the host has not answered within {late.seconds:g} s, and does it later" if hosted else "no host runs, so the next one does it"
        )
        console(to_errors=as_json).print(printable(f"the request for {late.actor} is stored; {why}"))


def _say(what: str, count: int, text: str, as_json: bool) -> None:
    if as_json:
        print_json({what: count})
    else:
        console().print(text)
