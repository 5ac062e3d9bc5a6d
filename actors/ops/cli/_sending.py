"""What `send` and `signal` do: one message by name, with JSON, through a client.

Whether it fits is found out before anything is stored; from then on it is durable, whether or not a host runs.
"""

from __future__ import annotations

import sys

from ..._client import Client
from .._view import StoreView
from ._screen import console, key_text


async def send_event(store: str, type_name: str, key: str, name: str, arguments: str, idempotency_key: str | None) -> None:
    """Send an event, and say so once it is durable."""
    async with Client(store) as client:
        await client.ref(type_name, key).options(idempotency_key=idempotency_key).send_event(name, arguments)
    await _say_stored("event", store, type_name, key)


async def ask(store: str, type_name: str, key: str, name: str, arguments: str, idempotency_key: str | None) -> None:
    """Send an event, and print what its handler returns, as JSON. Raises RemoteError for what it raises."""
    async with Client(store) as client:
        answer = await client.ref(type_name, key).options(idempotency_key=idempotency_key).ask(name, arguments)
    sys.stdout.write(answer + "\n")


async def send_signal(store: str, type_name: str, key: str, name: str, arguments: str, idempotency_key: str | None) -> None:
    """Send a signal, and say so once it is durable."""
    async with Client(store) as client:
        await client.ref(type_name, key).options(idempotency_key=idempotency_key).send_signal(name, arguments)
    await _say_stored("signal", store, type_name, key)


async def _say_stored(what: str, store: str, type_name: str, key: str) -> None:
    async with StoreView(store) as view:
        later = "" if await view.has_host() else "; no host runs, so the next one handles it"
    console().print(f"the {what} for {type_name}/{key_text(key)} is stored{later}")
