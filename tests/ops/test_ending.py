"""Actors ended from the command line: by a host that runs, or by the next one."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from perdure.actors.ops.cli import _asking

from .conftest import Command, Hosting

SAID = {"cancel": "is asked to end", "terminate": "has ended"}


def statuses(perdure: Command, url: str) -> dict[str, str]:
    return {actor["key"]: actor["status"] for actor in json.loads(perdure("ls", "--json", store=url).stdout)}


@pytest.mark.parametrize("verb", SAID)
def test_an_actor_is_ended_by_its_host_and_tells_why(perdure: Command, url: str, hosting: Hosting, verb: str) -> None:
    with hosting(url):
        perdure("send", "Basket", "b-1", "add", '["tea"]', "--wait", store=url)
        said = perdure(verb, "Basket", "b-1", "sold out", store=url)
        late = perdure("send", "Basket", "b-1", "add", '["salt"]', "--wait", store=url)

    assert (said.exit_code, said.stdout) == (0, f"Basket/b-1 {SAID[verb]}\n")
    assert statuses(perdure, url) == {"b-1": "cancelled"}
    assert (late.exit_code, "ActorCompleted" in late.stderr) == (1, True)


@pytest.mark.parametrize("verb", SAID)
def test_who_never_was_cannot_be_ended(perdure: Command, url: str, hosting: Hosting, verb: str) -> None:
    with hosting(url):
        unknown = perdure(verb, "Basket", "b-1", store=url)
        misspelt = perdure(verb, "Baskte", "b-1", store=url)

    assert (unknown.exit_code, unknown.stdout, "b-1" in unknown.stderr) == (2, "", True)
    assert (misspelt.exit_code, "Did you mean 'Basket'?" in misspelt.stderr) == (2, True)


@pytest.mark.parametrize("verb", SAID)
def test_the_next_host_ends_an_actor_that_has_none(
    perdure: Command, url: str, hosting: Hosting, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_asking, "SHORT_PATIENCE", timedelta(seconds=0.05))
    with hosting(url):
        perdure("send", "Basket", "b-1", "add", '["tea"]', "--wait", store=url)

    said = perdure(verb, "Basket", "b-1", store=url)
    with hosting(url):
        perdure("send", "Basket", "b-2", "add", '["tea"]', "--wait", store=url)

    assert said.stdout == "the request for Basket/b-1 is stored; no host runs, so the next one does it\n"
    assert statuses(perdure, url) == {"b-1": "cancelled", "b-2": "idle"}
