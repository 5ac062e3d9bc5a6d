"""The read side of the local span store: traces, as trees in order of time.

It reads beside whoever writes, changes nothing, and every answer is bounded. What it reads may be in pieces: a span whose parent was
dropped, or is not yet ended, is a root.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from types import TracebackType
from typing import Final, NamedTuple, Self, final

from ..storage import StoreError, Tape
from ._names import ACTOR_KEY, ACTOR_TYPE, EPOCH, INTERRUPTED, RECOVER, RECOVERED
from ._spanrow import MARK_OF_RECOVERIES, SpanRow, decode, mark_of_actor, mark_of_trace
from ._spanstore import span_store_path

MOST_SPANS: Final = 10_000  # of one trace
MOST_LOOKED_AT: Final = 200_000  # spans that one question decodes; some 0.5 s


class KeptSpan(NamedTuple):
    """A span in its trace: `depth` below a root, and the service that it is of."""

    span: SpanRow
    depth: int
    service: str
    instance: str


class Trace(NamedTuple):
    """A trace: its spans as a tree, each before its children, siblings in order of time. `whole` is False where some are left out."""

    trace_id: bytes
    spans: list[KeptSpan]
    whole: bool

    @property
    def start(self) -> int:
        """When its first span began, in nanoseconds since the epoch."""
        return min(kept.span.start for kept in self.spans)

    @property
    def end(self) -> int:
        """When the last of its spans ended."""
        return max(kept.span.end for kept in self.spans)

    @property
    def linked(self) -> set[bytes]:
        """The ids of the traces that its spans are linked to."""
        return {trace_id for kept in self.spans for trace_id, *_ in kept.span.links} - {self.trace_id}


class _Found(NamedTuple):
    span: SpanRow
    service: str
    instance: str


@final
class SpanStore:
    """The spans that were kept beside a store, given by its URL, or in a directory. Raises StoreError where there are none.

    Use it with `with`, or `close` it. It blocks, for as long as its files take to be read.
    """

    __module__ = "perdure.tracing"

    def __init__(self, store: str) -> None:
        self.path: Final = span_store_path(store)
        try:
            self._tape = Tape(self.path, create=False)
        except StoreError as error:
            raise StoreError(store, f"no spans can be read here ({error.what})", _remedy(store)) from error

    def __repr__(self) -> str:
        return f"<SpanStore {self.path}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close its files."""
        self._tape.close()

    def traces_of(self, type_name: str, key: str, limit: int = 10) -> list[bytes]:
        """The ids of the traces in which an actor has spans, the one with its latest span first."""
        ended: dict[bytes, int] = {}
        for row in self._rows([mark_of_actor(type_name, key)]):  # within a row they are in the order of the batches that held them
            for span in (each.span for each in row):
                if span.attributes.get(ACTOR_KEY) == key and span.attributes.get(ACTOR_TYPE) == type_name:
                    ended[span.trace_id] = max(span.end, ended.get(span.trace_id, 0))
            if len(ended) >= limit:
                break
        return sorted(ended, key=lambda trace_id: -ended[trace_id])[:limit]

    def trace(self, trace_id: bytes) -> Trace | None:
        """One trace, its 10,000 latest spans at most; None if nothing of it is kept."""
        return self.traces([trace_id]).get(trace_id)

    def traces(self, trace_ids: Collection[bytes]) -> dict[bytes, Trace]:
        """Several traces at once, by their ids, as far as they are kept."""
        wanted = set(trace_ids)
        found: dict[bytes, dict[bytes, _Found]] = defaultdict(dict)
        cut: set[bytes] = set()
        for each in self._newest_first([mark_of_trace(trace_id) for trace_id in wanted]) if wanted else ():
            trace_id = each.span.trace_id
            if trace_id not in wanted:
                continue
            if len(found[trace_id]) < MOST_SPANS:
                found[trace_id].setdefault(each.span.span_id, each)
            else:
                cut.add(trace_id)
        return {trace_id: Trace(trace_id, _as_tree(spans), trace_id not in cut) for trace_id, spans in found.items()}

    def recoveries(self) -> dict[int, int]:
        """By epoch of a host that found a crash: how many attempts that one had interrupted."""
        found: dict[int, int] = {}
        for each in self._newest_first([MARK_OF_RECOVERIES]):
            attributes = each.span.attributes
            interrupted, epoch = attributes.get(INTERRUPTED), attributes.get(EPOCH)
            if each.span.name == RECOVER and isinstance(epoch, int) and (interrupted or attributes.get(RECOVERED)):
                found[epoch] = interrupted if isinstance(interrupted, int) else 0
        return found

    def _newest_first(self, marks: Iterable[int]) -> Iterator[_Found]:
        for row in self._rows(marks):
            yield from row

    def _rows(self, marks: Iterable[int]) -> Iterator[list[_Found]]:
        """What lies together, each time, the newest first."""
        looked_at = 0
        for row in self._tape.newest_first(list(marks)):
            chunks = [chunk for chunk in map(decode, reversed(row.chunks)) if chunk is not None]
            yield [_Found(span, chunk.service, chunk.instance) for chunk in chunks for span in reversed(chunk.spans)]
            looked_at += sum(len(chunk.spans) for chunk in chunks)
            if looked_at > MOST_LOOKED_AT:
                return


def _remedy(store: str) -> str:
    return f'Let the host keep them: from perdure.tracing import keep_spans; keep_spans("{store}")'


def _as_tree(found: dict[bytes, _Found]) -> list[KeptSpan]:
    """Each span before its children. No recursion: a chain of calls may be as long as there are spans."""
    ordered = sorted(found.values(), key=lambda each: (each.span.start, -each.span.end))
    children: dict[bytes, list[_Found]] = defaultdict(list)
    for each in ordered:
        parent = each.span.parent_id
        children[parent if parent in found and parent != each.span.span_id else b""].append(each)
    tree: list[KeptSpan] = []
    _descend(children[b""], children, found, tree)
    for each in ordered:  # what is left are circles, which no honest program makes
        if each.span.span_id in found:
            _descend([each], children, found, tree)
    return tree


def _descend(roots: list[_Found], children: dict[bytes, list[_Found]], left: dict[bytes, _Found], tree: list[KeptSpan]) -> None:
    stack = [(root, 0) for root in reversed(roots)]
    while stack:
        each, depth = stack.pop()
        if left.pop(each.span.span_id, None) is not None:
            tree.append(KeptSpan(each.span, depth, each.service, each.instance))
            stack += [(child, depth + 1) for child in reversed(children[each.span.span_id])]


for _public in (KeptSpan, Trace):
    _public.__module__ = "perdure.tracing"  # a named tuple takes none in its body
SpanRow.__module__ = "perdure.tracing"
