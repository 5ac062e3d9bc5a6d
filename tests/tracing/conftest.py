"""What the tests of tracing share: a listener, and what it has heard; a maker of spans."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, final

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Decision, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, Tracer
from perdure.tracing import Tracing, names

from .endings import MakeSpan

OF_HOSTS: Final = {names.COMMIT, names.RECOVER}


@final
class Quiet(Sampler):
    """Takes everything but what is called so."""

    def __init__(self, name: str) -> None:
        self._name = name

    def should_sample(self, parent_context: object, trace_id: int, name: str, *_: object, **__: object) -> SamplingResult:
        return SamplingResult(Decision.DROP if name == self._name else Decision.RECORD_AND_SAMPLE)

    def get_description(self) -> str:
        return "quiet"


class Told(NamedTuple):
    """A span, with the names of its parent and of what it links to."""

    name: str
    kind: SpanKind
    parent: str | None = None
    links: tuple[str, ...] = ()


@final
class Listener:
    """Hears of every span that has ended."""

    def __init__(self, sampler: Sampler = DEFAULT_ON) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider: Final = TracerProvider(sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Final[Tracer] = self.provider.get_tracer("a test")

    def tracing(self, **options: Any) -> Tracing:
        """Has a world tell this listener."""
        return Tracing(tracer_provider=self.provider, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        """In the order of their beginnings; those of one moment as they ended."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def span(self, name: str) -> ReadableSpan:
        """The only one of that name."""
        (found,) = (span for span in self.spans if span.name == name)
        return found

    def attributes(self, name: str) -> dict[str, Any]:
        """Those of the only span of that name."""
        return dict(self.span(name).attributes or {})

    @property
    def told(self) -> set[Told]:
        """All that was told of actors, which is of each once."""
        named = {span.context.span_id: span.name for span in self.spans if span.context is not None}
        told = [
            Told(
                span.name,
                span.kind,
                None if span.parent is None else named[span.parent.span_id],
                tuple(sorted(named[link.context.span_id] for link in span.links)),
            )
            for span in self.spans
            if span.name not in OF_HOSTS
        ]
        assert len(set(told)) == len(told), told
        return set(told)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def make_span() -> MakeSpan:
    """Makes spans that have ended."""
    return MakeSpan()
