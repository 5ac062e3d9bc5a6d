"""A kiosk's store as a killed host left it, and the command line to look at it with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import anyio
import pytest
from perdure.actors import Runtime, send_signal
from perdure.actors.ops.cli._app import app
from typer.testing import CliRunner, Result

from .kiosk import Basket, Note, Till

Command = Callable[..., Result]
Hosting = Callable[[str], AbstractContextManager["subprocess.Popen[str]"]]
KIOSK = str(Path(__file__).with_name("kiosk.py"))


def installed() -> str:
    """The command as a user calls it."""
    return str(Path(sys.executable).with_name("perdure"))


async def trade(url: str) -> None:
    async with Runtime(url, actors=[Basket, Note, Till]) as runtime:
        basket, friend = runtime.ref(Basket, "b-1"), runtime.ref(Basket, "b-2")
        for quantity in range(3):
            await basket.ask(Basket.add, f"sku-{quantity}", quantity)
        await friend.ask(Basket.befriend, basket)
        await send_signal(friend, Basket.approved, "ada")
        await friend.options(idempotency_key="again").send_event(Basket.add, "sku-9", -1)
        await runtime.ref(Note, "a\x1b[31mb").ask(Note.write, "hello")
        for cents in (100, 200):
            await runtime.ref(Till, "t-1").send_event(Till.pay, cents)
        await runtime.settled()


@pytest.fixture(scope="session")
def kiosk_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The kiosk's store; it is read alone, so all tests share it."""
    url = f"lmdb:{tmp_path_factory.mktemp('kiosk')}/store"
    anyio.run(trade, url)
    return url


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store that is the test's own: its host has been there, and no actor has."""

    async def begin() -> None:
        async with Runtime(f"lmdb:{tmp_path}/store", actors=[Basket, Till, Note]):
            pass

    anyio.run(begin)
    return f"lmdb:{tmp_path}/store"


@pytest.fixture
def hosting() -> Hosting:
    """Hosts the kiosk in a process of its own, by `perdure run`."""

    @contextmanager
    def run(url: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen([installed(), "run", KIOSK, "--store", url], stdout=subprocess.PIPE, text=True) as host:
            try:
                assert host.stdout is not None
                assert host.stdout.readline() == f"serving Basket, Till, Note on {url}; stop with Ctrl-C\n"
                yield host
            finally:
                host.terminate()

    return run


@pytest.fixture
def perdure() -> Command:
    """Runs a command in this process."""
    runner = CliRunner()

    def run(*arguments: str, store: str | None = None) -> Result:
        return runner.invoke(app, arguments, env={"PERDURE_STORE": store, "COLUMNS": "100"})

    return run
