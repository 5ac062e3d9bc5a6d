"""Spans in the making: what is to be told of a turn, an attempt, a message.

A span reaches the SDK's processors only when what it tells of is known to have happened: until then it is a draft, which may be dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, final

from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
)

from . import _names as names
from ._context import Headers, headers_of, outgoing_headers

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from opentelemetry.util.types import Attributes, AttributeValue

T = TypeVar("T")

_EMPTY: Final = Context()
_FAILED: Final = Status(StatusCode.ERROR)
PER_SECOND: Final = 1e9  # nanoseconds

logger = logging.getLogger("perdure.tracing")


@final
class Draft:
    """A span that may never be. Times are seconds since the epoch; `error` is the class name of what was raised.

    `details` makes those of its attributes that are wanted only if it is recorded.
    """

    __module__ = "perdure.tracing"

    __slots__ = ("attributes", "details", "end", "error", "kind", "links", "name", "parent", "span", "start")

    def __init__(
        self,
        name: str,
        kind: SpanKind,
        start: float,
        attributes: dict[str, Any],
        parent: SpanContext | None = None,
        links: list[SpanContext] | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.start = self.end = start
        self.attributes = attributes
        self.parent = parent
        self.links = links
        self.details: Callable[[], dict[str, Any]] | None = None
        self.error: str | None = None
        self.span: Span | None = None  # once somebody has had to know its id, or it is known to have happened

    def __repr__(self) -> str:
        return f"<Draft {self.name!r}>"

    def headers(self, others: Headers | None) -> Headers:
        """The headers of what it causes, once it has begun; the baggage is that of the `others`, which it was caused by."""
        assert self.span is not None
        return headers_of(self.span.get_span_context(), others)


@final
class Spans:
    """Makes spans of drafts. Whatever a sampler or a processor raises ends here, as a span that is not recorded."""

    __module__ = "perdure.tracing"

    __slots__ = ("_has_complained", "_tracer")

    def __init__(self, tracer: Tracer) -> None:
        self._tracer: Final = tracer
        self._has_complained = False

    def __repr__(self) -> str:
        return f"<Spans by {self._tracer!r}>"

    def begin(self, draft: Draft) -> Span:
        """Have the draft's span begin, since its id is needed; it is not ended, so nobody sees it yet."""
        span = draft.span
        if span is None:
            try:
                span = self._start(draft)
            except Exception as error:  # noqa: BLE001  samplers and processors raise whatever they like
                self._complain(error)
                span = NonRecordingSpan(draft.parent or INVALID_SPAN_CONTEXT)
            draft.span, draft.attributes = span, {}
        return span

    def _start(self, draft: Draft) -> Span:
        return self._tracer.start_span(
            draft.name,
            _EMPTY if draft.parent is None else set_span_in_context(NonRecordingSpan(draft.parent), _EMPTY),
            draft.kind,
            draft.attributes,
            None if draft.links is None else [Link(each) for each in draft.links],
            int(draft.start * PER_SECOND),
            record_exception=False,
            set_status_on_exception=False,
        )

    def link(self, draft: Draft, context: SpanContext) -> None:
        """Link the draft's span, which begins by that, to another one."""
        try:
            self.begin(draft).add_link(context)
        except Exception as error:  # noqa: BLE001  likewise
            self._complain(error)

    def finish(self, draft: Draft) -> SpanContext | None:
        """What the draft tells of has happened: let its span be seen. Returns None where it is not recorded."""
        try:
            return self._finish(draft)
        except Exception as error:  # noqa: BLE001  likewise
            self._complain(error)
            return None

    def _complain(self, error: Exception) -> None:
        """Once: there are thousands of spans a second."""
        if not self._has_complained:
            self._has_complained = True
            logger.error("spans are lost, since what processes them fails; this is said once", exc_info=error)

    def _finish(self, draft: Draft) -> SpanContext | None:
        span = self.begin(draft)
        if not span.is_recording():
            return None
        attributes = draft.attributes if draft.details is None else {**draft.details(), **draft.attributes}
        if draft.error is not None:
            attributes[names.ERROR_TYPE] = draft.error
            span.set_status(_FAILED)
        if attributes:
            span.set_attributes(attributes)
        span.end(int(draft.end * PER_SECOND))
        return span.get_span_context()

    def sending(self, operation: str, actor_type: str, key: str, name: str, now: Callable[[], float]) -> Sending | None:
        """A message that is sent from within a trace; None where there is none: then the trace begins with the message's turn."""
        around = get_current_span().get_span_context()
        if not around.is_valid or not around.trace_flags.sampled:
            return None
        return Sending(self, message_draft(operation, actor_type, key, name, now(), around), now)


