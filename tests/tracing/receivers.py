"""Receivers of OTLP, from which a test reads back what was sent: a light one in its own process, and a whole product beside it.

They listen on loopback alone, and are gone when their block is left.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, final

import pytest

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

PHOENIX: Final = Path(".venv-integration/bin/phoenix")  # `make integration` puts it there
STARTS_WITHIN: Final = 120.0  # seconds; it imports for twenty
STOPS_WITHIN: Final = 15.0
LOOK_EVERY: Final = 0.2
PAGE: Final = 1000  # spans, the most that Phoenix gives at a time

# A product that tells nobody anything, looks nothing up, and offers nothing but its traces.
QUIET: Final = {
    "PHOENIX_TELEMETRY_ENABLED": "false",
    "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
    "PHOENIX_AGENTS_DISABLE_BASH": "true",
    "PHOENIX_AGENTS_DISABLE_WEB_ACCESS": "true",
    "PHOENIX_AGENTS_DISABLE_GITHUB": "true",
    "PHOENIX_ENABLE_MCP_SERVER": "false",
    "PHOENIX_GRPC_PORT": "0",
}
# Its gRPC server listens on all addresses, whatever it is told.
ON_LOOPBACK: Final = """
from grpc.aio._server import Server
from phoenix.server.main import main

add = Server.add_insecure_port
Server.add_insecure_port = lambda server, address: add(server, address.replace("[::]", "127.0.0.1"))
main()
"""


@final
class Seen(NamedTuple):
    """A span as a receiver has got it; ids in hexadecimal, `parent` is empty where there is none."""

    trace: str
    id: str
    parent: str
    name: str
    attributes: Mapping[str, object]


class Receiver(Protocol):
    """Where spans are sent to, and looked at."""

    @property
    def endpoint(self) -> str:
        """As `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        ...

    @property
    def look_every(self) -> float:
        """After how many seconds it may be looked at again."""
        ...

    @property
    def falls_silent_for(self) -> float:
        """Seconds in which it may show nothing new, though more is to come."""
        ...

    async def spans(self) -> list[Seen]:
        """All that has been received."""
        ...


Receiving = Callable[[Path], AbstractAsyncContextManager[Receiver]]


async def wait_for(receiver: Receiver, enough: Callable[[list[Seen]], bool]) -> list[Seen]:
    """What was received, once it is `enough`, or nothing more comes: then it is for the test to say what is missing."""
    seen: list[Seen] = []
    silence = 0.0
    while not enough(seen) and silence < receiver.falls_silent_for:
        await asyncio.sleep(receiver.look_every)
        before, seen = len(seen), await receiver.spans()
        silence = 0.0 if len(seen) > before else silence + receiver.look_every
    return seen


# --- the light one ---


@final
class Tap:
    """What an OtelTap on a port has heard."""

    def __init__(self, port: int) -> None:
        self.endpoint: Final = f"http://127.0.0.1:{port}"
        self.look_every: Final = 0.02
        self.falls_silent_for: Final = 10.0
        self._heard: Final[list[Seen]] = []

    async def spans(self) -> list[Seen]:
        """As `Receiver.spans`."""
        return list(self._heard)

    async def listen(self, spans: AsyncIterator[Span]) -> None:
        """Note all spans."""
        async for span in spans:
            found = {each.key: _plain(each.value) for each in span.attributes}
            self._heard.append(Seen(span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.name, found))


@asynccontextmanager
async def tapped(_place: Path) -> AsyncIterator[Receiver]:
    """An OtelTap in this process. Skips where its native library does not load."""
    try:
        from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings
    except OSError as error:
        pytest.skip(f"oteltap is built for x86-64 alone: {error}")
    tap = Tap(port := _free_port())
    async with OtelTapHttpProtobufReceiver(OtelTapHttpProtobufReceiverSettings(port)) as receiver, asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(tap.listen(receiver.stream_traces()))
        await asyncio.sleep(0)  # it hears only what comes after it has begun
        yield tap
        listening.cancel()


def _plain(value: Any) -> object:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


# --- the product ---


@final
class Phoenix:
    """An Arize Phoenix that serves on a port."""

    def __init__(self, port: int) -> None:
        self.endpoint: Final = f"http://127.0.0.1:{port}"
        self.look_every: Final = 0.5
        self.falls_silent_for: Final = 60.0  # it takes in a hundred spans a second, and commits a thousand at a time
        self._kept: Final[list[Seen]] = []  # of the pages that are full
        self._query: Final = {"limit": str(PAGE), "order": "asc"}

    async def spans(self) -> list[Seen]:
        """As `Receiver.spans`."""
        return await asyncio.to_thread(self._read_on)

    def is_serving(self) -> bool:
        """Whether it answers."""
        try:
            self._get("/healthz")
        except OSError:
            return False
        return True

    def _read_on(self) -> list[Seen]:
        while True:
            try:
                page = json.loads(self._get(f"/v1/projects/default/spans?{urllib.parse.urlencode(self._query)}"))
            except urllib.error.HTTPError as error:
                if error.code == 404:  # the project is made by its first span
                    return []
                raise
            found = [_seen(each) for each in page["data"]]
            if page["next_cursor"] is None:
                return self._kept + found
            self._kept.extend(found)
            self._query["cursor"] = page["next_cursor"]

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.endpoint + path, timeout=30) as answer:
            found: bytes = answer.read()
        return found


def _seen(span: Mapping[str, Any]) -> Seen:
    context = span["context"]
    return Seen(context["trace_id"], context["span_id"], span["parent_id"] or "", span["name"], span["attributes"])


@asynccontextmanager
async def phoenix(place: Path) -> AsyncIterator[Receiver]:
    """A Phoenix in a process of its own, which keeps what it has in `place`. Skips where it is not installed."""
    if not PHOENIX.exists():
        pytest.skip("Phoenix is not installed: `make integration` does it, where pip can get it")
    receiver = Phoenix(port := _free_port())
    chosen = {"PHOENIX_HOST": "127.0.0.1", "PHOENIX_PORT": str(port), "PHOENIX_WORKING_DIR": str(place), "HOME": str(place)}
    environment = {**os.environ, **QUIET, **chosen}
    with (place / "log").open("wb") as log:
        command = [str(PHOENIX.absolute().with_name("python")), "-c", ON_LOOPBACK, "serve"]
        process = await asyncio.create_subprocess_exec(*command, cwd=place, env=environment, stdout=log, stderr=log)
    try:
        await _until(receiver.is_serving, process, place / "log")
        yield receiver
    finally:
        await _end(process)


async def _until(is_serving: Callable[[], bool], process: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(STARTS_WITHIN):
        while not await asyncio.to_thread(is_serving):
            assert process.returncode is None, await asyncio.to_thread(log.read_text)
            await asyncio.sleep(LOOK_EVERY)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOPS_WITHIN)
        except TimeoutError:
            process.kill()
            await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
