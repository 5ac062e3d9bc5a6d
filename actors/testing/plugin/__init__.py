"""The pytest plug-in: the fixtures `world` and `durable_world`, and `--perdure-scenario`, which brings a failure back.

It is loaded in every test run where the package is installed, so nothing else is loaded before a test asks for it. An `async` test that
takes a world needs no other plug-in; where another one runs it (anyio's, pytest-asyncio), that one does.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Coroutine, Generator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from perdure.actors.testing import World


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that a failed trial names."""
    group = parser.getgroup("perdure")
    group.addoption(
        "--perdure-scenario", default="plain", help="what befalls the worlds of tests, as a failure of @survives_crashes tells it"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a scenario that cannot be read, before any test."""
    given = config.getoption("--perdure-scenario")
    if given != "plain":
        from perdure.actors.testing import Scenario

        try:
            Scenario.parse(str(given))
        except ValueError as error:
            raise pytest.UsageError(f"--perdure-scenario: {error}") from None


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    """A world with a store in memory, for whatever actor types the test shows it."""
    return _new_world(request, "memory:")


@pytest.fixture
def durable_world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """A world with an LMDB store in the test's own directory."""
    return _new_world(request, f"lmdb:{tmp_path}/store")


def _new_world(request: pytest.FixtureRequest, store: str) -> World:
    from perdure.actors.testing import World

    made = World(store=store, scenario=str(request.config.getoption("--perdure-scenario")))
    made.test_id = request.node.nodeid
    return made


@pytest.hookimpl(tryfirst=True, hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Let a test's worlds begin before it and end after it, on its own event loop."""
    if (
        isinstance(item, pytest.Function)
        and inspect.iscoroutinefunction(item.obj)
        and not hasattr(item.obj, "is_trial")
        and (worlds := _worlds_of(item))
    ):
        before = item.obj
        item.obj = _inside(before, worlds)
        yield
        item.obj = before
    else:
        yield


@pytest.hookimpl
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async` test with a world that nobody else has run."""
    __tracebackhide__ = True
    if not inspect.iscoroutinefunction(pyfuncitem.obj) or not _worlds_of(pyfuncitem):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    error = asyncio.run(_error_of(pyfuncitem.obj(**arguments)))
    if error is not None:
        raise error  # here, so that the event loop's own lines are not shown
    return True


async def _error_of(test: Coroutine[Any, Any, None]) -> BaseException | None:
    __tracebackhide__ = True
    try:
        await test
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  whatever a test fails with, or is skipped by
        return error
    return None


def _worlds_of(item: pytest.Function) -> list[World]:
    """The worlds among what its fixtures have made."""
    testing = sys.modules.get("perdure.actors.testing")
    if testing is None:
        return []
    kind: type[World] = testing.World
    return [value for value in item.funcargs.values() if isinstance(value, kind)]


def _inside(test: Any, worlds: list[World]) -> Any:
    @functools.wraps(test)
    async def inside(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        async with AsyncExitStack() as entered:
            for each in worlds:
                if not each.is_entered:
                    await entered.enter_async_context(each)
            await test(*args, **kwargs)

    return inside
