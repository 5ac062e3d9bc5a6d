"""Hosting, sending and signalling from the command line, with and without a host, through the installed command."""

from __future__ import annotations

import json
import signal
import subprocess

import anyio
import pytest

from .conftest import KIOSK, Command, Hosting, installed, trade


def skus(perdure: Command, url: str, key: str) -> list[str]:
    """What the store says is in a basket."""
    lines = json.loads(perdure("show", "Basket", key, "--json", store=url).stdout)["state"]["lines"]
    return [line["pairs"][0][1] for line in lines]


def test_a_module_is_hosted_until_it_is_told_to_stop(perdure: Command, url: str, hosting: Hosting) -> None:
    with hosting(url) as host:
        answer = perdure("send", "Basket", "b-1", "add", '{"sku": "sku-1", "quantity": 2}', "--wait", store=url)
        host.send_signal(signal.SIGTERM)

        assert (answer.stdout, host.wait(10)) == ("1\n", 0)
    assert skus(perdure, url, "b-1") == ["sku-1"]


def test_what_is_sent_without_a_host_is_handled_by_the_next_one(perdure: Command, url: str, hosting: Hosting) -> None:
    said = perdure("send", "Basket", "b-2", "add", '["early"]', store=url).stdout
    with hosting(url):
        perdure("send", "Basket", "b-2", "add", '["late"]', "--wait", store=url)

    assert said == "the event for Basket/b-2 is stored; no host runs, so the next one handles it\n"
    assert skus(perdure, url, "b-2") == ["early", "late"]


def test_what_was_sent_twice_with_a_key_happens_once(perdure: Command, url: str, hosting: Hosting) -> None:
    for _ in range(2):
        perdure("send", "Basket", "b-3", "add", '["sku-1"]', "--key", "k", store=url)

    with hosting(url):
        answer = perdure("send", "Basket", "b-3", "add", '["sku-2"]', "--wait", store=url)

    assert answer.stdout == "2\n"


def test_signals_reach_handlers_and_wait_where_they_are_declared(perdure: Command, url: str, hosting: Hosting) -> None:
    with hosting(url):
        perdure("send", "Basket", "b-1", "add", '["sku-0"]', store=url)
        said = perdure("signal", "Basket", "b-1", "clear", store=url).stdout
        perdure("signal", "Basket", "b-1", "approved", '"ada"', store=url)
        perdure("send", "Basket", "b-1", "add", '["sku-1"]', "--wait", store=url)

    assert said == "the signal for Basket/b-1 is stored\n"
    assert skus(perdure, url, "b-1") == ["sku-1"]
    assert "approved(payload='ada')" in perdure("show", "Basket", "b-1", store=url).stdout


def test_what_a_handler_raises_is_trouble_with_its_text(perdure: Command, url: str, hosting: Hosting) -> None:
    with hosting(url):
        result = perdure("send", "Basket", "b-1", "add", '["sku-1", -1]', "--wait", store=url)

    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "error: ValueError: less than nothing\n")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["send", "Baskte", "b", "add"], "Did you mean 'Basket'? There is: Basket, Note, Till."),
        (["send", "Basket", "b", "ad"], "Did you mean 'add'? There is: add, befriend."),
        (["signal", "Basket", "b", "approve"], "Did you mean 'approved'? There is: clear, approved."),
        (["send", "Basket", "b", "add", "[1]"], "(sku: string, quantity: integer = 1) cannot be called so: sku: 1 is not of type 'string'"),
        (["send", "Basket", "b", "add", "[oops"], "that is not JSON"),
        (["send", "Basket", "b", "befriend", "[1]"], "no JSON form"),
        (["send", "Basket", "b" * 201, "add", '["x"]'], "it has 201 bytes of UTF-8, and 200 are allowed"),
    ],
)
def test_a_mistake_stores_nothing_and_names_what_exists(perdure: Command, url: str, hosting: Hosting, call: list[str], said: str) -> None:
    result = perdure(*call, store=url)
    with hosting(url):
        perdure("send", "Note", "n", "write", '["done"]', "--wait", store=url)

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert [actor["type"] for actor in json.loads(perdure("ls", "--json", store=url).stdout)] == ["Note"]


def test_an_actor_that_stands_still_is_named_with_its_cause(perdure: Command, url: str, hosting: Hosting) -> None:
    anyio.run(trade, url)  # its states name this package's classes, which `perdure run` on a file does not find

    with hosting(url):
        result = perdure("send", "Basket", "b-1", "add", '["sku-9"]', "--wait", store=url)
        listed = json.loads(perdure("ls", "--status", "quarantined", "--json", store=url).stdout)
        shown = perdure("show", "Basket", "b-1", store=url).stdout
        again = perdure("retry", "Basket", "b-1", store=url).stdout
        perdure("send", "Basket", "b-1", "add", '["sku-9"]', "--wait", store=url)
        all_of_them = perdure("retry", "Basket", store=url).stdout

    assert "is quarantined" in result.stderr
    assert [actor["key"] for actor in listed] == ["b-1"]
    assert "No module named" in shown
    assert again == "Basket/b-1 goes on\n"
    assert all_of_them == "Basket: 1 actor let go on\n"


def test_a_second_host_is_refused_in_one_sentence(url: str, hosting: Hosting) -> None:
    with hosting(url) as host:
        second = subprocess.run([installed(), "run", KIOSK, "--store", url], capture_output=True, text=True, timeout=30, check=False)

    assert (second.returncode, second.stdout) == (1, "")
    assert f"process {host.pid} hosts this store already" in second.stderr
    assert "Traceback" not in second.stderr