@final
class Sending:
    """A message on its way from outside: its span ends when its sender is told that it is durable, or what became of it."""

    __module__ = "perdure.tracing"

    __slots__ = ("_draft", "_now", "_spans", "headers")

    def __init__(self, spans: Spans, draft: Draft, now: Callable[[], float]) -> None:
        self._spans: Final = spans
        self._draft: Final = draft
        self._now: Final = now
        self.headers: Final[Headers] = headers_of(spans.begin(draft).get_span_context(), outgoing_headers())

    async def during(self, sent: Awaitable[T]) -> T:
        """What comes of sending it."""
        with self:
            return await sent

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._draft.end = self._now()
        self._draft.error = None if kind is None else kind.__name__
        self._spans.finish(self._draft)


def message_draft(operation: str, actor_type: str, key: str, name: str, now: float, parent: SpanContext | None) -> Draft:
    """The draft of a message that is sent to an actor. `now` in seconds since the epoch."""
    attributes = {
        names.MESSAGING_SYSTEM: names.SYSTEM,
        names.OPERATION_TYPE: names.SEND,
        names.OPERATION_NAME: operation,
        names.DESTINATION: actor_type,
        names.ACTOR_TYPE: actor_type,
        names.ACTOR_KEY: key,
    }
    return Draft(f"{operation} {actor_type}.{name}", SpanKind.PRODUCER, now, attributes, parent)


def linked(*contexts: SpanContext | None, parent: SpanContext | None = None) -> list[SpanContext] | None:
    """The contexts that a span links to: each once, its parent apart; None for none."""
    found: dict[tuple[int, int], SpanContext] = {}
    for context in _present(contexts):
        if parent is None or (context.trace_id, context.span_id) != (parent.trace_id, parent.span_id):
            found[context.trace_id, context.span_id] = context
    return list(found.values()) or None


def _present(contexts: Iterable[SpanContext | None]) -> Iterable[SpanContext]:
    return (context for context in contexts if context is not None)


@final
class AmbientSpan(Span):
    """The span of whatever turn is running, for code of actors that asks OpenTelemetry for the current one.

    That code runs in contexts that are older than the turn; this is in all of them, and stands for the span that `current` finds.
    """

    __module__ = "perdure.tracing"

    def __init__(self, current: Callable[[], Span]) -> None:
        self._current = current

    def end(self, end_time: int | None = None) -> None:
        """Left to the host."""

    def get_span_context(self) -> SpanContext:
        """As the turn's span."""
        return self._current().get_span_context()

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """As the turn's span."""
        self._current().set_attributes(attributes)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """As the turn's span."""
        self._current().set_attribute(key, value)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        """As the turn's span."""
        self._current().add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """As the turn's span."""
        self._current().add_link(context, attributes)

    def update_name(self, name: str) -> None:
        """Left to the host."""

    def is_recording(self) -> bool:
        """As the turn's span."""
        return self._current().is_recording()

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """As the turn's span."""
        self._current().set_status(status, description)

    def record_exception(
        self, exception: BaseException, attributes: Attributes = None, timestamp: int | None = None, escaped: bool = False
    ) -> None:
        """As the turn's span."""
        self._current().record_exception(exception, attributes, timestamp, escaped)
