"""What the command line tells of a store: no host, no class and no unpickling is needed, and a mistake is answered by help."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from .conftest import KIOSK, Command


def test_actors_are_listed_in_order_with_what_waits(perdure: Command, kiosk_url: str) -> None:
    lines = perdure("ls", store=kiosk_url).stdout.splitlines()

    assert [line.split()[:4] for line in lines[1:]] == [
        ["Basket", "b-1", "1", "idle"],
        ["Basket", "b-2", "1", "idle"],
        ["Note", "'a\\x1b[31mb'", "1", "idle"],
        ["Till", "t-1", "1", "idle"],
    ]
    assert "failed 1 time, again: in" in lines[4]


@pytest.mark.parametrize(
    ("filters", "keys"),
    [
        (["Basket"], ["b-1", "b-2"]),
        (["Basket", "--version", "1"], ["b-1", "b-2"]),
        (["Basket", "--version", "2"], []),
        (["Basket", "--prefix", "b-2"], ["b-2"]),
        (["--prefix", "t"], ["t-1"]),
        (["--limit", "1"], ["b-1"]),
        (["--status", "quarantined"], []),
        (["Basket", "--status", "idle", "--limit", "9"], ["b-1", "b-2"]),
    ],
)
def test_lists_are_filtered(perdure: Command, kiosk_url: str, filters: list[str], keys: list[str]) -> None:
    listed = json.loads(perdure("ls", "--json", *filters, store=kiosk_url).stdout)

    assert [actor["key"] for actor in listed] == keys


def test_an_actor_is_shown_without_its_classes(perdure: Command, kiosk_url: str) -> None:
    shown = perdure("show", "Basket", "b-1", store=kiosk_url).stdout

    assert "  event 3, interrupt 0" in shown
    assert ".Line(sku='sku-2', quantity=2)" in shown
    assert "recent: collections.deque((), 3, items=['sku-0', 'sku-1', 'sku-2'])" in shown
    assert "since: datetime.datetime(2026-03-01 09:30:00, " in shown


def test_what_waits_for_an_actor_is_shown_with_its_arguments(perdure: Command, kiosk_url: str) -> None:
    till = perdure("show", "Till", "t-1", store=kiosk_url).stdout
    basket = perdure("show", "Basket", "b-2", store=kiosk_url).stdout

    assert "  2 events, 0 interrupts" in till
    assert [line.split()[1] for line in till.splitlines() if "pay(" in line] == ["pay(100)", "pay(200)"]
    assert "approved('ada')" in basket
    assert "  1, see: perdure dead-letters list Basket b-2" in basket
    assert "friend: ActorRef('Basket', 'b-1')" in basket


def test_an_actor_as_json_has_all_that_is_shown(perdure: Command, kiosk_url: str) -> None:
    told = json.loads(perdure("show", "Till", "t-1", "--json", store=kiosk_url).stdout)
    note = json.loads(perdure("show", "Note", "a\x1b[31mb", "--json", store=kiosk_url).stdout)

    assert (told["status"], told["attempts"], told["state"]) == ("idle", 1, None)
    assert [message["arguments"] for message in told["waiting"]["events"]] == [[100], [200]]
    assert (note["codec"], note["state"]) == ("msgspec", {"text": "hello"})


def test_a_state_is_loaded_with_its_classes_if_asked(perdure: Command, kiosk_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "kiosk", raising=False)

    shown = perdure("show", "Basket", "b-1", "--unpickle", KIOSK, store=kiosk_url).stdout

    assert "Line(sku='sku-2', quantity=2)" in shown
    assert "since: datetime.datetime(2026, 3, 1, 9, 30, tzinfo=datetime.timezone.utc)" in shown


def test_dead_letters_are_listed_and_shown_with_their_cause(perdure: Command, kiosk_url: str) -> None:
    (letter,) = json.loads(perdure("dead-letters", "list", "Basket", "b-2", "--json", store=kiosk_url).stdout)
    shown = perdure("dead-letters", "show", "Basket", "b-2", str(letter["seq"]), store=kiosk_url).stdout
    whole = json.loads(perdure("dead-letters", "show", "Basket", "b-2", str(letter["seq"]), "--json", store=kiosk_url).stdout)

    assert (letter["kind"], letter["error"]) == ("event", "ValueError: less than nothing")
    assert whole["arguments"] == ["sku-9", -1]
    assert "  add('sku-9', -1)" in shown
    assert "  again" in shown
    assert 'raise ValueError("less than nothing")' in shown
    assert perdure("dead-letters", "list", "Note", store=kiosk_url).stdout == "no dead letters\n"
    assert json.loads(perdure("dead-letters", "--json", store=kiosk_url).stdout) == [letter]


def test_text_from_the_store_cannot_steer_the_terminal(perdure: Command, kiosk_url: str) -> None:
    printed = [perdure("ls", store=kiosk_url), perdure("show", "Note", "a\x1b[31mb", store=kiosk_url)]

    assert "\x1b" not in "".join(each.output for each in printed)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["ls", "Baskte"], "Did you mean 'Basket'? There is: Basket, Note, Till."),
        (["ls", "--status", "asleep"], "'asleep' is no status; there are idle, suspended,"),
        (["show", "Basket", "b-7"], "there is no actor Basket/b-7"),
        (["show", "Basket", "b-1", "--unpickle", "no.such"], "there is no module 'no' here or installed"),
        (["dead-letters", "show", "Basket", "b-2", "77"], "Basket/b-2 has no dead letter 77"),
        (["dead-letters", "list", "Baskte"], "Did you mean 'Basket'?"),
        (["ls", "--store", "kiosk"], "write lmdb:kiosk"),
        (["ls", "--store", "memory:"], "in the memory of its own process alone"),
        (["run", "nothing.py"], "nothing.py: there is no such file"),
        (["run", "json"], "json: no class in it is decorated with @durable_actor"),
    ],
)
def test_a_mistake_is_answered_by_what_exists(perdure: Command, kiosk_url: str, call: list[str], said: str) -> None:
    result = perdure(*call, store=kiosk_url)

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.split())


def test_a_store_that_is_not_there_is_trouble(perdure: Command, tmp_path: Path) -> None:
    result = perdure("ls", store=f"lmdb:{tmp_path}/none")

    assert result.exit_code == 1
    assert f"error: lmdb:{tmp_path}/none: there is no store." in result.stderr
    assert os.listdir(tmp_path) == []
