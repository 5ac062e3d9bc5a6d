"""`perdure trace` draws what happened to an actor, the crash where it was, and gives away no payload."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from perdure.actors.ops._wording import duration
from perdure.actors.ops.cli._waterfall import Picture, Waterfall
from perdure.tracing import LocalSpanExporter, SpanStore
from rich.console import Console

from .conftest import Command

BEGIN = 1_767_258_000.0  # seconds since the epoch
RESOURCE = Resource({"service.name": "shop"})
CANARY = "canary-4200"
AGE = timedelta(days=9_999)
ORDER, SHIPMENT = ("Order", "o-1"), ("Shipment", "s-1")


def context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(1))


class Story:
    """Spans that a host might have ended, told by their times in seconds since the beginning."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self._numbers = count(1)

    def tell(
        self,
        name: str,
        start: float,
        end: float,
        *,
        trace: int = 1,
        below: int | None = None,
        epoch: int | None = 1,
        actor: tuple[str, str] = ORDER,
        kind: SpanKind = SpanKind.INTERNAL,
        links: tuple[int, ...] = (),
        error: str | None = None,
        late: float | None = None,
        **marks: Any,
    ) -> int:
        """Tell of a span; returns its id."""
        number = next(self._numbers)
        given: Mapping[str, Any] = {
            "perdure.actor.type": actor[0],
            "perdure.actor.key": actor[1],
            "perdure.payload": CANARY,
            **({} if epoch is None else {"perdure.host.epoch": epoch}),
            **({} if late is None else {"perdure.timer.late": late}),
            **({} if error is None else {"error.type": error}),
            **{f"perdure.{mark}": value for mark, value in marks.items()},
        }
        span = ReadableSpan(
            name,
            context(trace, number),
            None if below is None else context(trace, below),
            RESOURCE,
            given,
            [Event("exception", {"exception.message": CANARY})],
            [Link(context(each, 1)) for each in links],
            kind,
            None,
            Status(StatusCode.UNSET) if error is None else Status(StatusCode.ERROR, CANARY),
            round((BEGIN + start) * 1e9),
            round((BEGIN + end) * 1e9),
        )
        self.spans.append(span)
        return number

    def keep(self, url: str) -> None:
        """Write them where a store's spans are kept."""
        exporter = LocalSpanExporter(url.removeprefix("lmdb:") + "/spans", max_age=AGE)
        exporter.export(self.spans)
        exporter.shutdown()


def order(story: Story) -> None:
    """An order whose host is killed while it charges; three days later it ships."""
    sent = story.tell("send Order.run", 0, 0.001, epoch=None, kind=SpanKind.PRODUCER)
    run = story.tell("handle Order.run", 0.001, 0.003, below=sent, kind=SpanKind.CONSUMER)
    story.tell("step shop.charge", 0.003, 0.103, below=run, error="ConnectionError")
    story.tell("step shop.charge", 4.103, 4.203, below=run, epoch=2, attempt=3, interrupted=1, recovered=True)
    story.tell("resume Order: shop.charge", 4.203, 4.205, below=run, epoch=2, kind=SpanKind.CONSUMER)
    later = 3 * 86400.0
    timer = story.tell("timer Order", later, later + 0.05, trace=2, epoch=2, links=(1,), kind=SpanKind.CONSUMER, late=90.0)
    story.tell("spawn Shipment.run", later + 0.045, later + 0.05, trace=2, epoch=2, below=timer, actor=SHIPMENT, kind=SpanKind.PRODUCER)


ORDER_DRAWN = """\
trace 1 of 2  00000000000000000000000000000001  (when)  4.2 s, 5 spans
  send Order.run                 █                      ┊                             1 ms
    handle Order.run             █                      ┊                             2 ms
      step shop.charge           ██████████████████████ ┊                           100 ms  ConnectionError
━━ host 1 crashed, host 2 went on 4 s later ━━
      step shop.charge                                  ┊  ██████████████████████   100 ms  attempt 3  1 attempt interrupted  recovered
      resume Order: shop.charge                         ┊                       █     2 ms

3 d later

trace 2 of 2  00000000000000000000000000000002  (when)  50 ms, 2 spans
  timer Order           █╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌███████████████████████    50 ms  1.5 min late  ← trace 1
    spawn Shipment.run              ┊           ████████████████████████     5 ms  Shipment/s-1
"""


@pytest.fixture
def kept(url: str) -> str:
    """The URL of a store beside which the order's spans are kept."""
    story = Story()
    order(story)
    story.keep(url)
    return url


