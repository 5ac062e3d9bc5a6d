"""The pytest plug-in as users have it: installed, and nothing else said."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

pytestmark = pytest.mark.slow  # each is a run of pytest

ORDER: Final = """
import pytest
from perdure.actors import durable_actor, on_event, step, workflow
from perdure.actors.testing import World, survives_crashes

@step
async def charge() -> int:
    return 1

@durable_actor
class Order:
    @workflow
    async def run(self) -> int:
        return await charge()

    @on_event
    def greet(self) -> str:
        return "hello"
"""
PLAIN: Final = (
    ORDER
    + """
async def test_an_order(world: World) -> None:
    order = await world.start(Order.run, "o")
    assert await order.result() == 1

async def test_the_same_on_a_disk(durable_world: World) -> None:
    assert await durable_world.ref(Order, "o").ask(Order.greet) == "hello"
    await durable_world.restart()
    assert [info.id.key async for info in durable_world.actors()] == ["o"]

@survives_crashes(seeds=1)
async def test_a_trial(world: World) -> None:
    assert await (await world.start(Order.run, "o")).result() == 1

class TestMethods:
    @pytest.mark.parametrize("key", ["a", "b"])
    async def test_a_method(self, world: World, key: str) -> None:
        assert await world.ref(Order, key).ask(Order.greet) == "hello"

def test_an_ordinary_one() -> None:
    pass
"""
)
OF_ANYIO: Final = (
    ORDER
    + """
@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"

@pytest.fixture
async def order(world: World):
    yield await world.start(Order.run, "o")

@pytest.mark.anyio
async def test_an_order(order, world: World) -> None:
    assert await order.result() == 1
    assert world.calls(charge) == 1
"""
)
FAILING: Final = (
    ORDER
    + """
@survives_crashes
async def test_counts_attempts(world: World) -> None:
    assert await (await world.start(Order.run, "o")).result() == 1
    assert world.calls(charge) == 1
"""
)


def test_a_test_with_a_world_needs_nothing_else(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PLAIN)

    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=6)


def test_a_world_goes_with_the_runner_and_the_fixtures_of_anyio(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OF_ANYIO)

    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=1)


def test_the_command_of_a_failure_brings_it_back_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING)

    failed = pytester.runpytest_subprocess("-p", "no:randomly")
    _, _, scenario = next(line for line in failed.outlines if line.startswith("E ") and "--perdure-scenario=" in line).partition("=")
    again = pytester.runpytest_subprocess("-p", "no:randomly", f"--perdure-scenario={scenario}")

    failed.stdout.fnmatch_lines(["*fails with a crash before commit *", "*charge ran 2 times*"])
    again.stdout.fnmatch_lines([f"*pytest *::test_counts_attempts --perdure-scenario={scenario}"])


def test_a_scenario_that_nobody_understands_is_refused(pytester: pytest.Pytester) -> None:
    refused = pytester.runpytest_subprocess("--perdure-scenario=flood")

    refused.stderr.fnmatch_lines(["*--perdure-scenario: 'flood' is no part of a scenario*"])


def test_the_plug_in_loads_nothing_before_it_is_needed() -> None:
    look = "import perdure.pytest_plugin, sys; print(sorted(name for name in sys.modules if name.startswith('perdure.')))"

    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout

    assert loaded.strip() == "['perdure.pytest_plugin']"
