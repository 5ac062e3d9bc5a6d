"""The local span store: spans kept on this machine, beside the actors' store, so that traces can be looked at with no collector.

It is never in the way: spans wait in a bounded queue for a thread of its own, and what cannot be written is dropped and counted. Nothing
is raised into whoever ends a span, and no commit of a host waits for it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, final

from ..storage import StoreError, StoreFull, Tape
from ._spanrow import Encoded, EncodedSpan, encode, join

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
else:
    SpanExporter = SpanProcessor = object  # the SDK is an extra, and asks for no more than the methods

logger: Final = logging.getLogger("perdure.tracing")

DIRECTORY: Final = "spans"  # in an LMDB store's
MAX_BYTES: Final = 256 << 20
MAX_AGE: Final = timedelta(days=7)
MAX_WAITING: Final = 50_000  # spans: more than a host can end in two seconds
MOST_BYTES_WAITING: Final = 64 << 20  # encoded; a span may be as long as its attributes
EVERY: Final = 0.1  # seconds between two looks at the queue: a SIGKILL loses what was ended since the last one
SHUTDOWN_WAIT: Final = 5.0  # seconds
WARN_EVERY: Final = 60.0  # seconds

INSTALL: Final = "spans are made by OpenTelemetry's SDK, and it is not installed: pip install 'perdure[traces]'"


class SpanStoreStatistics(NamedTuple):
    """Counts of spans since the start of the process: `dropped` could not be written, `overrun` found the queue full."""

    kept: int
    dropped: int
    overrun: int
    waiting: int


def span_store_path(store: str) -> str:
    """Where the spans are kept: beside a store that is named by its URL, or in a directory of their own. Raises ValueError for others."""
    scheme, colon, path = store.partition(":")
    if not colon or os.path.exists(store):
        return os.path.realpath(store)
    if scheme != "lmdb" or not path:
        raise ValueError(f"{store!r} has no place beside it: name a directory for the spans, or a store by lmdb:PATH")
    return os.path.join(os.path.realpath(path), DIRECTORY)


@final
class LocalSpanExporter(SpanExporter):
    """An exporter of OpenTelemetry's SDK that keeps spans in a directory, or beside a store that is named by its URL.

    The oldest go when there are more than `max_bytes`, or when younger ones end `max_age` after them. `LocalSpanProcessor` is the
    way to use it: the SDK's own queues hold 2,048 spans, and drop the rest in silence.
    """

    __module__ = "perdure.tracing"

    def __init__(self, store: str, *, max_bytes: int = MAX_BYTES, max_age: timedelta = MAX_AGE) -> None:
        self.path: Final = span_store_path(store)
        self._awaited = None if self.path == os.path.realpath(store) else os.path.join(os.path.dirname(self.path), "data.mdb")
        self._max_bytes = max_bytes
        self._max_age = round(max_age.total_seconds() * 1e9)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._tape: Tape | None = None
        self._closed = False
        self._kept = self._dropped = 0
        self._warned = -WARN_EVERY

    def __repr__(self) -> str:
        return f"<LocalSpanExporter {self.path}: {self._kept} kept, {self._dropped} dropped>"

    @property
    def is_ready(self) -> bool:
        """Whether there is a place: no store can be made where spans were first, so they wait for it, also if it is taken away."""
        return self._awaited is None or os.path.exists(self._awaited)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write spans that have ended; FAILURE if any was dropped."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        before = self._dropped
        self.keep([encoded for encoded in map(self.encode, spans) if encoded is not None])
        return SpanExportResult.SUCCESS if self._dropped == before else SpanExportResult.FAILURE

    def encode(self, span: ReadableSpan) -> EncodedSpan | None:
        """A span that has ended, ready to be kept; None if it was not sampled, or has to be dropped."""
        try:
            return encode(span)
        except Exception as error:  # noqa: BLE001  (what is raised here would end in the program that is only observed)
            self._dropped += 1
            self._warn(error)
            return None

    def keep(self, spans: Sequence[EncodedSpan]) -> bool:
        """Write spans; whether none was dropped."""
        if self._pid != os.getpid():  # a forked child, where a thread that is not there may have the lock
            self._dropped += len(spans)
            return not spans
        with self._lock:
            before = self._kept
            try:
                tape = self._opened()
                for encoded in join(spans):
                    self._append(tape, encoded)
            except Exception as error:  # noqa: BLE001  (as above)
                self._warn(error)
            dropped = len(spans) - (self._kept - before)
            self._dropped += dropped
            return not dropped

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return True

    def shutdown(self) -> None:
        """Close the files; what is exported afterwards is dropped."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._closed = True
            tape, self._tape = self._tape, None
            if tape is not None:
                tape.close()

    def statistics(self) -> SpanStoreStatistics:
        """Counts, for tools."""
        return SpanStoreStatistics(self._kept, self._dropped, 0, 0)

    def _opened(self) -> Tape:
        if self._closed:
            raise StoreError(self.path, "spans were ended after its end", "End the tracer provider after the host.")
        if not self.is_ready:
            raise StoreError(self.path, "there is no store to keep spans beside", "Start its host.")
        if self._tape is None:
            self._tape = Tape(self.path, max_bytes=self._max_bytes, max_age=self._max_age)
        return self._tape

    def _append(self, tape: Tape, encoded: Encoded) -> None:
        try:
            tape.append(encoded.chunk, encoded.marks, encoded.at)
        except StoreFull as error:  # perhaps for this one: the next may be shorter
            self._warn(error)
        else:
            self._kept += encoded.spans

    def _warn(self, error: Exception) -> None:
        if time.monotonic() - self._warned >= WARN_EVERY:
            self._warned = time.monotonic()
            logger.warning("spans are dropped, %d before these: %s", self._dropped, error)