def drawn(text: str) -> str:
    """What was drawn, without what is another each day, and with short lines across."""
    return re.sub("━━+$", "━━", re.sub(r"  \d{4}-.*?\)  ", "  (when)  ", text), flags=re.MULTILINE)


def draw(story: Story, tmp_path: Path, width: int = 100, recoveries: Mapping[int, int] | None = None) -> list[str]:
    """The lines of a story's traces on a screen of some columns."""
    story.keep(f"lmdb:{tmp_path}")
    with SpanStore(f"{tmp_path}/spans") as store:
        ids = {span.context.trace_id.to_bytes(16, "big") for span in story.spans if span.context is not None}
        traces = sorted(store.traces(ids).values(), key=lambda trace: trace.start)
    screen = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    Waterfall(screen, Picture(ORDER, traces, recoveries or {})).draw()
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue().splitlines()


def test_a_crash_and_a_wait_of_days_are_drawn_where_they_were(perdure: Command, kept: str) -> None:
    assert drawn(perdure("trace", "Order", "o-1", store=kept).stdout) == ORDER_DRAWN


def test_no_payload_is_drawn(perdure: Command, kept: str) -> None:
    assert CANARY not in perdure("trace", "Order", "o-1", store=kept).output


def test_a_line_across_is_as_wide_as_the_screen(tmp_path: Path) -> None:
    story = Story()
    order(story)

    lines = draw(story, tmp_path, width=90)

    assert [len(line) for line in lines if line.startswith("━━")] == [90]


@pytest.mark.parametrize(("recoveries", "how"), [({}, "ended"), ({2: 1}, "crashed"), ({1: 1}, "ended")])
def test_a_crash_is_told_from_a_stop_by_what_was_taken_up(tmp_path: Path, recoveries: Mapping[int, int], how: str) -> None:
    story = Story()
    story.tell("handle Order.run", 0, 1)
    story.tell("resume Order: sleep", 0.5, 2, epoch=2)

    lines = draw(story, tmp_path, recoveries=recoveries)

    assert [line.strip("━ ") for line in lines if "━" in line] == [f"host 1 {how}, host 2 went on"]


def test_linked_traces_are_followed(perdure: Command, url: str) -> None:
    story = Story()
    story.tell("send Order.run", 0, 1, trace=1, actor=SHIPMENT)
    story.tell("handle Order.run", 5, 6, trace=2, links=(1,), actor=SHIPMENT)
    story.tell("timer Order", 9, 10, trace=3, links=(2, 77))
    story.keep(url)

    shown = perdure("trace", "Order", "o-1", store=url).stdout

    assert [line.split()[1] for line in shown.splitlines() if line.startswith("trace")] == ["1", "2", "3"]
    assert "← trace 2  ← trace 00000000…" in shown
    assert shown.count("4 s later") + shown.count("3 s later") == 2


def test_so_many_of_the_latest_traces_are_drawn(perdure: Command, url: str) -> None:
    story = Story()
    for number in range(1, 31):
        story.tell("handle Order.add_line", number, number + 0.5, trace=number)
    story.keep(url)

    shown = [perdure("trace", "Order", "o-1", *more, store=url).stdout for more in ([], ["--limit", "3"], ["--trace-id", f"{7:032x}"])]

    assert [text.count("handle Order.add_line") for text in shown] == [10, 3, 1]
    assert "trace 1  00000000000000000000000000000007" in shown[2]


def test_all_that_is_kept_is_told_as_json(perdure: Command, kept: str) -> None:
    told = json.loads(perdure("trace", "Order", "o-1", "--json", store=kept).stdout)

    first, second = told["traces"]
    assert [span["name"] for span in first["spans"]][:2] == ["send Order.run", "handle Order.run"]
    assert (first["spans"][2]["depth"], first["spans"][2]["status"], first["spans"][2]["kind"]) == (2, "error", "internal")
    assert second["spans"][0]["links"] == [{"trace_id": f"{1:032x}", "span_id": f"{1:016x}", "attributes": {}}]
    assert second["spans"][0]["attributes"]["perdure.timer.late"] == 90.0
    assert told["recoveries"] == []


def test_marks_tell_what_a_span_was(tmp_path: Path) -> None:
    story = Story()
    story.tell("handle Order.pay", 0, 1, error="builtins.ValueError", dead_letter=True, attempt=2, interrupted=2)
    story.tell("handle Order.hurry", 2, 3, kept=True, links=(2, 3, 4, 5, 6))

    lines = draw(story, tmp_path, width=200)

    assert lines[1].split("1 s  ")[1] == "attempt 2  2 attempts interrupted  builtins.ValueError  dead letter"
    assert lines[2].split("1 s  ")[1].split("  ")[0::4] == ["kept", "and 2 more"]


