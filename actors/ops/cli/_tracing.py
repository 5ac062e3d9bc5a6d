"""`perdure trace`: what happened to an actor, over crashes, out of the spans that are kept beside its store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from ._looking import print_json
from ._options import AsJson, Key, Limit, StoreUrl, TypeName
from ._screen import console, key_text, perform

if TYPE_CHECKING:
    from ....tracing import KeptSpan, SpanStore, Trace
    from ._waterfall import Picture

ROUNDS: Final = 8  # of following links
MOST_TRACES: Final = 40  # that links add


def _checked_id(text: str | None) -> str | None:
    if text is not None and (len(text) != 32 or set(text) - set("0123456789abcdef")):
        raise typer.BadParameter(f"{text!r} is no trace's id: those are 32 hexadecimal digits")
    return text


TraceId = Annotated[
    str | None,
    typer.Option("--trace-id", metavar="HEX", show_default=False, callback=_checked_id, help="This trace, and what it is linked to."),
]


def trace(type_name: TypeName, key: Key, store: StoreUrl, limit: Limit = 10, trace_id: TraceId = None, as_json: AsJson = False) -> None:
    """Draw the latest traces of an actor, over crashes and waits.

    Each span is a line, with a bar on a time axis on which waits are shortened. Traces that they are linked to are drawn, too. The host
    has to keep its spans: perdure.tracing.keep_spans(URL).
    """

    async def work() -> None:
        from ....tracing import SpanStore  # here, since no other command needs it

        with SpanStore(store) as spans:
            picture = _picture(spans, type_name, key, limit, trace_id)
        if as_json:
            print_json(_json_of(picture))
        elif picture.traces:
            from ._waterfall import Waterfall

            Waterfall(console(), picture).draw()
        else:
            sought = f"{type_name}/{key_text(key)}" if trace_id is None else f"trace {trace_id}"
            console().print(f"no spans of {sought} are kept", style="dim")

    perform(work)


def _picture(spans: SpanStore, type_name: str, key: str, limit: int, trace_id: str | None) -> Picture:
    from ._waterfall import Picture

    wanted = spans.traces_of(type_name, key, limit) if trace_id is None else [bytes.fromhex(trace_id)]
    found = _followed(spans, spans.traces(wanted), limit=len(wanted) + MOST_TRACES)
    return Picture((type_name, key), sorted(found.values(), key=_start), spans.recoveries())


def _followed(spans: SpanStore, found: dict[bytes, Trace], limit: int) -> dict[bytes, Trace]:
    """With what is linked to, and what that is linked to."""
    asked = set(found)
    for _ in range(ROUNDS):
        linked = sorted({trace_id for each in found.values() for trace_id in each.linked} - asked)[: max(0, limit - len(found))]
        if not linked:
            break
        asked.update(linked)
        found = {**found, **spans.traces(linked)}
    return found


def _start(trace: Trace) -> int:
    return trace.start


def _json_of(picture: Picture) -> dict[str, object]:
    traces = [
        {"trace_id": each.trace_id.hex(), "whole": each.whole, "spans": [_json_of_span(kept) for kept in each.spans]}
        for each in picture.traces
    ]
    return {"traces": traces, "recoveries": [{"epoch": epoch, "interrupted": count} for epoch, count in sorted(picture.recoveries.items())]}


def _json_of_span(kept: KeptSpan) -> dict[str, object]:
    span = kept.span
    return {
        "span_id": span.span_id.hex(),
        "parent_id": span.parent_id.hex() or None,
        "depth": kept.depth,
        "name": span.name,
        "kind": span.kind_name,
        "start": span.start,
        "end": span.end,
        "status": span.status_name,
        "attributes": span.attributes,
        "events": [{"name": name, "at": at, "attributes": attributes} for name, at, attributes in span.events],
        "links": [{"trace_id": trace_id.hex(), "span_id": span_id.hex(), "attributes": given} for trace_id, span_id, given in span.links],
        "service": kept.service,
        "instance": kept.instance,
    }
