"""Every kind of span, by its exact shape; and what is told when, and only then."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode
from perdure.actors import (
    Client,
    Retry,
    Runtime,
    continue_as_new,
    current_actor,
    durable_actor,
    on_activate,
    on_event,
    on_signal,
    on_timer,
    query,
    saga,
    send_signal,
    set_timer,
    signal,
    spawn,
    step,
    wait_for_signal,
    workflow,
)
from perdure.actors._coroutines import current_turn
from perdure.actors.testing import CrashPoint, World
from perdure.storage import CommitUncertain
from perdure.tracing import Draft, PendingSpans, Tracing, names, outgoing_headers, trace_id_of

from .conftest import OF_HOSTS, Listener, Quiet, Told

pytestmark = [pytest.mark.anyio, pytest.mark.promise("traced-once")]

CONSUMER, PRODUCER, INTERNAL = SpanKind.CONSUMER, SpanKind.PRODUCER, SpanKind.INTERNAL


@step
async def refund(cents: int) -> None: ...


@step(compensate=refund)
async def charge(cents: int) -> int:
    if cents < 0:
        raise ValueError(f"{cents} cents")
    return cents


@step(retry=Retry(max_attempts=2, initial=timedelta(seconds=1)))
async def flaky() -> str:
    raise ConnectionError("no route")


@step
async def baggage_here() -> object:
    return baggage.get_baggage("tenant")


@durable_actor
class Shipment:
    @workflow
    async def run(self, label: str) -> str:
        await asyncio.sleep(60)
        return label


@durable_actor
class Order:
    approved = signal(str)

    def __init__(self) -> None:
        self.lines: list[str] = []

    @workflow
    async def run(self, cents: int) -> str:
        await charge(cents)
        by = await wait_for_signal(Order.approved)
        return await spawn(Shipment.run, "s-1", by).result()

    @on_event
    def add(self, sku: str) -> None:
        self.lines.append(sku)

    @on_event
    def fail(self, why: str) -> None:
        raise LookupError(why)

    @on_event
    def tell(self, key: str) -> None:
        current_actor().ref(Order, key).send_event(Order.add, "told")

    @on_event
    async def ask(self, key: str) -> None:
        await current_actor().ref(Order, key).ask(Order.add, "asked")

    @on_event
    def trace(self) -> str | None:
        return trace_id_of(current_turn("its trace").onward)

    @on_event
    def remind(self) -> None:
        set_timer(Order.ring, after=timedelta(minutes=5))

    @on_timer
    def ring(self) -> None:
        self.lines.append("rung")

    @on_signal
    def hurry(self, why: str) -> None:
        self.lines.append(why)

    @query
    def count(self) -> int:
        return len(self.lines)


@durable_actor
class Undone:
    @workflow
    async def run(self) -> None:
        async with saga():
            await charge(1)
            raise ValueError("never mind")


@durable_actor
class Trying:
    @workflow
    async def run(self) -> None:
        await flaky()


@durable_actor
class Sleeper:
    @workflow
    async def run(self, lives: int = 1) -> None:
        await asyncio.sleep(86_400)
        if lives > 1:
            continue_as_new(lives - 1)


@durable_actor
class Waiting:
    """Waits for weeks, and makes spans of its own meanwhile."""

    @workflow
    async def run(self) -> None:
        await asyncio.sleep(30 * 86_400)

    @on_event
    def remind(self) -> None:
        set_timer(Waiting.ring, after=timedelta(minutes=5))

    @on_timer
    def ring(self) -> None: ...

    @on_event
    def make(self) -> None:
        Making.tracer.start_span("theirs").end()

    @on_signal
    def fail(self) -> None:
        self.make()
        raise ValueError


class Making:
    tracer: trace.Tracer
    began: asyncio.Event


@step
async def hang() -> None:
    with Making.tracer.start_as_current_span("theirs"):
        Making.began.set()
        await asyncio.sleep(86_400)


@durable_actor
class Hanging:
    @workflow
    async def run(self) -> None:
        await hang()


@durable_actor
class Fragile:
    @on_activate
    def wake(self) -> None:
        raise ValueError

    @on_event
    def take(self) -> None: ...


@durable_actor
class Napping:
    @workflow
    async def run(self, naps: int) -> None:
        for _ in range(naps):
            await asyncio.sleep(30 * 60)


class OnlyTimers(Sampler):
    """Nothing else begins a trace that is kept."""

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *args: Any, **kwargs: Any) -> SamplingResult:
        return SamplingResult(Decision.RECORD_AND_SAMPLE if name.startswith("timer") else Decision.DROP)

    def get_description(self) -> str:
        return "timers"


@durable_actor
class Carrier:
    @workflow
    async def run(self) -> object:
        await asyncio.sleep(1)
        return await baggage_here()


def actor_of(key: str, type_name: str = "Order") -> dict[str, Any]:
    return {names.ACTOR_TYPE: type_name, names.ACTOR_KEY: key}


# --- messages ---


async def test_a_message_is_sent_and_handled_in_its_callers_trace(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        with listener.tracer.start_as_current_span("POST /orders"):
            await world.ref(Order, "o-1").ask(Order.add, "sku")

    assert listener.told == {
        Told("POST /orders", INTERNAL),
        Told("ask Order.add", PRODUCER, "POST /orders"),
        Told("handle Order.add", CONSUMER, "ask Order.add"),
    }


async def test_a_message_is_told_in_the_words_of_messaging(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        with listener.tracer.start_as_current_span("POST /orders"):
            await world.ref(Order, "o-1").ask(Order.add, "sku")

    sent = {names.MESSAGING_SYSTEM: "perdure", names.DESTINATION: "Order", **actor_of("o-1")}
    assert listener.attributes("ask Order.add") == {**sent, names.OPERATION_TYPE: "send", names.OPERATION_NAME: "ask"}
    handled = listener.attributes("handle Order.add")
    assert len(bytes.fromhex(handled.pop(names.MESSAGE_ID))) == 16
    assert handled.pop(names.BATCH) > 0
    words = {names.OPERATION_TYPE: "process", names.OPERATION_NAME: "handle", names.MESSAGE_KIND: "event"}
    assert handled == {**sent, **words, names.MESSAGE_SEQ: 1, names.TURN: 1, names.EPOCH: 1, names.STATUS: "idle"}


async def test_a_message_from_outside_of_any_trace_begins_one(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        await send_signal(world.ref(Order, "o-1"), Order.hurry, "now")
        await world.settled()

    assert listener.told == {Told("handle Order.hurry", CONSUMER)}


async def test_what_an_actor_sends_is_caused_by_its_turn(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        await world.ref(Order, "o-1").ask(Order.tell, "o-2")
        await world.settled()

    assert listener.told == {
        Told("handle Order.tell", CONSUMER),
        Told("send Order.add", PRODUCER, "handle Order.tell"),
        Told("handle Order.add", CONSUMER, "send Order.add"),
    }


async def test_an_answer_resumes_the_handler_that_asked(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        await world.ref(Order, "o-1").ask(Order.ask, "o-2")

    assert listener.told == {
        Told("handle Order.ask", CONSUMER),
        Told("ask Order.add", PRODUCER, "handle Order.ask"),
        Told("handle Order.add", CONSUMER, "ask Order.add"),
        Told("resume Order: reply", CONSUMER, "handle Order.ask"),
    }


async def test_a_signal_that_nobody_waits_for_is_told_when_it_comes_and_linked_when_taken(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        with listener.tracer.start_as_current_span("approve"):
            await send_signal(world.ref(Order, "o-1"), Order.approved, "ada")
        with listener.tracer.start_as_current_span("begin"):
            order = await world.start(Order.run, "o-1", 1)
        assert await order.result() == "ada"

    assert listener.attributes("handle Order.approved")[names.KEPT] is True
    assert (
        Told("resume Order: " + charge.name, CONSUMER, "handle Order.run", ("signal Order.approved", f"step {charge.name}"))
        in listener.told
    )


async def test_a_query_is_no_turn_and_no_span(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        await world.ref(Order, "o-1").query(Order.count)

    assert listener.told == set()


# --- steps, timers, children ---


async def test_an_attempt_at_a_step_is_caused_by_the_turn_that_asked(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        await world.start(Order.run, "o-1", 1)
        await world.settled()

    assert listener.told == {
        Told("handle Order.run", CONSUMER),
        Told(f"step {charge.name}", INTERNAL, "handle Order.run"),
        Told(f"resume Order: {charge.name}", CONSUMER, "handle Order.run", (f"step {charge.name}",)),
    }
    told = listener.attributes(f"step {charge.name}")
    assert told.pop(names.STEP_KEY).startswith("Order-")
    assert told.pop(names.BATCH) > 0
    assert told == {**actor_of("o-1"), names.STEP: charge.name, names.EPOCH: 1}


async def test_each_attempt_that_fails_is_told_and_the_next_is_marked(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        await world.start(Trying.run, "t-1")
        await world.run_until_idle()

    first, second = (span for span in listener.spans if span.name == f"step {flaky.name}")
    assert (first.status.status_code, second.status.status_code) == (StatusCode.ERROR, StatusCode.ERROR)
    assert [dict(span.attributes or {}).get(names.ATTEMPT) for span in (first, second)] == [None, 2]
    assert [dict(span.attributes or {})[names.ERROR_TYPE] for span in (first, second)] == ["ConnectionError"] * 2


async def test_a_compensation_is_told_as_one(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        await world.start(Undone.run, "u-1")
        await world.run_until_idle()

    assert Told(f"compensate {refund.name}", INTERNAL, f"resume Undone: {charge.name}") in listener.told


async def test_a_child_goes_on_in_the_trace_of_its_parent(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        order = await world.start(Order.run, "o-1", 1)
        await send_signal(order, Order.approved, "ada")
        await order.result()

    by = f"resume Order: {charge.name}", "handle Order.approved"
    spawned = next(told for told in listener.told if told.name == "spawn Shipment.run")
    assert (spawned.kind, spawned.parent in by) == (PRODUCER, True)
    assert {
        Told("handle Shipment.run", CONSUMER, "spawn Shipment.run"),
        Told("timer Shipment", INTERNAL, "handle Shipment.run"),
        Told("resume Order: reply", CONSUMER, "handle Order.run"),
    } <= listener.told


async def test_a_named_timer_is_caused_by_the_turn_that_has_set_it(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        await world.ref(Order, "o-1").ask(Order.remind)
        await world.run_until_idle()

    assert Told("timer Order.ring", INTERNAL, "handle Order.remind") in listener.told
    told = listener.attributes("timer Order.ring")
    assert (told[names.MESSAGE_KIND], told[names.TIMER_LATE]) == ("timer", 0.0)


async def test_a_named_timer_of_a_workflow_that_waits_is_caused_by_who_has_set_it(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        waiting = await world.start(Waiting.run, "w-1")
        with listener.tracer.start_as_current_span("elsewhere"):
            await waiting.ask(Waiting.remind)
        await world.advance(timedelta(minutes=6))

    assert Told("timer Waiting.ring", INTERNAL, "handle Waiting.remind", ("handle Waiting.run",)) in listener.told


# --- long stories ---


async def test_what_goes_on_after_a_long_gap_begins_a_trace_with_a_link(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        await world.start(Sleeper.run, "s-1")
        await world.run_until_idle()

    assert listener.told == {Told("handle Sleeper.run", CONSUMER), Told("timer Sleeper", INTERNAL, None, ("handle Sleeper.run",))}


async def test_a_user_may_have_one_trace_whatever_the_gaps(listener: Listener) -> None:
    async with World(tracing=listener.tracing(link_after=None)) as world:
        await world.start(Sleeper.run, "s-1")
        await world.run_until_idle()

    assert listener.told == {Told("handle Sleeper.run", CONSUMER), Told("timer Sleeper", INTERNAL, "handle Sleeper.run")}


async def test_a_message_without_a_trace_does_not_go_on_in_one_of_long_ago(listener: Listener) -> None:
    Making.tracer = listener.tracer
    async with World(tracing=listener.tracing()) as world:
        waiting = await world.start(Waiting.run, "w-1")
        await world.advance(timedelta(days=1))
        await waiting.ask(Waiting.make)

    assert Told("handle Waiting.make", CONSUMER, None, ("handle Waiting.run",)) in listener.told


async def test_what_waits_stays_in_its_trace_whatever_messages_come_late(listener: Listener) -> None:
    Making.tracer = listener.tracer
    async with World(tracing=listener.tracing(link_after=timedelta(minutes=-1))) as world:  # all is late
        waiting = await world.start(Waiting.run, "w-1")
        with listener.tracer.start_as_current_span("elsewhere"):
            await waiting.ask(Waiting.make)
        await world.run_until_idle()

    assert Told("timer Waiting", INTERNAL, None, ("handle Waiting.run",)) in listener.told


async def test_a_loop_of_short_sleeps_is_a_row_of_linked_traces(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        await world.start(Napping.run, "n-1", 8)
        await world.run_until_idle()

    begun = [span for span in listener.spans if span.parent is None and span.name not in OF_HOSTS]
    assert [(span.name, len(span.links)) for span in begun] == [("handle Napping.run", 0), ("timer Napping", 1), ("timer Napping", 1)]


async def test_the_trace_after_one_that_is_not_sampled_is_sampled_anew() -> None:
    listener = Listener(ParentBased(OnlyTimers()))
    async with World(tracing=listener.tracing()) as world:
        await world.start(Napping.run, "n-1", 8)
        await world.run_until_idle()

    assert [span.name for span in listener.spans if span.parent is None] == ["timer Napping", "timer Napping"]


async def test_each_life_has_a_trace_that_is_linked_to_the_one_before(listener: Listener) -> None:
    async with World(tracing=listener.tracing(link_after=None)) as world:
        await world.start(Sleeper.run, "s-1", 2)
        await world.run_until_idle()

    first, second = (span for span in listener.spans if span.name == "handle Sleeper.run")
    assert (first.parent, second.parent, len(first.links), len(second.links)) == (None, None, 0, 1)
    assert first.context is not None
    assert second.links[0].context.trace_id == first.context.trace_id


# --- what is told, and what is not ---


async def test_nothing_is_told_of_a_turn_that_never_became_durable(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        world.crash_at(CrashPoint.BEFORE_COMMIT, 1)
        with pytest.raises(CommitUncertain):
            await world.ref(Order, "o-1").ask(Order.add, "sku")
        await world.settled()

    assert listener.told == set()


async def test_a_turn_whose_commit_had_an_unknown_outcome_is_told_by_the_next_host(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        world.crash_at(CrashPoint.AFTER_COMMIT, 1)
        with pytest.raises(CommitUncertain):
            await world.ref(Order, "o-1").ask(Order.add, "sku")
        await world.settled()

    assert listener.attributes("handle Order.add")[names.EPOCH] == 1
    assert listener.attributes(names.RECOVER)[names.EPOCH] > 1


async def test_replay_tells_nothing(listener: Listener) -> None:
    async with World(tracing=listener.tracing(), max_active=0) as world:
        order = await world.start(Order.run, "o-1", 1)
        await world.settled()
        before = listener.told
        await world.restart()
        await order.query(Order.count)

    assert listener.told == before


async def test_a_failure_is_told_by_its_type_and_where_the_message_went(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        await world.ref(Order, "o-1").send_event(Order.fail, "why")
        await world.run_until_idle()

    *others, last = (span for span in listener.spans if span.name == "handle Order.fail")
    assert {span.status.status_code for span in (*others, last)} == {StatusCode.ERROR}
    told = dict(last.attributes or {})
    assert (told[names.ERROR_TYPE], told[names.DEAD_LETTER], told[names.ATTEMPT]) == ("LookupError", True, len(others) + 1)


async def test_an_attempt_after_a_restart_is_marked_and_in_the_callers_trace(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        with listener.tracer.start_as_current_span("POST /orders") as request:
            await world.start(Trying.run, "t-1")
            await world.settled()
            await world.restart()
        await world.run_until_idle()

    told = [span for span in listener.spans if span.name == f"step {flaky.name}"]
    assert dict(told[-1].attributes or {})[names.RECOVERED] is True
    assert {span.context.trace_id for span in told if span.context is not None} == {request.get_span_context().trace_id}


async def test_a_commit_links_to_the_turns_that_it_made_durable(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        await world.ref(Order, "o-1").ask(Order.add, "sku")

    commit, turn = listener.span(names.COMMIT), listener.span("handle Order.add")
    assert (commit.parent, [link.context for link in commit.links]) == (None, [turn.context])
    told: dict[str, Any] = dict(commit.attributes or {})
    assert told.pop(names.BATCH_BYTES) > 0
    assert told == {names.BATCH: dict(turn.attributes or {})[names.BATCH], names.BATCH_CHANGES: 4, names.EPOCH: 1}


async def test_a_trace_that_is_not_sampled_stays_so_and_goes_on() -> None:
    listener = Listener(ParentBased(ALWAYS_OFF))
    async with World(tracing=listener.tracing()) as world:
        with listener.tracer.start_as_current_span("POST /orders") as request:
            found = await world.ref(Order, "o-1").ask(Order.trace)

    assert (listener.spans, found) == ([], f"{request.get_span_context().trace_id:032x}")


async def test_baggage_reaches_a_step_after_a_restart(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        token = attach(baggage.set_baggage("tenant", "acme"))
        carrier = await world.start(Carrier.run, "c-1")
        detach(token)
        await world.restart()

        assert await carrier.result() == "acme"


async def test_what_code_makes_in_a_trace_that_is_not_sampled_is_not_seen() -> None:
    listener = Listener(ParentBased(Quiet("POST /orders")))
    Making.tracer = listener.tracer
    async with World(tracing=listener.tracing()) as world:
        with listener.tracer.start_as_current_span("POST /orders"):
            await world.ref(Waiting, "w-1").ask(Waiting.make)

    assert listener.told == set()


# --- what has begun is seen ---


async def test_an_attempt_that_is_given_up_is_told(listener: Listener) -> None:
    Making.tracer, Making.began = listener.tracer, asyncio.Event()
    async with World(tracing=listener.tracing()) as world:
        hanging = await world.start(Hanging.run, "h-1")
        await Making.began.wait()
        await hanging.terminate()
        await world.settled()

        assert listener.attributes(f"step {hang.name}")[names.ERROR_TYPE] == "CancelledError"


async def test_an_attempt_that_ends_with_its_host_is_told(listener: Listener) -> None:
    Making.tracer, Making.began = listener.tracer, asyncio.Event()
    async with World(tracing=listener.tracing()) as world:
        await world.start(Hanging.run, "h-1")
        await Making.began.wait()

    assert Told("theirs", INTERNAL, f"step {hang.name}") in listener.told


async def test_a_turn_whose_actor_cannot_be_brought_to_memory_is_told(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        await world.ref(Fragile, "f-1").send_event(Fragile.take)
        await world.settled()

    assert listener.attributes("handle Fragile.take")[names.ERROR_TYPE] == "ValueError"


async def test_a_signal_that_is_tried_again_after_a_replay_is_told_once(listener: Listener) -> None:
    Making.tracer = listener.tracer
    async with World(tracing=listener.tracing()) as world:
        await send_signal(await world.start(Waiting.run, "w-1"), Waiting.fail)
        await world.settled()

    turn = listener.span("handle Waiting.fail")
    made = [span.parent for span in listener.spans if span.name == "theirs"]
    assert (dict(turn.attributes or {})[names.ATTEMPT], made) == (3, [turn.context] * 3)


async def test_a_child_that_cannot_begin_is_no_dead_letter(listener: Listener) -> None:
    number: Any = "no number"

    @durable_actor
    class Parent:
        @workflow
        async def run(self) -> None:
            await spawn(Child.run, "c-1", number).result()

    @durable_actor(codec="msgspec")
    class Child:
        @workflow
        async def run(self, number: int) -> None: ...

    async with World([Parent, Child], tracing=listener.tracing()) as world:
        await world.start(Parent.run, "p-1")
        await world.run_until_idle()

    attributes = listener.attributes("handle Child.run")
    assert (names.ERROR_TYPE in attributes, names.DEAD_LETTER in attributes) == (True, False)


def test_of_batches_before_those_of_another_process_nothing_is_told() -> None:
    pending = PendingSpans()
    pending.park((5, 7), Draft("handle Order.add", CONSUMER, 0.0, {}))

    assert pending.settle((6, 1)) == []


# --- payload ---


CANARY = "4711-canary"


@pytest.mark.promise("no-payload-leaves")
async def test_no_payload_leaves_unless_it_is_asked_for(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        await world.ref(Order, "o-1").send_event(Order.fail, CANARY)
        order = await world.start(Order.run, "o-2", -4711)
        await send_signal(order, Order.approved, CANARY)
        await world.run_until_idle()

    assert listener.spans
    assert not [span for span in listener.spans if "4711" in span.to_json()]


@pytest.mark.promise("no-payload-leaves")
async def test_payload_leaves_as_a_hook_makes_of_it(listener: Listener) -> None:
    def redacted(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        return None if name == "run" else f"{name} with {len(args)}"

    async with World(tracing=listener.tracing(capture_payloads=redacted)) as world:
        await world.start(Order.run, "o-1", 4711)
        await world.settled()

    assert names.PAYLOAD not in listener.attributes("handle Order.run")
    assert listener.attributes(f"step {charge.name}")[names.PAYLOAD] == f"{charge.name} with 1"


# --- the user's own telemetry ---


async def test_what_code_makes_in_a_turn_is_part_of_it_and_not_made_again_in_a_replay(listener: Listener) -> None:
    tracer = listener.tracer

    @durable_actor
    class Manual:
        @workflow
        async def run(self) -> None:
            with tracer.start_as_current_span("theirs"):
                trace.get_current_span().set_attribute("whose", "theirs")
            await asyncio.sleep(1)
            trace.get_current_span().set_attribute("whose", "ours")

    async with World([Manual], tracing=listener.tracing(), max_active=0) as world:
        await world.start(Manual.run, "m-1")
        await world.run_until_idle()

    assert Told("theirs", INTERNAL, "handle Manual.run") in listener.told
    assert (listener.attributes("theirs")["whose"], listener.attributes("timer Manual")["whose"]) == ("theirs", "ours")


async def test_a_log_line_says_which_trace_it_belongs_to(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    @durable_actor
    class Talker:
        @on_event
        def say(self) -> None:
            current_actor().logger.warning("said")

    async with World(tracing=listener.tracing()) as world:
        await world.ref(Talker, "t-1").ask(Talker.say)

    (record,) = (record for record in caplog.records if record.message == "said")
    context = listener.span("handle Talker.say").context
    assert context is not None
    assert vars(record)["trace_id"] == f"{context.trace_id:032x}"


# --- processes ---


@step(executor="process")
def trace_in_a_process() -> str | None:
    return trace_id_of(outgoing_headers())


@durable_actor
class Delegating:
    @workflow
    async def run(self) -> str | None:
        return await trace_in_a_process()


async def test_a_step_in_a_process_of_its_own_is_in_the_trace(listener: Listener) -> None:
    async with World(tracing=listener.tracing()) as world:
        found = await (await world.start(Delegating.run, "d-1")).result()

    context = listener.span(f"step {trace_in_a_process.name}").context
    assert context is not None
    assert found == f"{context.trace_id:032x}"


async def test_a_client_sends_from_within_its_trace(listener: Listener, tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path / 'store'}"
    async with Runtime(url, [Order], tracing=listener.tracing()), Client(url, tracing=listener.tracing()) as client:
        with listener.tracer.start_as_current_span("elsewhere"):
            await client.ref(Order, "o-1").ask(Order.add, "sku")

    assert listener.told == {
        Told("elsewhere", INTERNAL),
        Told("ask Order.add", PRODUCER, "elsewhere"),
        Told("handle Order.add", CONSUMER, "ask Order.add"),
    }


async def test_a_provider_that_does_nothing_is_told_nothing() -> None:
    async with World(tracing=Tracing(tracer_provider=trace.NoOpTracerProvider())) as world:
        await world.ref(Order, "o-1").ask(Order.add, "sku")

    assert Tracing(tracer_provider=trace.NoOpTracerProvider()).spans() is None


async def test_of_a_crowded_batch_every_turn_is_told(listener: Listener) -> None:
    async with World([Order], tracing=listener.tracing()) as world:
        sends = [world.ref(Order, f"o-{number}").send_event(Order.add, "sku") for number in range(2_000)]
        await asyncio.gather(*sends)
        await world.settled()

    assert len([span for span in listener.spans if span.name == "handle Order.add"]) == 2_000
