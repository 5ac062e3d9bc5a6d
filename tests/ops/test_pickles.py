"""Pickles are looked at without being loaded: whatever the bytes are, nothing runs, and the answer comes soon."""

from __future__ import annotations

import os
import pickle
import time
from collections import OrderedDict, deque
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import cloudpickle
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perdure.actors.ops._pickles import outline
from perdure.actors.ops._tree import inline, json_of

from .kiosk import Colour, Line

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


class Canary:
    """Sings when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._path}",)


def shown(value: object, protocol: int = 5) -> str | None:
    return inline(outline(pickle.dumps(value, protocol)).tree, 10_000)


@given(PLAIN, st.integers(0, 5))
def test_plain_values_are_shown_as_python_writes_them(value: object, protocol: int) -> None:
    tree = outline(pickle.dumps(value, protocol))

    assert tree.problem is None
    if protocol >= 3:  # before, bytes were calls of a codec
        assert inline(tree.tree, 1_000_000) == repr(value) or len(repr(value)) > 400


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Line("sku", 2), "tests.ops.kiosk.Line(sku='sku', quantity=2)"),
        (Colour.RED, "tests.ops.kiosk.Colour('red')"),
        (Decimal("1.50"), "decimal.Decimal('1.50')"),
        (deque([1, 2], 3), "collections.deque((), 3, items=[1, 2])"),
        (OrderedDict(a=1), "collections.OrderedDict(a=1)"),
        (datetime(2026, 3, 2, 9, 0, 1, 5, tzinfo=UTC), "datetime.datetime(2026-03-02 09:00:01.000005, UTC)"),
        (date(2026, 3, 2), "datetime.date(2026-03-02)"),
        ({1}, "{1}"),
        (frozenset({1}), "frozenset({1})"),
        (len, "builtins.len"),
    ],
)
def test_an_object_is_shown_as_what_would_make_it(value: object, text: str) -> None:
    kind = type(value).__module__

    assert shown(value) == text.replace("tests.ops.kiosk", kind)


def test_nothing_that_a_pickle_names_is_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    assert shown([Canary(canary)]) == f"[posix.system('touch {canary}')]"

    assert not canary.exists()


def test_a_value_that_contains_itself_is_cut() -> None:
    endless: list[object] = []
    endless.append(endless)

    assert "[[[…]]]" in (shown(endless) or "")


def bombs() -> dict[str, bytes]:
    laughs: list[object] = []
    for _ in range(60):
        laughs = [laughs, laughs]
    return {
        "a thousand laughs": pickle.dumps(laughs),
        "an object that is its own state": b"\x80\x05}\x8c\x01a" + b"K\x01s" + b"2b" * 100_000 + b".",
        "a text that is said to be endless": b"\x80\x05\x8d" + b"\xff" * 7 + b"\x7f" + b"a",
        "a number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
        "a number of a million bytes": b"\x8b\x40\x42\x0f\x00" + b"\x7f" * 1_000_000 + b".",
        "marks and nothing else": b"(" * 1_000_000,
        "very deep": b"\x80\x05" + b"]" * 1_000_000 + b"a" * 999_999 + b".",
    }


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_is_shown_in_bounded_time(name: str) -> None:
    began = time.monotonic()

    tree = outline(bombs()[name]).tree
    told = json_of(tree), inline(tree, 100)

    assert len(str(told)) < 2_000_000
    assert time.monotonic() - began < 10


@given(st.binary(max_size=300))
def test_any_bytes_have_an_outline(data: bytes) -> None:
    assert msgspec.json.encode(json_of(outline(data).tree))


@given(PLAIN, st.data())
def test_a_damaged_pickle_has_an_outline(value: object, data: st.DataObject) -> None:
    raw = bytearray(pickle.dumps([value, Line("sku", 1)]))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))

    assert msgspec.json.encode(json_of(outline(bytes(raw)).tree))


def test_of_a_torn_pickle_the_beginning_is_shown() -> None:
    raw = pickle.dumps({"status": "paid", "lines": list(range(100))})

    torn = outline(raw[:60])

    assert (inline(torn.tree, 1000) or "").startswith("{'status': 'paid', 'lines': [0, 1, 2, 3")
    assert torn.problem is not None


def test_what_is_pickled_by_value_is_shown_too() -> None:
    assert "_make_function" in (inline(outline(cloudpickle.dumps(lambda: datetime.now(UTC))).tree, 100_000) or "")
