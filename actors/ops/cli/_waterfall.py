"""How traces are drawn: one line a span, below the one that caused it, with a bar on a time axis that all lines of a trace share.

Work is drawn to scale: time in which an innermost span is under way. So is a wait, but never longer than a tenth of all work (or than
all work, where some outer span is under way), and all waits together no longer than the work: so three days between two milliseconds leave
both to be seen. Where a wait was shortened, a dotted line runs down through the bars.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, final

from rich.console import Console
from rich.text import Text

from ....tracing import KeptSpan, SpanRow, Trace, names
from .._tree import printable
from .._wording import counted, duration
from ._screen import key_text, when

WIDEST: Final = 120  # columns of what is no terminal, or a very wide one
LONGEST_BAR: Final = 48  # columns
SHORTEST_BAR: Final = 8  # columns; a narrower screen shows durations alone
FIRST_LINES: Final = 160  # of a longer trace; and of its end
LAST_LINES: Final = 40
SHARE_OF_A_WAIT: Final = 10
NOTABLE_LATENESS: Final = 1.0  # seconds
MOST_LINKS: Final = 3  # of one span that are named

_STYLES: Final = {"server": "magenta", "client": "magenta", "producer": "cyan", "consumer": "green"}


class Picture(NamedTuple):
    """What is drawn: traces in order of time; the actor that was asked for; by epoch, what hosts that found a crash had to take up."""

    actor: tuple[str, str]
    traces: list[Trace]
    recoveries: Mapping[int, int]


class _Layout(NamedTuple):
    """Columns."""

    width: int
    name: int
    bar: int


@final
class _Axis:
    """Where in a bar of some columns a time is. `gaps` are the columns, from and to, of waits that are drawn shorter than they were."""

    def __init__(self, spans: Sequence[SpanRow], columns: int) -> None:
        work = _work(spans)
        total = max(1.0, sum(end - start for start, end in work))
        waits = [later[0] - earlier[1] for earlier, later in pairwise(work)]
        drawn = _drawn(spans, work, total)
        shrink = min(1.0, total / max(1.0, sum(drawn)))
        self._times: list[int] = []
        self._places: list[float] = []
        place, shortened = 0.0, []
        for (start, end), wait, length in zip(work, [*waits, 0], [*drawn, 0.0], strict=True):
            self._times += [start, end]
            self._places += [place, place + (end - start)]
            place += end - start
            if wait > 2 * length * shrink:
                shortened.append((place, place + length * shrink))
            place += length * shrink
        self._scale = columns / max(1.0, self._places[-1])
        self._columns = columns
        self.gaps = [(self._limited(start), self._limited(end)) for start, end in shortened]

    def column(self, at: int) -> int:
        """The column of a time."""
        index = bisect_right(self._times, at)
        if index in (0, len(self._times)):
            return 0 if index == 0 else self._columns - 1
        before, after = self._times[index - 1], self._times[index]
        low, high = self._places[index - 1], self._places[index]
        return self._limited(low + (high - low) * (at - before) / (after - before))

    def bar(self, start: int, end: int) -> tuple[str, str, str]:
        """What is before a span's bar, the bar, and what is after it."""
        first = self.column(start)
        last = max(first, self.column(end))
        cells = [" "] * first + ["█"] * (last - first + 1) + [" "] * (self._columns - last - 1)
        for low, high in self.gaps:
            for column in range(low, high + 1):
                if cells[column] == "█" and first < column < last:
                    cells[column] = "╌"
            middle = (low + high) // 2
            if cells[middle] == " ":
                cells[middle] = "┊"
        return "".join(cells[:first]), "".join(cells[first : last + 1]), "".join(cells[last + 1 :])

    def _limited(self, place: float) -> int:
        return min(self._columns - 1, max(0, int(place * self._scale)))


