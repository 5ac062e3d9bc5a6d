"""Calls by name, for tools without the user's code: JSON in, JSON out, checked against what the store says, and nothing unpickled."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from perdure.actors import (
    AskTimeout,
    Client,
    ExtraNotInstalled,
    NamedRef,
    RemoteError,
    UnknownActorType,
    UnknownHandler,
    WrongArguments,
    durable_actor,
    on_event,
    on_signal,
    query,
    signal,
)
from perdure.actors.testing import World

pytestmark = pytest.mark.anyio


class Line(msgspec.Struct):
    """What is ordered."""

    sku: str
    count: int = 1


class Secret:
    """What has no JSON form."""

    def __repr__(self) -> str:
        return "<Secret>"


@durable_actor
class Basket:
    """Takes all kinds of arguments."""

    approved = signal(str)

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.notes: list[str] = []

    @on_event
    def add(self, line: Line, *more: Line, at: datetime | None = None) -> int:
        self.lines += (line, *more)
        return len(self.lines)

    @on_event
    def hide(self, secret: Secret) -> None: ...

    @on_event
    def reveal(self) -> dict[str, object]:
        return {"secret": Secret(), "lines": self.lines}

    @on_event
    def drop(self, sku: str) -> None:
        raise LookupError(sku)

    @on_signal
    def note(self, text: str) -> None:
        self.notes.append(text)

    @query
    def counts(self) -> dict[str, int]:
        return {line.sku: line.count for line in self.lines}


@pytest.fixture
async def basket(tmp_path: Path) -> AsyncIterator[NamedRef]:
    """A basket known by its name alone."""
    url = f"lmdb:{tmp_path}/store"
    async with World([Basket], store=url), Client(url) as client:
        yield client.ref("Basket", "b-1")


@pytest.mark.parametrize(
    "arguments",
    [
        '{"line": {"sku": "tea", "count": 3}}',
        '[{"sku": "tea", "count": 3}]',
        b'{"line": {"sku": "tea", "count": 3}, "at": "2026-01-01T00:00:00Z"}',
    ],
)
async def test_arguments_in_json_become_what_the_handler_takes(basket: NamedRef, arguments: str | bytes) -> None:
    assert await basket.ask("add", arguments) == "1"

    assert await basket.query("counts") == '{"tea":3}'


async def test_what_is_left_of_an_array_goes_to_the_rest(basket: NamedRef) -> None:
    assert await basket.ask("add", '[{"sku": "tea"}, {"sku": "pot"}, {"sku": "cup"}]') == "3"


async def test_signals_of_both_kinds_are_sent_by_name(basket: NamedRef) -> None:
    await basket.send_signal("note", '"soon"')
    await basket.send_signal("approved", '{"payload": "ada"}')
    await basket.send_event("add", '{"line": {"sku": "tea"}}')

    assert await basket.ask("reveal") == '{"secret":"<Secret>","lines":[{"sku":"tea","count":1}]}'


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("{}", r"add\(line, \*more, at = null\).*'line' is a required property"),
        ('{"line": {"sku": 7}}', "line.sku: 7 is not of type 'string'"),
        ('{"line": {"sku": "tea"}, "colour": "red"}', "colour"),
        ("{", "not JSON"),
        (b"\xff", "not JSON"),
        ('"\ud800"', "not JSON"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused(basket: NamedRef, arguments: str | bytes, problem: str) -> None:
    with pytest.raises(WrongArguments, match=problem):
        await basket.ask("add", arguments)


async def test_too_many_arguments_are_refused(basket: NamedRef) -> None:
    with pytest.raises(WrongArguments, match="too many"):
        await basket.send_signal("note", '["soon", "later"]')


async def test_what_is_not_there_or_opaque_is_refused(basket: NamedRef) -> None:
    with pytest.raises(UnknownHandler, match="Did you mean 'add'"):
        await basket.send_event("ad")
    with pytest.raises(UnknownHandler, match="There is: note, approved"):
        await basket.send_signal("add")
    with pytest.raises(WrongArguments, match="no JSON form"):
        await basket.send_event("hide")


async def test_a_type_that_no_host_served_is_refused(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/store"
    async with World([Basket], store=url), Client(url) as client:
        with pytest.raises(UnknownActorType, match="There is: Basket"):
            await client.ref("Bag", "b").delete()


async def test_what_a_handler_raises_is_told_without_its_class(basket: NamedRef) -> None:
    with pytest.raises(RemoteError, match="LookupError: tea") as raised:
        await basket.ask("drop", '"tea"')

    assert "in drop" in raised.value.traceback


async def test_a_key_stands_for_the_same_json_alone(basket: NamedRef) -> None:
    once = basket.options(idempotency_key="k")
    await once.send_event("add", '[{"sku": "tea"}]')

    assert await once.ask("add", '{"line": {"sku": "tea"}}') == "1"
    with pytest.raises(RemoteError, match="IdempotencyMismatch"):
        await once.ask("add", '[{"sku": "pot"}]')


async def test_an_actor_is_read_and_deleted_by_name(basket: NamedRef) -> None:
    await basket.ask("add", '[{"sku": "tea"}]')
    assert (await basket.info()).turn == 1

    await basket.retry()
    await basket.delete()

    assert await basket.query("counts") == "{}"


async def test_a_timeout_is_for_named_calls_too(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/store"
    async with World([Basket], store=url):
        pass
    async with Client(url) as client:
        with pytest.raises(AskTimeout):
            await client.ref("Basket", "b").options(timeout=timedelta(seconds=0.02)).ask("reveal")


async def test_without_jsonschema_the_extra_is_named(basket: NamedRef, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)

    with pytest.raises(ExtraNotInstalled, match=r'pip install "perdure\[cli\]"'):
        await basket.ask("reveal")
