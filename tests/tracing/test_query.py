"""Traces are found by their actors and read as trees in order of time, whatever is missing of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from perdure.storage import StoreError
from perdure.tracing import LocalSpanExporter, SpanStore, _query

from .endings import MakeSpan

Keep = Callable[..., SpanStore]


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Keep]:
    """Keeps spans, each list by an export of its own, and opens the store to read them."""
    exporter = LocalSpanExporter(f"{tmp_path}/spans")
    stores: list[SpanStore] = []

    def run(*exports: list[ReadableSpan]) -> SpanStore:
        for spans in exports:
            exporter.export(spans)
        stores.append(SpanStore(exporter.path))
        return stores[-1]

    yield run
    for store in stores:
        store.close()
    exporter.shutdown()


def id_of(trace_id: int) -> bytes:
    return trace_id.to_bytes(16, "big")


def tree(store: SpanStore, trace_id: int = 1) -> list[tuple[int, str]]:
    """Depths and names."""
    found = store.trace(id_of(trace_id))
    return [] if found is None else [(kept.depth, kept.span.name) for kept in found.spans]


def test_a_trace_is_a_tree_in_order_of_time(keep: Keep, make_span: MakeSpan) -> None:
    root = make_span("root", 0, 9, span_id=1)
    early, late = make_span("early", 1, 2, span_id=2, parent=1), make_span("late", 3, 4, span_id=3, parent=1)
    inner = make_span("inner", 2, 8, span_id=4, parent=2)

    store = keep([late, inner], [early, root])

    assert tree(store) == [(0, "root"), (1, "early"), (2, "inner"), (1, "late")]


def test_spans_whose_parent_is_not_kept_are_roots(keep: Keep, make_span: MakeSpan) -> None:
    store = keep([make_span("child", 1, 2, span_id=2, parent=7), make_span("orphan", 0, 3, parent=8), make_span("inner", 1, 2, parent=2)])

    assert tree(store) == [(0, "orphan"), (0, "child"), (1, "inner")]


def test_spans_that_are_each_others_parents_are_all_told(keep: Keep, make_span: MakeSpan) -> None:
    store = keep(
        [make_span("a", span_id=1, parent=2), make_span("b", 1, 2, span_id=2, parent=1), make_span("self", 3, 4, span_id=3, parent=3)]
    )

    assert tree(store) == [(0, "self"), (0, "a"), (1, "b")]


def test_a_chain_of_calls_may_be_long(keep: Keep, make_span: MakeSpan) -> None:
    store = keep([make_span(f"{number}", number, 9999, span_id=number + 1, parent=number) for number in range(3_000)])

    assert tree(store)[-1] == (2_999, "2999")


def test_a_span_that_was_exported_twice_is_told_once(keep: Keep, make_span: MakeSpan) -> None:
    span = make_span("once")

    assert tree(keep([span], [span])) == [(0, "once")]


def test_traces_of_an_actor_come_newest_first(keep: Keep, make_span: MakeSpan) -> None:
    spans = [make_span("handle", number, number + 1, trace_id=number) for number in range(1, 31)]
    spans.insert(15, make_span("again", 100, 101, trace_id=3))
    other = make_span("handle", 99, 99, trace_id=99, actor=("Order", "o-2"))

    store = keep(spans[:10], [*spans[10:], other])

    assert store.traces_of("Order", "o-1", 4) == [id_of(3), id_of(30), id_of(29), id_of(28)]
    assert len(store.traces_of("Order", "o-1", 99)) == 30
    assert store.traces_of("Order", "o-2") == [id_of(99)]
    assert store.traces_of("Order", "o-3") == store.traces_of("Orde", "ro-1") == []


def test_a_trace_has_what_other_actors_did_in_it(keep: Keep, make_span: MakeSpan) -> None:
    store = keep([make_span("handle"), make_span("other's", 1, 2, actor=("Shipment", "s")), make_span("nobody's", 3, 4, actor=None)])

    assert [name for _, name in tree(store)] == ["handle", "other's", "nobody's"]


def test_several_traces_are_read_at_once_with_their_links(keep: Keep, make_span: MakeSpan) -> None:
    store = keep([make_span("a", 5, 6), make_span("b", 7, 9, trace_id=2, links=(1, 2, 7))], [make_span("b too", 8, 8, trace_id=2)])

    found = store.traces([id_of(1), id_of(2), id_of(3)])

    assert {trace_id: len(trace.spans) for trace_id, trace in found.items()} == {id_of(1): 1, id_of(2): 2}
    second = found[id_of(2)]
    assert (second.start, second.end, second.linked) == (7_000_000_000, 9_000_000_000, {id_of(1), id_of(7)})
    assert store.traces([]) == {}


def test_a_trace_that_is_too_long_says_so(keep: Keep, make_span: MakeSpan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_query, "MOST_SPANS", 3)
    found = keep([make_span(f"{number}", number, number) for number in range(5)]).trace(id_of(1))

    assert found is not None
    assert ([kept.span.name for kept in found.spans], found.whole) == (["2", "3", "4"], False)


def test_one_question_looks_at_so_many_spans_at_most(keep: Keep, make_span: MakeSpan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_query, "MOST_LOOKED_AT", 100)
    long = {"text": "x" * 10_000}
    exports = [[make_span("handle", number, number, trace_id=number, attributes=long)] for number in range(1, 301)]

    store = keep(*exports)

    assert store.traces_of("Order", "o-1", 999)[0] == id_of(300)
    assert len(store.traces_of("Order", "o-1", 999)) == 101


def test_a_host_that_found_a_crash_is_known_by_its_epoch(keep: Keep, make_span: MakeSpan) -> None:
    crash = make_span("recover", trace_id=5, actor=None, attributes={"perdure.host.epoch": 3, "perdure.interrupted": 2})
    quiet = make_span("recover", trace_id=6, actor=None, attributes={"perdure.host.epoch": 4})
    other = make_span("mine", trace_id=7, attributes={"perdure.host.epoch": 5, "perdure.interrupted": 1})

    assert keep([crash], [quiet, other]).recoveries() == {3: 2}


def test_where_no_spans_are_kept_it_is_said_how_to(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r'from perdure.tracing import keep_spans; keep_spans\("lmdb:.*/orders"\)'):
        SpanStore(f"lmdb:{tmp_path}/orders")

    assert list(tmp_path.iterdir()) == []


def test_a_store_is_read_while_it_is_written(keep: Keep, make_span: MakeSpan) -> None:
    store = keep([make_span("first")])
    keep([make_span("second", 1, 2)])

    assert [name for _, name in tree(store)] == ["first", "second"]
    assert "spans" in repr(store)
