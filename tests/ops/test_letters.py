"""Dead letters from the command line: redriven, edited and dropped by a host, or stored for the next one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from perdure.actors.ops.cli import _asking

from .conftest import Command, Hosting


@pytest.fixture
def spoilt(perdure: Command, url: str, hosting: Hosting) -> str:
    """A store in which two baskets have letters: b-1 has two, b-2 has one."""
    with hosting(url):
        for key, sku in (("b-1", "x"), ("b-1", "y"), ("b-2", "z")):
            perdure("send", "Basket", key, "add", f'["{sku}", -1]', store=url)
            perdure("send", "Basket", key, "add", f'["after {sku}"]', "--wait", store=url)
    return url


@pytest.fixture
def host(spoilt: str, hosting: Hosting) -> Iterator[None]:
    """A host of that store."""
    with hosting(spoilt):
        yield


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands wait for no host."""
    monkeypatch.setattr(_asking, "SHORT_PATIENCE", timedelta(seconds=0.05))


def listed(perdure: Command, url: str, *whose: str) -> list[str]:
    """The numbers of letters."""
    return [str(letter["seq"]) for letter in json.loads(perdure("dead-letters", "list", *whose, "--json", store=url).stdout)]


@pytest.mark.usefixtures("host")
def test_an_edited_letter_is_redriven_with_its_new_arguments(perdure: Command, spoilt: str) -> None:
    first, second = listed(perdure, spoilt, "Basket", "b-1")

    edited = perdure("dead-letters", "edit", "Basket", "b-1", first, '["x", 3]', store=spoilt)
    redriven = perdure("dead-letters", "redrive", "Basket", "b-1", first, store=spoilt)
    answer = perdure("send", "Basket", "b-1", "add", '["last"]', "--wait", store=spoilt)

    assert edited.stdout == f"Basket/b-1: dead letter {first} has other arguments; redrive puts it back\n"
    assert (redriven.stdout, answer.stdout) == ("Basket/b-1: 1 message put back\n", "4\n")
    assert listed(perdure, spoilt, "Basket", "b-1") == [second]


@pytest.mark.usefixtures("host")
def test_a_type_is_redriven_whole(perdure: Command, spoilt: str) -> None:
    told = perdure("dead-letters", "redrive", "Basket", "--json", store=spoilt)
    for key in ("b-1", "b-2"):
        perdure("send", "Basket", key, "add", '["last"]', "--wait", store=spoilt)

    assert json.loads(told.stdout) == {"redriven": 3}
    assert listed(perdure, spoilt) == ["5", "6", "3"]  # put aside again, as messages of their own


@pytest.mark.usefixtures("host")
def test_nothing_is_dropped_before_it_is_confirmed(perdure: Command, spoilt: str) -> None:
    asked = perdure("dead-letters", "drop", "Basket", "b-1", store=spoilt)
    kept = listed(perdure, spoilt, "Basket", "b-1")
    one = perdure("dead-letters", "drop", "Basket", "b-1", kept[0], store=spoilt)
    rest = perdure("dead-letters", "drop", "Basket", "b-1", "--yes", store=spoilt)

    assert (asked.exit_code, len(kept)) == (1, 2)
    assert "Forget 2 dead letters of Basket/b-1 for good?" in asked.stderr
    assert (one.stdout, rest.stdout) == ("Basket/b-1: 1 dead letter dropped\n",) * 2
    assert listed(perdure, spoilt, "Basket", "b-1") == []


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["edit", "Basket", "b-1", "77", "[]"], "Basket/b-1 has no dead letter 77"),
        (["edit", "Basket", "b-1", "SEQ", "[1]"], "1 is not of type 'string'"),
        (["redrive", "Baskte"], "Did you mean 'Basket'?"),
        (["redrive", "Baskte", "b-1"], "Did you mean 'Basket'?"),
    ],
)
def test_a_mistake_changes_no_letter(perdure: Command, spoilt: str, call: list[str], said: str) -> None:
    letters = listed(perdure, spoilt)

    result = perdure("dead-letters", *(letters[0] if part == "SEQ" else part for part in call), store=spoilt)

    assert (result.exit_code, result.stdout, listed(perdure, spoilt)) == (2, "", letters)
    assert said in result.stderr


@pytest.mark.usefixtures("impatient")
def test_what_is_asked_without_a_host_is_done_by_the_next(perdure: Command, spoilt: str, hosting: Hosting) -> None:
    said = perdure("dead-letters", "drop", "Basket", "b-2", "--yes", store=spoilt)
    both = perdure("dead-letters", "redrive", "Basket", "--json", store=spoilt)
    with hosting(spoilt):
        perdure("send", "Basket", "b-2", "add", '["last"]', "--wait", store=spoilt)

    later = "is stored; no host runs, so the next one does it\n"
    assert (said.exit_code, said.stdout) == (0, f"the request for Basket/b-2 {later}")
    assert (both.exit_code, both.stdout, both.stderr) == (0, "", f"the request for 2 actors of Basket {later}")
    assert listed(perdure, spoilt, "Basket", "b-2") == []


@pytest.mark.usefixtures("impatient")
def test_a_retry_does_not_wait_for_ever(perdure: Command, url: str) -> None:
    said = perdure("retry", "Basket", "b-1", store=url)

    assert said.stdout == "the request for Basket/b-1 is stored; no host runs, so the next one does it\n"