@pytest.mark.parametrize("width", [20, 40, 60, 100, 200])
def test_no_line_is_wider_than_the_screen(tmp_path: Path, width: int) -> None:
    story = Story()
    order(story)

    lines = draw(story, tmp_path, width=width)

    assert max(map(len, lines)) <= width
    assert any("█" in line for line in lines) == (width >= 60)


def test_a_long_trace_is_drawn_by_its_beginning_and_its_end(tmp_path: Path) -> None:
    story = Story()
    root = story.tell("send Order.run", 0, 9_999)
    for number in range(9_999):
        story.tell(f"handle {number}", number, number + 0.5, below=root)

    lines = draw(story, tmp_path)

    assert len(lines) == 1 + 160 + 1 + 40
    assert "9,800 spans more, see --json" in lines[161]
    assert (lines[160].split()[1], lines[-1].split()[1]) == ("158", "9998")


def test_spans_of_no_length_at_one_time_are_drawn(tmp_path: Path) -> None:
    story = Story()
    story.tell("commit", 0, 0)
    story.tell("backwards", 0, -1)

    assert [line.split()[0] for line in draw(story, tmp_path)[1:]] == ["commit", "backwards"]


def test_names_from_the_store_cannot_steer_the_terminal(tmp_path: Path) -> None:
    story = Story()
    story.tell("bad\x1b[31m", 0, 1, error="\x1b]0;", actor=("\x1bT", "\x07"))

    assert {character for line in draw(story, tmp_path) for character in line if not character.isprintable()} == set()


def test_a_store_without_spans_says_how_to_keep_them(perdure: Command, url: str) -> None:
    refused = perdure("trace", "Order", "o-1", store=url)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f'from perdure.tracing import keep_spans; keep_spans("{url}")' in refused.stderr


def test_an_actor_without_spans_has_none(perdure: Command, kept: str) -> None:
    assert perdure("trace", "Order", "o-2", store=kept).stdout == "no spans of Order/o-2 are kept\n"
    assert perdure("trace", "Order", "o-2", "--trace-id", "0" * 32, store=kept).stdout == f"no spans of trace {'0' * 32} are kept\n"
    assert json.loads(perdure("trace", "Order", "o-2", "--json", store=kept).stdout)["traces"] == []


def test_what_is_no_trace_id_is_refused(perdure: Command, kept: str) -> None:
    refused = perdure("trace", "Order", "o-1", "--trace-id", "77", store=kept)

    assert refused.exit_code == 2
    assert "32 hexadecimal digits" in refused.stderr


@pytest.mark.parametrize(
    ("nanoseconds", "said"),
    [(-5, "0 µs"), (999_400, "999 µs"), (999_600, "1 ms"), (1_500_000, "1.5 ms"), (9_960_000, "10 ms"), (90_000_000_000, "1.5 min")],
)
def test_durations_are_said_shortly(nanoseconds: int, said: str) -> None:
    assert duration(nanoseconds) == said


# --- by a host ---

HOST = """
import asyncio, os, signal, sys
from pathlib import Path
from perdure.actors import Runtime, durable_actor, step, workflow
from perdure.tracing import keep_spans

@step(name="charge")
async def charge(mark: str) -> None:
    if not Path(mark).exists():
        Path(mark).touch()
        await asyncio.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)

@durable_actor
class Order:
    @workflow
    async def run(self, mark: str) -> None:
        await charge(mark)

async def main(url: str, mark: str) -> None:
    keep_spans(url)
    async with Runtime(url, actors=[Order]) as runtime:
        await (await runtime.start(Order.run, "o-1", mark)).result()

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_host_that_is_killed_leaves_its_spans_and_the_next_one_goes_on(perdure: Command, url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOST, url, f"{tmp_path}/mark"]
    ends = [subprocess.run(command, check=False, capture_output=True, timeout=30).returncode for _ in range(2)]

    lines = perdure("trace", "Order", "o-1", store=url).stdout.splitlines()

    assert ends == [-signal.SIGKILL, 0]
    told = [re.split(r"  +", line.strip("━ "))[0] for line in lines[1:]]
    across = next(index for index, line in enumerate(told) if re.match(r"host \d crashed, host \d went on .* later", line))
    assert told[:across] == ["handle Order.run"]
    assert told[across + 1 :] == ["step charge", "resume Order: charge"]
    assert "attempt 2  1 attempt interrupted  recovered" in lines[across + 2]
