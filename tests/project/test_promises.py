"""Every promise is held by a test, and the map of promises tells which."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from .promises import MARK, PAGE, ROOT, Holder, Promise, headings, link, marks, page, promised, read_bugs, read_holders, read_promises

SAMPLE = f"""
import pytest

pytestmark = [pytest.mark.anyio, {MARK}("whole")]

@{MARK}("first", "second")
def test_one(): ...

class TestMore:
    @{MARK}("first")
    def test_two(self): ...
"""


@pytest.fixture(scope="module")
def promises() -> list[Promise]:
    """All that is promised."""
    return read_promises()


@pytest.fixture(scope="module")
def holders() -> Mapping[str, list[Holder]]:
    """What the tests say that they hold."""
    return read_holders()


def test_a_mark_counts_for_what_it_stands_on() -> None:
    found = list(marks(SAMPLE, "a.py"))

    assert found == [
        ("whole", Holder("a.py", "")),
        ("first", Holder("a.py", "test_one")),
        ("second", Holder("a.py", "test_one")),
        ("first", Holder("a.py", "TestMore")),
    ]


def test_a_promise_is_told_with_its_tests_by_file() -> None:
    promise = Promise("safe", "Part", "It is safe.", "docs/guide.md#steps")
    holders = [Holder("tests/a.py", "test_one_is"), Holder("tests/a.py", "test_two_are"), Holder("tests/b.py", "")]

    lines = promised(promise, holders).splitlines()

    assert lines == [
        "**safe**: It is safe. ([steps](guide.md#steps))",
        "",
        "- one is; two are ([`a.py`](../tests/a.py))",
        "- all of [`b.py`](../tests/b.py)",
    ]
    assert link("README.md") == "[README.md](../README.md)"


def test_every_promise_is_held_by_a_test(promises: list[Promise], holders: Mapping[str, list[Holder]]) -> None:
    assert [promise.id for promise in promises if promise.id not in holders] == []


def test_every_mark_names_a_promise(promises: list[Promise], holders: Mapping[str, list[Holder]]) -> None:
    known = {promise.id for promise in promises}

    assert {name: tests for name, tests in holders.items() if name not in known} == {}
    assert len(known) == len(promises)


def test_every_promise_is_documented_where_it_says(promises: list[Promise]) -> None:
    targets = [promise.documented.partition("#") for promise in promises]

    assert [path for path, _, heading in targets if heading not in {*headings(path), ""}] == []


def test_every_guarantee_of_the_readme_is_in_the_map(promises: list[Promise]) -> None:
    guaranteed = (ROOT / "README.md").read_text().partition("## What is guaranteed")[2].partition("\n## ")[0]

    leads = re.findall(r"^- \*\*(.*?)\.?\*\*", guaranteed, re.MULTILINE)

    assert set(leads) - {promise.part for promise in promises} == set()
    assert leads


def test_every_bug_that_is_told_has_its_test() -> None:
    tests = [bug.test.partition("::") for bug in read_bugs()]

    assert [name for path, _, name in tests if not re.search(rf"\bdef {name}\(", (ROOT / path).read_text())] == []


def test_the_map_is_what_would_be_written_now() -> None:
    assert PAGE.read_text() == page(), "docs/promises.md is out of date: make promises"
