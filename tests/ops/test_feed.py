"""Feeds are checked whole before anything is sent, and say where they are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from perdure.actors.ops.demo import Case, Order, _generate
from perdure.actors.ops.demo._feed import Columns, FeedError, read_feed, shipped_feed

HEADER = "case:concept:name,concept:name,time:timestamp\n"
LINE = '{"id": "e-1", "order": "o-7", "event": "paid", "at": "2026-03-02T09:00:00Z", "cents": 100, "by": "card"}\n'

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a feed to a file of that name."""

    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_the_shipped_feed_is_what_its_generator_writes() -> None:
    path = Path(_generate.__file__).with_name("orders.jsonl")

    assert path.read_bytes() == b"".join(_generate.feed())


def test_the_shipped_feed_interleaves_two_hundred_orders() -> None:
    feed = shipped_feed()

    assert feed.actor is Order
    assert len(feed.by_case()) == 200
    assert 1_900 < len(feed.events) < 2_100
    assert [event.at for event in feed.events] == sorted(event.at for event in feed.events)


def test_json_lines_become_events_in_their_order(write: Write) -> None:
    feed = read_feed(write("mine.jsonl", LINE + "\n" + LINE.replace("e-1", "e-2")), Columns())

    assert feed.by_case() == {"o-7": ["e-1", "e-2"]}
    assert feed.events[0].arguments[3:] == ("", 1, 100)


def test_a_process_log_is_put_in_order_of_time(write: Write) -> None:
    rows = "c-1,ship,2026-03-02T12:00:00+01:00\nc-2,pay,2026-03-02 10:00:00Z\nc-1,pay,2026-03-01\n"

    feed = read_feed(write("log.csv", "\ufeff" + HEADER + rows), Columns())

    assert feed.actor is Case
    assert [event.id for event in feed.events] == ["row-3", "row-2", "row-1"]
    assert feed.by_case() == {"c-1": ["row-3", "row-1"], "c-2": ["row-2"]}


def test_a_log_may_be_separated_by_semicolons_and_name_its_columns(write: Write) -> None:
    log = write("log.csv", "Order;Step;When\nc-1;pay, twice;2026-03-01\n")

    feed = read_feed(log, Columns("Order", "Step", "When"))

    assert feed.events[0].arguments[:2] == ("row-1", "pay, twice")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("f.jsonl", "\n", "f.jsonl: there is no event in it"),
        ("f.jsonl", LINE + "{oops}\n", "f.jsonl, line 2: "),
        ("f.jsonl", LINE + LINE, "f.jsonl, line 2: the id 'e-1' stands on line 1 already"),
        ("f.jsonl", LINE.replace('"o-7"', "7"), "line 1: Expected `str`, got `int` - at `$.order`"),
        ("f.jsonl", LINE.replace("o-7", "o" * 300), "300 bytes of UTF-8, and 200 are allowed"),
        ("f.csv", "", "There is: none"),
        ("f.csv", HEADER, "there is no event in it"),
        ("f.csv", HEADER.replace("time:timestamp", "time:stamp"), "Did you mean --time-column 'time:stamp'? There is: case:concept:name, "),
        ("f.csv", HEADER + "c-1,pay,yesterday\n", "f.csv, line 2: 'yesterday' in column 'time:timestamp' is no time"),
        ("f.csv", HEADER + "c-1,pay\n", "f.csv, line 2: '' in column 'time:timestamp' is no time"),
    ],
)
def test_a_feed_that_cannot_be_used_says_where_and_why(write: Write, name: str, text: str, said: str) -> None:
    path = write(name, text)

    with pytest.raises(FeedError) as refused:
        read_feed(path, Columns())

    assert said in str(refused.value)
