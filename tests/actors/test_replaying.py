"""A replay brings a waiting actor back piece by piece, and lets the host do other things between the pieces."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import ClassVar

import pytest
from perdure.actors import ActorQuarantined, durable_actor, emit, on_activate, query, send_signal, signal, wait_for_signal, workflow
from perdure.actors import _replaying as replaying_module
from perdure.actors._standing import anyio_version, python_version

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio


@durable_actor
class Listener:
    """Hears numbers, one after the other. It notes what it should not, and says what it must not when it wakes up."""

    told = signal(int)
    talks: ClassVar[bool] = False
    weather: ClassVar[int] = 5

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.noted = 0

    @on_activate
    def wake_up(self) -> None:
        if self.talks:
            emit("awake", len(self.numbers))

    @workflow
    async def run(self) -> list[int]:
        self.noted = self.weather
        while len(self.numbers) < 10:
            self.numbers.append(await wait_for_signal(Listener.told))
        return self.numbers

    @query
    def note(self) -> int:
        return self.noted


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long replays have let others run; of a log they read four entries at once."""
    pauses: list[float] = []

    def pause(seconds: float) -> object:
        pauses.append(seconds)
        return asyncio.sleep(0)

    monkeypatch.setattr(replaying_module, "AT_ONCE", 4)
    monkeypatch.setattr(replaying_module, "asyncio", SimpleNamespace(sleep=pause))
    return pauses


@pytest.mark.parametrize(("seconds", "count"), [(-1.0, 3 + 1 + 3 + 1 + 1), (1_000.0, 1 + 1)], ids=["one entry", "all that were read"])
async def test_a_long_log_is_replayed_in_slices(
    make_world: MakeWorld, pauses: list[float], monkeypatch: pytest.MonkeyPatch, seconds: float, count: int
) -> None:
    world = await make_world(Listener, max_active=10_000)
    listener = await world.start(Listener.run, "l")
    for number in range(9):
        await send_signal(listener, Listener.told, number)
    monkeypatch.setattr(replaying_module, "SLICE", seconds)

    await world.restart()
    await send_signal(listener, Listener.told, 9)

    assert await listener.result() == list(range(10))
    assert pauses == [0] * count


async def test_a_hook_may_ask_for_nothing_on_replay_either(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await make_world(Listener, max_active=10_000)
    listener = await world.start(Listener.run, "l")
    await send_signal(listener, Listener.told, 0)
    await world.restart()
    monkeypatch.setattr(Listener, "talks", True)

    await send_signal(listener, Listener.told, 1)
    await world.settled()

    with pytest.raises(ActorQuarantined, match="asks for something"):
        await listener.result()


@pytest.mark.parametrize("weather", [4, 5, 6])
async def test_what_was_noted_first_counts(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, weather: int
) -> None:
    world = await make_world(Listener, max_active=10_000)
    listener = await world.start(Listener.run, "l")
    await world.restart()
    monkeypatch.setattr(Listener, "weather", weather)

    await send_signal(listener, Listener.told, 0)
    await world.settled()

    assert await listener.query(Listener.note) == 5
    assert ("after replay self.noted was not what it had been" in caplog.text) == (weather != 5)


@pytest.mark.parametrize(("python", "count"), [(python_version(), 0), ("2.7", 1), ("3.99", 1)])
def test_a_refused_replay_blames_python_only_if_it_is_another(caplog: pytest.LogCaptureFixture, python: str, count: int) -> None:
    activation, checkpoint = SimpleNamespace(actor="Listener/l"), SimpleNamespace(python=python, anyio=anyio_version())

    replaying_module._warn_of_versions(activation, checkpoint)  # type: ignore[arg-type]

    assert len([line for line in caplog.messages if f"Listener/l waits since Python {python} with anyio" in line]) == count
