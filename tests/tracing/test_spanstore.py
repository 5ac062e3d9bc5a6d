"""Spans are kept beside the store and read again; what cannot be kept is dropped and counted, and nobody is disturbed."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import Event, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from perdure.actors import Runtime
from perdure.storage import Tape, backup, compact
from perdure.tracing import KeptSpan, LocalSpanExporter, LocalSpanProcessor, SpanStore, keep_spans
from perdure.tracing._spanrow import decode

from .endings import MakeSpan

SMALL = 4 << 20


@pytest.fixture
def no_provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No tracer provider is set, and the one that the test sets is gone afterwards."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace._TRACER_PROVIDER_SET_ONCE, "_done", False)
    yield
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.shutdown()


@pytest.fixture
def place(tmp_path: Path) -> str:
    """Where the spans are kept."""
    return str(tmp_path / "spans")


@pytest.fixture
def exporter(place: str) -> Iterator[LocalSpanExporter]:
    """Keeps spans, as many as the shortest store holds, for an hour."""
    made = LocalSpanExporter(place, max_bytes=SMALL, max_age=timedelta(hours=1))
    yield made
    made.shutdown()


@pytest.fixture
def processor(exporter: LocalSpanExporter) -> Iterator[LocalSpanProcessor]:
    """A processor whose queue holds a hundred spans."""
    made = LocalSpanProcessor(exporter, max_waiting=100)
    yield made
    made.shutdown()


def id_of(number: int, length: int = 8) -> bytes:
    return number.to_bytes(length, "big")


def kept_spans(place: str, trace_id: int = 1) -> list[KeptSpan]:
    with SpanStore(place) as store:
        found = store.trace(id_of(trace_id, 16))
    return [] if found is None else found.spans


def names(place: str, trace_id: int = 1) -> list[str]:
    """Of the spans of a trace."""
    return [kept.span.name for kept in kept_spans(place, trace_id)]


def test_a_span_is_read_as_it_was_written(exporter: LocalSpanExporter, make_span: MakeSpan, place: str) -> None:
    given = {"n": 1, "x": 0.5, "l": ("a", "b"), "b": True}
    event = Event("tried", {"no": 2}, 1_600_000_000)
    written = make_span("step", 1.5, 2, span_id=5, parent=4, attributes=given, links=(7,), events=(event,), actor=None)

    assert exporter.export([written]) is SpanExportResult.SUCCESS

    (kept,) = kept_spans(place)
    span = kept.span
    assert (kept.service, kept.instance, kept.depth) == ("shop", "a", 0)
    assert (span.name, span.kind_name, span.status_name, span.start, span.end) == (
        "step",
        "consumer",
        "unset",
        1_500_000_000,
        2_000_000_000,
    )
    assert (span.span_id, span.parent_id) == (id_of(5), id_of(4))
    assert span.attributes == {"n": 1, "x": 0.5, "l": ["a", "b"], "b": True}
    assert (span.events, span.links) == ([("tried", 1_600_000_000, {"no": 2})], [(id_of(7, 16), id_of(1), {})])


def test_spans_of_a_provider_reach_the_store_within_moments(processor: LocalSpanProcessor, place: str) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    with provider.get_tracer("shop").start_as_current_span("outer") as span:
        pass

    while not processor.statistics().kept:
        time.sleep(0.01)

    assert names(place, span.get_span_context().trace_id) == ["outer"]


def test_the_batch_processor_of_the_sdk_may_be_used(exporter: LocalSpanExporter, place: str) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    with provider.get_tracer("shop").start_as_current_span("outer") as span:
        pass

    provider.shutdown()

    assert names(place, span.get_span_context().trace_id) == ["outer"]


def test_what_was_not_sampled_is_not_kept(exporter: LocalSpanExporter, make_span: MakeSpan) -> None:
    exporter.export([make_span("yes"), make_span("no", sampled=False)])

    assert exporter.statistics() == (1, 0, 0, 0)


def test_spans_that_find_the_queue_full_are_counted(processor: LocalSpanProcessor, make_span: MakeSpan) -> None:
    with processor._writing:
        for number in range(150):
            processor.on_end(make_span(f"span {number}"))
        statistics = processor.statistics()
    processor.force_flush()

    assert (statistics.waiting, statistics.overrun) == (100, 50)
    assert processor.statistics() == (100, 0, 50, 0)


def test_a_span_that_cannot_be_encoded_is_dropped_and_counted(processor: LocalSpanProcessor, make_span: MakeSpan, place: str) -> None:
    processor.on_end(make_span("too big", attributes={"n": 2**70}))
    processor.on_end(make_span("sound"))
    processor.force_flush()

    assert processor.statistics() == (1, 1, 0, 0)
    assert names(place) == ["sound"]


def test_what_no_encoder_knows_is_kept_as_text(exporter: LocalSpanExporter, make_span: MakeSpan, place: str) -> None:
    exporter.export([make_span("odd", attributes={"at": complex(1, 2)})])

    assert kept_spans(place)[0].span.attributes["at"] == "(1+2j)"


def test_a_place_that_cannot_be_had_is_said_once_a_minute(tmp_path: Path, make_span: MakeSpan, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no directory")
    exporter = LocalSpanExporter(f"{tmp_path}/file/spans")

    with caplog.at_level(logging.WARNING, "perdure.tracing"):
        results = [exporter.export([make_span("lost")]) for _ in range(3)]

    assert results == [SpanExportResult.FAILURE] * 3
    assert exporter.statistics() == (0, 3, 0, 0)
    assert [record.getMessage()[:16] for record in caplog.records] == ["spans are droppe"]


def test_a_span_that_is_too_long_does_not_take_others_with_it(exporter: LocalSpanExporter, make_span: MakeSpan, place: str) -> None:
    long = make_span("long", attributes={"text": "x" * SMALL})

    exporter.export([make_span("before", 1), long, make_span("after", 2)])

    assert exporter.statistics()[:2] == (2, 1)
    assert names(place) == ["before", "after"]


def test_the_oldest_spans_go_first_by_size_and_by_age(exporter: LocalSpanExporter, make_span: MakeSpan, place: str) -> None:
    for number in range(120):
        exporter.export([make_span("long", number, number, trace_id=number + 1, attributes={"text": "x" * 60_000})])
    by_size = [bool(names(place, number + 1)) for number in range(120)]
    for _ in range(2):
        exporter.export([make_span("later", 3_700, 3_700, trace_id=999)])

    assert by_size == sorted(by_size)
    assert by_size.count(True) > 20
    assert os.stat(f"{place}/data.mdb").st_size <= SMALL
    assert [number for number in range(1, 100) if names(place, number)] == []
    assert names(place, 120) == ["long"]


def test_a_damaged_store_is_begun_anew(exporter: LocalSpanExporter, make_span: MakeSpan, place: str) -> None:
    Tape(place).close()
    Path(place, "data.mdb").write_bytes(b"no database" * 1000)

    assert exporter.export([make_span("anew")]) is SpanExportResult.SUCCESS

    assert names(place) == ["anew"]


def test_a_chunk_of_another_making_is_passed_over(place: str, make_span: MakeSpan, exporter: LocalSpanExporter) -> None:
    exporter.export([make_span("sound")])
    tape = Tape(place)
    tape.append(b"\xc1 no chunk", [1], 0)
    tape.close()

    assert decode(b"\xc1 no chunk") is None
    assert names(place) == ["sound"]


def test_nothing_is_kept_or_raised_after_the_end(processor: LocalSpanProcessor, make_span: MakeSpan) -> None:
    processor.on_end(make_span("before"))
    processor.shutdown()
    processor.on_end(make_span("after"))
    processor.shutdown()

    assert processor.statistics() == (1, 0, 1, 0)
    assert processor.force_flush()


def test_a_forked_child_keeps_nothing_and_ends(
    exporter: LocalSpanExporter, processor: LocalSpanProcessor, make_span: MakeSpan, place: str
) -> None:
    processor.on_end(make_span("parent's"))
    processor.force_flush()

    with warnings.catch_warnings(action="ignore"):
        child = os.fork()
    if not child:
        processor.on_end(make_span("child's"))
        exporter.export([make_span("child's")])
        processor.shutdown()
        os._exit(10 * processor.statistics().overrun + processor.statistics().dropped)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 11
    assert names(place) == ["parent's"]


def test_what_waits_is_bounded_in_bytes_too(processor: LocalSpanProcessor, make_span: MakeSpan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.tracing._spanstore.MOST_BYTES_WAITING", 1 << 20)
    with processor._writing:
        for _ in range(10):
            processor.on_end(make_span("long", attributes={"text": "x" * (256 << 10)}))

        assert (processor.statistics().waiting, processor.statistics().overrun) == (4, 6)
    assert processor.force_flush()
    processor.on_end(make_span("later"))
    assert processor.statistics().overrun == 6


# --- beside a store ---


@pytest.mark.anyio
async def test_spans_wait_until_there_is_a_store_to_be_beside(tmp_path: Path, make_span: MakeSpan) -> None:
    processor = LocalSpanProcessor(LocalSpanExporter(f"lmdb:{tmp_path}/orders"))
    processor.on_end(make_span("early"))
    assert not processor.force_flush()

    async with Runtime(f"lmdb:{tmp_path}/orders", actors=[]):
        assert processor.force_flush()
    processor.shutdown()

    assert names(f"{tmp_path}/orders/spans") == names(f"lmdb:{tmp_path}/orders") == ["early"]


@pytest.mark.anyio
async def test_spans_beside_a_store_disturb_neither_backup_nor_compaction(tmp_path: Path, make_span: MakeSpan) -> None:
    url = f"lmdb:{tmp_path}/orders"
    processor = LocalSpanProcessor(LocalSpanExporter(url))
    async with Runtime(url, actors=[]):
        processor.on_end(make_span("kept"))
        processor.force_flush()
        backup(url, f"{tmp_path}/copy")
    compact(url)
    processor.on_end(make_span("kept, too", 1))
    processor.shutdown()

    assert sorted(os.listdir(tmp_path / "copy")) == ["data.mdb", "inbox"]
    assert names(url) == ["kept", "kept, too"]


@pytest.mark.anyio
async def test_a_store_that_is_taken_away_is_not_stood_in_for(tmp_path: Path, make_span: MakeSpan) -> None:
    url = f"lmdb:{tmp_path}/orders"
    processor = LocalSpanProcessor(LocalSpanExporter(url))
    async with Runtime(url, actors=[]):
        processor.on_end(make_span("first"))
        assert processor.force_flush()
    (tmp_path / "orders").rename(tmp_path / "moved")

    processor.on_end(make_span("meanwhile"))
    assert not processor.force_flush()
    async with Runtime(url, actors=[]):
        assert processor.force_flush()
    processor.shutdown()

    assert (names(f"lmdb:{tmp_path}/moved"), names(url)) == (["first"], ["meanwhile"])


def test_spans_that_found_no_store_are_counted_at_the_end(tmp_path: Path, make_span: MakeSpan) -> None:
    processor = LocalSpanProcessor(LocalSpanExporter(f"lmdb:{tmp_path}/none"))
    processor.on_end(make_span("early"))

    processor.shutdown()

    assert processor.statistics() == (0, 1, 0, 0)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("store", ["memory:", "postgresql://x", "lmdb:"])
def test_a_store_that_has_no_place_beside_it_is_refused(store: str) -> None:
    with pytest.raises(ValueError, match="name a directory for the spans"):
        LocalSpanExporter(store)


# --- for programs ---


@pytest.mark.usefixtures("no_provider")
def test_one_line_keeps_the_spans_of_a_program(place: str) -> None:
    processor = keep_spans(place)
    with trace.get_tracer("shop").start_as_current_span("outer") as span:
        pass

    assert processor.force_flush()
    assert names(place, span.get_span_context().trace_id) == ["outer"]
    assert keep_spans(place) is processor


@pytest.mark.usefixtures("no_provider")
def test_a_provider_that_is_set_is_used(place: str) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    trace.set_tracer_provider(provider)

    processor = keep_spans(place)
    provider.get_tracer("shop").start_span("outer").end()

    assert trace.get_tracer_provider() is provider
    assert processor.force_flush()
    assert processor.statistics().kept == 1


@pytest.mark.usefixtures("no_provider")
def test_a_provider_that_is_not_the_sdks_is_refused(place: str) -> None:
    trace.set_tracer_provider(trace.NoOpTracerProvider())

    with pytest.raises(TypeError, match="NoOpTracerProvider, which takes no processors"):
        keep_spans(place)


def test_without_the_sdk_it_is_said_how_to_get_it(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(ModuleNotFoundError, match=r"pip install 'perdure\[traces\]'"):
        keep_spans(place)
