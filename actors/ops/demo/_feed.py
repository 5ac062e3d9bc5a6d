"""Feeds: events of many cases in the order in which they come in, from a file of JSON lines or from a process log in CSV.

A feed is checked whole before anything is sent: each event has an id of its own, a case, an activity and a time.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, final

import msgspec

from ....storage import PerdureError
from ..._errors import InvalidKey
from ..._ids import actor_id
from ._actors import Case, Order


@final
class FeedError(PerdureError):
    """A feed that cannot be used. `place` is the file and the line, `problem` what is wrong there."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(place, problem)
        self.place = place
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


class Event(NamedTuple):
    """One event: `arguments` are those of the actor's `record`, the event's own id first."""

    id: str
    case: str
    at: datetime
    arguments: tuple[str | int | datetime, ...]


class Columns(NamedTuple):
    """The columns of a process log that are read; by default those of the XES standard as process mining tools export it."""

    case: str = "case:concept:name"
    activity: str = "concept:name"
    time: str = "time:timestamp"


@final
@dataclass(frozen=True, slots=True)
class Feed:
    """All events, in the order in which they are sent, for actors of one type."""

    name: str
    actor: type[Order | Case]
    events: list[Event]

    def by_case(self) -> dict[str, list[str]]:
        """The ids of each case's events, in order."""
        cases: dict[str, list[str]] = {}
        for event in self.events:
            cases.setdefault(event.case, []).append(event.id)
        return cases


class _Line(msgspec.Struct):
    """One line of a JSON feed; what else a line has is not read."""

    id: str
    order: str
    event: str
    at: datetime
    sku: str = ""
    quantity: int = 1
    cents: int = 0


def shipped_feed() -> Feed:
    """The feed that comes with the package: some 2,000 events of 200 orders."""
    return _json_feed("orders.jsonl", files("perdure.actors.ops.demo").joinpath("orders.jsonl").read_bytes())


def read_feed(path: Path, columns: Columns) -> Feed:
    """The feed in a file: CSV if its name ends so, else JSON lines. Raises FeedError with the line, or OSError."""
    data = path.read_bytes()
    return _csv_feed(path.name, data, columns) if path.suffix.lower() == ".csv" else _json_feed(path.name, data)


def _json_feed(name: str, data: bytes) -> Feed:
    return _checked(Feed(name, Order, [event for _, event in _json_events(name, data)]))


def _json_events(name: str, data: bytes) -> Iterator[tuple[int, Event]]:
    decoder = msgspec.json.Decoder(_Line)
    first_lines: dict[str, int] = {}
    for number, raw in enumerate(data.splitlines(), 1):
        if not raw.strip():
            continue
        place = f"{name}, line {number}"
        try:
            line = decoder.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FeedError(
                place, f'{error}. A line is like {{"id": "e-1", "order": "o-7", "event": "paid", "at": "2026-03-02T09:00:00Z"}}.'
            ) from error
        if first_lines.setdefault(line.id, number) != number:
            raise FeedError(place, f"the id {line.id!r} stands on line {first_lines[line.id]} already. Each event needs its own.")
        arguments = (line.id, line.event, _aware(line.at), line.sku, line.quantity, line.cents)
        yield number, Event(line.id, line.order, _aware(line.at), arguments)


def _csv_feed(name: str, data: bytes, columns: Columns) -> Feed:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FeedError(name, f"it is not UTF-8 ({error}).") from error
    header = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if header.count(";") > header.count(",") else ",")
    _check_columns(name, rows.fieldnames or (), columns)
    events = list(_csv_events(name, rows, columns))
    return _checked(Feed(name, Case, sorted(events, key=lambda event: event.at)))  # a log is often written case by case


def _csv_events(name: str, rows: csv.DictReader[str], columns: Columns) -> Iterator[Event]:
    try:
        for number, row in enumerate(rows, 1):
            case, activity, time = (row[column] or "" for column in columns)
            at = _time(f"{name}, line {rows.line_num}", time, columns.time)
            yield Event(f"row-{number}", case, at, (f"row-{number}", activity, at))
    except csv.Error as error:
        raise FeedError(f"{name}, line {rows.line_num}", f"{error}.") from error


def _check_columns(name: str, found: Iterable[str], columns: Columns) -> None:
    existing = list(found)
    for option, column in zip(("--case-column", "--activity-column", "--time-column"), columns, strict=True):
        if column not in existing:
            nearest = get_close_matches(column, existing, 1, 0.4)
            meant = f" Did you mean {option} {nearest[0]!r}?" if nearest else ""
            raise FeedError(name, f"there is no column {column!r} for {option}.{meant} There is: {', '.join(existing) or 'none'}.")


def _checked(feed: Feed) -> Feed:
    if not feed.events:
        raise FeedError(feed.name, "there is no event in it.")
    for case in feed.by_case():
        try:
            actor_id(feed.actor.__name__, case)
        except InvalidKey as error:
            raise FeedError(feed.name, str(error)) from error
    return feed


def _time(place: str, text: str, column: str) -> datetime:
    try:
        return _aware(datetime.fromisoformat(text))
    except ValueError as error:
        raise FeedError(place, f"{text!r} in column {column!r} is no time of ISO 8601, such as 2026-03-02T09:00:00+01:00.") from error


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)