@final
class LocalSpanProcessor(SpanProcessor):
    """A processor of OpenTelemetry's SDK that hands spans to a `LocalSpanExporter` ten times a second, on a thread of its own.

    To end a span costs whoever does 2 µs. Up to `max_waiting` spans wait, of 64 MiB together; more are dropped and counted. A forked child
    keeps none.
    """

    __module__ = "perdure.tracing"

    def __init__(self, exporter: LocalSpanExporter, *, max_waiting: int = MAX_WAITING) -> None:
        self._exporter = exporter
        self._max_waiting = max_waiting
        self._waiting: deque[EncodedSpan] = deque()
        self._size = 0  # bytes of what waits
        self._counting = threading.RLock()  # spans end in any thread, and wherever the collector finds a generator that has one
        self._overrun = 0
        self._warned = -WARN_EVERY
        self._pid = os.getpid()
        self._writing = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="perdure-spans", daemon=True)
        self._thread.start()
        _processors.add(self)

    def __repr__(self) -> str:
        return f"<LocalSpanProcessor {self._exporter.path}: {len(self._waiting)} wait>"

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing."""

    def _on_ending(self, span: Span) -> None:
        """Nothing."""

    def on_end(self, span: ReadableSpan) -> None:
        """Let a span wait for the thread."""
        if len(self._waiting) >= self._max_waiting or self._size >= MOST_BYTES_WAITING:
            self._overrun += 1
            return
        encoded = self._exporter.encode(span)
        if encoded is not None:
            with self._counting:
                self._waiting.append(encoded)
                self._size += len(encoded[0])

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Write all that waits; whether that was done in time."""
        if self._pid != os.getpid() or not self._writing.acquire(timeout=max(0, timeout_millis / 1000)):
            return False
        try:
            return self._write()
        finally:
            self._writing.release()

    def shutdown(self) -> None:
        """Write all that waits, and close the files. Spans that are ended afterwards are counted as dropped."""
        if self._pid != os.getpid() or self._stopped.is_set():
            return
        self._stopped.set()
        self._max_waiting = 0
        self._thread.join(SHUTDOWN_WAIT)
        self.force_flush(round(SHUTDOWN_WAIT * 1000))
        self._exporter.keep(self._taken(len(self._waiting)))  # where no store has come to be they are counted
        self._exporter.shutdown()

    def statistics(self) -> SpanStoreStatistics:
        """Counts, for tools."""
        return self._exporter.statistics()._replace(overrun=self._overrun, waiting=len(self._waiting))

    def _run(self) -> None:
        while not self._stopped.wait(EVERY):
            with self._writing:
                self._write()
            self._warn()

    def _write(self) -> bool:
        if not self._exporter.is_ready:
            return False
        whole, waiting = True, self._waiting
        for _ in range(len(waiting) // _SLICE + 1):  # of what is ended meanwhile, the next look takes care
            spans = self._taken(_SLICE)
            whole = (not spans or self._exporter.keep(spans)) and whole
        return whole

    def _taken(self, most: int) -> list[EncodedSpan]:
        with self._counting:
            spans = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            size = sum(len(encoded) for encoded, *_ in spans)
            self._size -= size
        return spans

    def _warn(self) -> None:
        if self._overrun and time.monotonic() - self._warned >= WARN_EVERY:
            self._warned = time.monotonic()
            logger.warning("%s: %d spans have found its queue full", self._exporter.path, self._overrun)

    def _is_forked(self) -> None:
        self._max_waiting = 0
        self._waiting.clear()


_SLICE: Final = 1024  # spans that are taken from the queue at once
_processors: Final[weakref.WeakSet[LocalSpanProcessor]] = weakref.WeakSet()
_keeping: Final[weakref.WeakKeyDictionary[object, dict[str, LocalSpanProcessor]]] = weakref.WeakKeyDictionary()  # by tracer provider


def _after_fork() -> None:
    for processor in _processors:
        processor._is_forked()


os.register_at_fork(after_in_child=_after_fork)


def keep_spans(store: str, *, max_bytes: int = MAX_BYTES, max_age: timedelta = MAX_AGE) -> LocalSpanProcessor:
    """Keep the spans of this program beside a store, `lmdb:orders`, or in a directory; again with the same one is nothing.

    It adds a `LocalSpanProcessor` to OpenTelemetry's tracer provider, and sets one if there is none yet. Raises ModuleNotFoundError
    without the SDK, and TypeError where a provider is set that is not the SDK's.
    """
    provider = _tracer_provider()
    path = span_store_path(store)
    kept = _keeping.setdefault(provider, {})
    if path not in kept:
        kept[path] = LocalSpanProcessor(LocalSpanExporter(store, max_bytes=max_bytes, max_age=max_age))
        provider.add_span_processor(kept[path])
    return kept[path]


def _tracer_provider() -> TracerProvider:
    try:
        from opentelemetry.sdk.trace import TracerProvider
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(INSTALL, name=error.name) from error
    from opentelemetry import trace

    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    if not isinstance(provider, TracerProvider):
        raise TypeError(f"the tracer provider is {type(provider).__qualname__}, which takes no processors: use OpenTelemetry's SDK")
    return provider


SpanStoreStatistics.__module__ = "perdure.tracing"  # a named tuple takes none in its body
