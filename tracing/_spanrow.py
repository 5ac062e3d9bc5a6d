"""The form in which spans are kept: many in a chunk, each a short msgpack array, and the marks by which a chunk is found.

Chunks outlive releases: a field is added at the end, with a default, and none is ever changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

import msgspec
from opentelemetry.trace import TraceFlags

from ._names import ACTOR_KEY, ACTOR_TYPE, RECOVER

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

Attributes: TypeAlias = dict[str, Any]
Raw: TypeAlias = tuple[object, ...]  # a span, as it is encoded
Mark: TypeAlias = bytes | tuple[str, str]  # a trace's id, or an actor's type and key
EncodedSpan: TypeAlias = tuple[bytes, tuple[Mark, ...], "Resource", int]  # what it is found by, and when it ended

_KINDS: Final = ("internal", "server", "client", "producer", "consumer")  # by the number that OpenTelemetry's API gives them
_STATUSES: Final = ("unset", "ok", "error")
MOST_SPANS: Final = 256  # in a chunk
LONG: Final = 128 << 10  # bytes of a chunk of more than one span

_RECOVERIES: Final = ("", RECOVER)
_RESOURCE: Final = itemgetter(2)


@final
class SpanRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A span as it is kept. `start` and `end` in nanoseconds since the epoch, ids in big-endian bytes, `parent_id` empty for a root.

    An event is (name, time, attributes), a link (trace id, span id, attributes).
    """

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    name: str
    kind: int
    start: int
    end: int
    status: int
    attributes: Attributes
    events: list[tuple[str, int, Attributes]] = []
    links: list[tuple[bytes, bytes, Attributes]] = []

    @property
    def kind_name(self) -> str:
        """The kind in a word: "consumer"."""
        return _KINDS[self.kind] if self.kind < len(_KINDS) else str(self.kind)

    @property
    def status_name(self) -> str:
        """The status in a word: "unset", "ok" or "error"."""
        return _STATUSES[self.status] if self.status < len(_STATUSES) else str(self.status)


@final
class SpanChunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Spans of one service, in the order in which they ended."""

    service: str
    instance: str
    spans: list[SpanRow]


class Encoded(NamedTuple):
    """A chunk, what it is found by, how many spans it is, and when the middle one ended: one with a time of its own says nothing."""

    chunk: bytes
    marks: set[int]
    spans: int
    at: int


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=str)
_decoder: Final = msgspec.msgpack.Decoder(SpanChunk)


def encode(span: ReadableSpan) -> EncodedSpan | None:
    """A span that has ended, ready to be kept; None if it was not sampled. Raises whatever an attribute that cannot be encoded does.

    It costs 1.5 µs at the span's end; a while later 5 µs, out of the cache, and the collector has all of the SDK's objects to look at.
    """
    context, parent = span._context, span._parent  # the properties make copies: 5 µs
    if context is None or not context.trace_flags & TraceFlags.SAMPLED:
        return None
    attributes = _plain(span._attributes)
    trace_id, span_id = _ids(context)
    end = span._end_time or 0
    row: Raw = (
        trace_id,
        span_id,
        b"" if parent is None else parent.span_id.to_bytes(8, "big"),
        span._name,
        span._kind.value,
        span._start_time or 0,
        end,
        span._status.status_code.value,
        attributes,
    )
    if span._events or span._links:
        row += _events(span._events), _links(span._links)
    return _encoder.encode(row), _found_by(span._name, trace_id, attributes), span._resource, end


def join(spans: Iterable[EncodedSpan]) -> Iterator[Encoded]:
    """Chunks of spans."""
    for resource, group in groupby(spans, _RESOURCE):
        head = _headed(resource)
        together: list[EncodedSpan] = []
        size = 0
        for each in group:
            size += len(each[0])
            if together and (len(together) == MOST_SPANS or size > LONG):
                yield _joined(head, together)
                together, size = [], len(each[0])
            together.append(each)
        yield _joined(head, together)


def decode(chunk: bytes) -> SpanChunk | None:
    """What is in a chunk; None for one that no release wrote."""
    try:
        return _decoder.decode(chunk)
    except msgspec.MsgspecError:
        return None


def mark_of_trace(trace_id: bytes) -> int:
    """By what the chunks are found that hold spans of a trace: the part of its id that is random."""
    return int.from_bytes(trace_id[-8:], "big")


def mark_of_actor(type_name: str, key: str) -> int:
    """By what the chunks are found that hold spans of an actor."""
    return int.from_bytes(blake2b(f"{type_name}\0{key}".encode(errors="surrogatepass"), digest_size=8).digest(), "big")


MARK_OF_RECOVERIES: Final = mark_of_actor(*_RECOVERIES)


def _found_by(name: str, trace_id: bytes, attributes: Attributes) -> tuple[Mark, ...]:
    key = attributes.get(ACTOR_KEY)
    found: tuple[Mark, ...] = (trace_id,) if key is None else (trace_id, (str(attributes.get(ACTOR_TYPE)), str(key)))
    return found if name != RECOVER else (*found, _RECOVERIES)


def _headed(resource: Resource) -> bytes:
    """A chunk's beginning: an array of three, as in `SpanChunk`; the third is an array of spans."""
    attributes = resource.attributes
    named = (str(attributes.get(name, "")) for name in ("service.name", "service.instance.id"))
    return b"\x93" + b"".join(map(_encoder.encode, named)) + b"\xdc"


def _joined(head: bytes, spans: list[EncodedSpan]) -> Encoded:
    found_by = {mark for each in spans for mark in each[1]}
    marks = {mark_of_trace(mark) if isinstance(mark, bytes) else mark_of_actor(*mark) for mark in found_by}
    chunk = b"".join((head, len(spans).to_bytes(2, "big"), *(each[0] for each in spans)))
    return Encoded(chunk, marks, len(spans), spans[len(spans) // 2][3])


def _plain(attributes: Any) -> Attributes:
    """What an encoder can take: the dictionary inside of the SDK's, where it is as it has been since 1.25."""
    inner = getattr(attributes, "_dict", None)
    return inner if type(inner) is dict else dict(attributes or ())


def _events(events: Any) -> Sequence[Raw]:
    return [(event.name, event.timestamp, _plain(event.attributes)) for event in events or ()]


def _links(links: Any) -> Sequence[Raw]:
    return [(*_ids(link.context), _plain(link.attributes)) for link in links or ()]


def _ids(context: SpanContext) -> tuple[bytes, bytes]:
    return context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")
