"""Nothing mutable crosses an actor's edge: what is emitted, sent, or given to a step and returned by it is a copy."""

from __future__ import annotations

from typing import Any

import pytest
from perdure.actors import current_actor, durable_actor, emit, on_event, query, step, step_info

from .conftest import MakeWorld

pytestmark = [pytest.mark.anyio, pytest.mark.promise("nothing-mutable-crosses")]


@step
async def lengthen(words: list[str]) -> list[str]:
    kept: list[list[str]] = step_info().resources["kept"]
    kept.append(words)
    words.append("by the step")
    return words


@durable_actor
class Writer:
    """Goes on writing on what it has handed out."""

    def __init__(self) -> None:
        self.words = ["mine"]

    @on_event
    def publish(self) -> None:
        emit("words", self.words)
        current_actor().ref(Writer, "reader").send_event(Writer.take, self.words)
        self.words.append("afterwards")

    @on_event
    def take(self, words: list[str]) -> None:
        self.words = words

    @on_event
    async def have_lengthened(self) -> tuple[list[str], list[str]]:
        longer = await lengthen(self.words)
        kept: list[list[str]] = current_actor().resources["kept"]
        kept[0].append("by whoever kept it")
        return self.words, longer

    @query
    def written(self) -> list[str]:
        return self.words


async def test_what_is_emitted_or_sent_is_as_it_was_then(make_world: MakeWorld) -> None:
    world = await make_world(Writer)

    await world.ref(Writer, "writer").ask(Writer.publish)
    await world.settled()

    item = await anext(aiter(world.ref(Writer, "writer").stream()))
    assert item.payload == await world.ref(Writer, "reader").query(Writer.written) == ["mine"]
    assert await world.ref(Writer, "writer").query(Writer.written) == ["mine", "afterwards"]


async def test_what_a_step_is_given_and_returns_are_copies(make_world: MakeWorld) -> None:
    resources: dict[str, Any] = {"kept": []}
    world = await make_world(Writer, resources=resources)

    mine, longer = await world.ref(Writer, "writer").ask(Writer.have_lengthened)

    assert (mine, longer) == (["mine"], ["mine", "by the step"])
    assert resources["kept"] == [["mine", "by the step", "by whoever kept it"]]