def _work(spans: Sequence[SpanRow]) -> list[tuple[int, int]]:
    """The stretches in which some innermost span is under way, in order; the outermost ones' ends are in them, too."""
    parents = {span.parent_id for span in spans}
    inner = [(span.start, max(span.start, span.end)) for span in spans if span.span_id not in parents]
    first, last = min(span.start for span in spans), max(max(span.start, span.end) for span in spans)
    return _merged([(first, first), *inner, (last, last)])


def _drawn(spans: Sequence[SpanRow], work: Sequence[tuple[int, int]], total: float) -> list[float]:
    """As how long each wait between two stretches of work is drawn."""
    under_way = _merged([(span.start, max(span.start, span.end)) for span in spans])
    begins = [start for start, _ in under_way]
    drawn: list[float] = []
    for (_, start), (end, _) in pairwise(work):
        covered = under_way[bisect_right(begins, start) - 1][1] >= end
        drawn.append(min(end - start, total if covered else total / SHARE_OF_A_WAIT))
    return drawn


def _merged(stretches: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(stretches):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


@final
class Waterfall:
    """A drawing on a screen."""

    def __init__(self, screen: Console, picture: Picture) -> None:
        self._screen = screen
        self._picture = picture
        self._numbers = {trace.trace_id: number for number, trace in enumerate(picture.traces, 1)}
        self._ends = _ends_of_epochs(picture.traces)
        self._crashes = {*picture.recoveries, *_crashes(picture.traces)}
        self._epoch: int | None = None

    def draw(self) -> None:
        """Draw the traces one after the other, and how much later each was."""
        before: Trace | None = None
        for trace in self._picture.traces:
            if before is not None:
                gap = trace.start - before.end
                self._print(Text(f"\n{duration(gap)} later\n" if gap > 0 else "", "dim"))
            self._draw(trace)
            before = trace

    def _draw(self, trace: Trace) -> None:
        layout = self._layout(trace)
        of = f" of {len(self._picture.traces)}" if len(self._picture.traces) > 1 else ""
        number = f"trace {self._numbers[trace.trace_id]}{of}"
        told = f"{when(trace.start / 1e9)}  {duration(trace.end - trace.start)}, {counted(len(trace.spans), 'span')}"
        self._print(Text.assemble((number, "bold"), f"  {trace.trace_id.hex()}  {told}"))
        axis = _Axis([kept.span for kept in trace.spans], layout.bar) if layout.bar else None
        hidden = len(trace.spans) - FIRST_LINES - LAST_LINES
        for index, kept in enumerate(trace.spans):
            if hidden > 0 and index == FIRST_LINES:
                self._print(Text(f"  … {counted(hidden, 'span')} more, see --json", "dim"))
            if hidden <= 0 or not FIRST_LINES <= index < FIRST_LINES + hidden:
                self._draw_span(kept, axis, layout)
        if not trace.whole:
            self._print(Text("  … the earliest spans of this trace are left out: there are too many", "dim"))

    def _draw_span(self, kept: KeptSpan, axis: _Axis | None, layout: _Layout) -> None:
        span = kept.span
        self._note_epoch(span, layout)
        style = "red" if _failed(span) else _STYLES.get(span.kind_name, "blue")
        line = Text(_fitted(_name(kept), layout.name))
        if axis is not None:
            before, bar, after = axis.bar(span.start, span.end)
            line.append_text(Text.assemble("  ", (before, "dim"), (bar, style), (after, "dim")))
        line.append(f" {duration(span.end - span.start):>8}")
        for text, style_of_mark in self._marks(span):
            line.append(f"  {text}", style_of_mark)
        self._print(line)

    def _note_epoch(self, span: SpanRow, layout: _Layout) -> None:
        """Where another host went on, a line across; a crash is told from a stop by what had to be taken up."""
        epoch = _epoch(span)
        if epoch is None:
            return
        if self._epoch is not None and epoch > self._epoch:
            gap = span.start - self._ends[self._epoch]
            later = f" {duration(gap)} later" if gap > 0 else ""
            crashed = any(self._epoch < each <= epoch for each in self._crashes)
            told = f"host {self._epoch} {'crashed' if crashed else 'ended'}, host {epoch} went on{later}"
            line = f"━━ {told} ".ljust(layout.width, "━")
            self._print(Text(line, "bold red" if crashed else "yellow"))
        self._epoch = epoch if self._epoch is None else max(epoch, self._epoch)

    def _marks(self, span: SpanRow) -> Iterator[tuple[str, str]]:
        attributes = span.attributes
        attempt, interrupted, late = (attributes.get(name) for name in (names.ATTEMPT, names.INTERRUPTED, names.TIMER_LATE))
        if isinstance(attempt, int) and attempt > 1:
            yield f"attempt {attempt}", "yellow"
        if interrupted and isinstance(interrupted, int):
            yield f"{counted(interrupted, 'attempt')} interrupted", "yellow"
        if attributes.get(names.RECOVERED):
            yield "recovered", "yellow"
        if isinstance(late, int | float) and late >= NOTABLE_LATENESS:
            yield f"{duration(round(late * 1e9))} late", "yellow"
        if attributes.get(names.KEPT):
            yield "kept", "dim"
        if _failed(span):
            yield printable(str(attributes.get(names.ERROR_TYPE, "failed"))), "red"
        if attributes.get(names.DEAD_LETTER):
            yield "dead letter", "red"
        yield from self._places(span)

    def _places(self, span: SpanRow) -> Iterator[tuple[str, str]]:
        """Whose span it is, if not of the actor that was asked for, and what it is linked to."""
        type_name, key = span.attributes.get(names.ACTOR_TYPE), span.attributes.get(names.ACTOR_KEY)
        if key is not None and (type_name, key) != self._picture.actor:
            yield f"{printable(str(type_name))}/{key_text(str(key))}", "dim"
        linked = dict.fromkeys(trace_id for trace_id, *_ in span.links if trace_id != span.trace_id)
        for trace_id in list(linked)[:MOST_LINKS]:
            number = self._numbers.get(trace_id)
            yield f"← trace {trace_id.hex()[:8]}…" if number is None else f"← trace {number}", "dim"
        if len(linked) > MOST_LINKS:
            yield f"and {len(linked) - MOST_LINKS} more", "dim"

    def _layout(self, trace: Trace) -> _Layout:
        width = min(self._screen.width, WIDEST)
        name = min(max(len(_name(kept)) for kept in trace.spans), max(16, width * 2 // 5))
        marks = max(sum(len(text) + 2 for text, _ in self._marks(kept.span)) for kept in trace.spans)
        bar = min(LONGEST_BAR, width - name - 11 - min(marks, width // 4))
        return _Layout(width, name, bar if bar >= SHORTEST_BAR else 0)

    def _print(self, line: Text) -> None:
        self._screen.print(line, no_wrap=True, overflow="ellipsis", crop=True)


def _name(kept: KeptSpan) -> str:
    return f"{'  ' * min(kept.depth, 12)}  {printable(kept.span.name)}"


def _fitted(text: str, columns: int) -> str:
    return text.ljust(columns) if len(text) <= columns else f"{text[: columns - 1]}…"


def _failed(span: SpanRow) -> bool:
    return span.status_name == "error" or names.ERROR_TYPE in span.attributes


def _epoch(span: SpanRow) -> int | None:
    epoch = span.attributes.get(names.EPOCH)
    return epoch if isinstance(epoch, int) else None


def _ends_of_epochs(traces: Sequence[Trace]) -> dict[int, int]:
    ends: dict[int, int] = {}
    for span in (kept.span for trace in traces for kept in trace.spans):
        epoch = _epoch(span)
        if epoch is not None:
            ends[epoch] = max(span.end, ends.get(epoch, 0))
    return ends


def _crashes(traces: Sequence[Trace]) -> Iterator[int]:
    """The epochs whose host took up what another one had left half-way."""
    for span in (kept.span for trace in traces for kept in trace.spans):
        epoch = _epoch(span)
        if epoch is not None and (span.attributes.get(names.INTERRUPTED) or span.attributes.get(names.RECOVERED)):
            yield epoch
