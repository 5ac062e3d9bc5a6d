"""What real receivers of OTLP are sent: an order whose host was killed is one trace, and so is each case of a real log."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from subprocess import PIPE
from typing import Final

import anyio
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from perdure.tracing import names

from .cases import Event, play, read_log
from .receivers import Receiver, Receiving, Seen, phoenix, tapped, wait_for

ORDERS: Final = str(Path(__file__).with_name("orders.py"))
LOG: Final = "PERDURE_PROCESS_LOG"  # the environment variable that says where the real log is
RECEIPT: Final = Path("../shared/data/receipt.csv")
TAKES: Final = 50.0  # seconds, at most
EXPORT_EVERY: Final = "50"  # milliseconds
QUEUE: Final = 100_000  # spans: the SDK drops what does not fit

# Each span of the order, and its parent: what was asked for in a turn is below it, and so is every later turn below the first.
LINEAGE: Final = Counter(
    {
        ("POST /orders", ""): 1,
        ("start Order.run", "POST /orders"): 1,
        ("handle Order.run", "start Order.run"): 1,
        ("step book_courier", "handle Order.run"): 1,
        ("resume Order: book_courier", "handle Order.run"): 1,
        ("step insure", "resume Order: book_courier"): 1,
        ("resume Order: insure", "handle Order.run"): 1,
        ("compensate return_courier", "resume Order: insure"): 1,
        ("resume Order: return_courier", "handle Order.run"): 1,
        ("step charge", "resume Order: return_courier"): 1,
        ("resume Order: charge", "handle Order.run"): 1,
        ("send Desk.review", "resume Order: charge"): 1,
        ("handle Desk.review", "send Desk.review"): 1,
        ("signal Order.approved", "handle Desk.review"): 1,
        ("handle Order.approved", "handle Order.run"): 1,
        ("timer Order", "handle Order.run"): 1,
        ("spawn Shipment.run", "timer Order"): 1,
        ("handle Shipment.run", "spawn Shipment.run"): 1,
        ("step pack", "handle Shipment.run"): 1,
        ("resume Shipment: pack", "handle Shipment.run"): 1,
        ("resume Order: reply", "handle Order.run"): 1,
    }
)
LAST_BEFORE: Final = ("POST /orders", "resume Order: return_courier")  # of all that is exported before the kill
CLOSED: Final = "closed"  # the last span of a host that ends by itself
OF_THE_HOST: Final = frozenset({names.COMMIT, names.RECOVER, CLOSED})  # traces of their own: a batch is of many


@pytest.fixture(
    scope="module", params=[pytest.param(tapped, id="oteltap"), pytest.param(phoenix, id="phoenix", marks=pytest.mark.integration)]
)
def receiving(request: pytest.FixtureRequest) -> Receiving:
    """Each receiver."""
    made: Receiving = request.param
    return made


@pytest.fixture(scope="module")
def told(receiving: Receiving, tmp_path_factory: pytest.TempPathFactory) -> list[Seen]:
    """What the receiver has of the order when it is done."""
    return anyio.run(tell_order, receiving, tmp_path_factory.mktemp("orders"))


async def tell_order(receiving: Receiving, place: Path) -> list[Seen]:
    (place / "receiver").mkdir()
    async with receiving(place / "receiver") as receiver:
        async with asyncio.timeout(TAKES):
            await first_life(receiver, place)
            assert await second_life(receiver, place) == ["charging o-1, attempt 2", "a parcel for o-1, paid 4200, approved by bob"]
            return await wait_for(receiver, lambda seen: has(seen, CLOSED) and len(of_the_order(seen)) >= LINEAGE.total())


async def first_life(receiver: Receiver, place: Path) -> None:
    host = await started(receiver, place, "--request")
    try:
        assert host.stdout is not None
        assert await host.stdout.readline() == b"charging o-1, attempt 1\n"
        await wait_for(receiver, lambda seen: has(seen, *LAST_BEFORE))
    finally:
        host.kill()
        await host.communicate()


async def second_life(receiver: Receiver, place: Path) -> list[str]:
    host = await started(receiver, place)
    try:
        output, _ = await host.communicate()
    except asyncio.CancelledError:
        host.kill()
        raise
    assert host.returncode == 0
    return output.decode().splitlines()


async def started(receiver: Receiver, place: Path, *arguments: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": EXPORT_EVERY}
    command = [sys.executable, "-W", "error", ORDERS, str(place / "store"), *arguments]
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=environment)


def has(seen: list[Seen], *spans: str) -> bool:
    return {span.name for span in seen}.issuperset(spans)


def of_the_order(spans: Iterable[Seen]) -> list[Seen]:
    return [span for span in spans if span.name not in OF_THE_HOST]


@pytest.mark.promise("traced-once")
def test_an_order_is_one_trace_over_a_kill(told: list[Seen]) -> None:
    order = of_the_order(told)

    assert len({span.trace for span in order}) == 1
    assert [span.name for span in order if not span.parent] == ["POST /orders"]


def test_each_span_is_below_the_one_that_caused_it(told: list[Seen]) -> None:
    parents = {"": "", **{span.id: span.name for span in told}}

    assert Counter((span.name, parents[span.parent]) for span in of_the_order(told)) == LINEAGE


@pytest.mark.promise("traced-once")
def test_nothing_is_told_twice(told: list[Seen]) -> None:
    turns = [(span.attributes[names.ACTOR_KEY], span.attributes[names.TURN]) for span in told if names.TURN in span.attributes]
    attempts = [(span.attributes[names.STEP_KEY], attempt_of(span)) for span in told if names.STEP_KEY in span.attributes]

    assert [found for found in (turns, attempts, [span.id for span in told]) if len(found) > len(set(found))] == []


def test_the_step_that_died_is_there_as_its_second_attempt(told: list[Seen]) -> None:
    (charge,) = (span for span in told if span.name == "step charge")

    assert (attempt_of(charge), charge.attributes[names.INTERRUPTED], charge.attributes[names.RECOVERED]) == (2, 1, True)


def test_the_context_of_a_request_reaches_a_step_after_a_restart(told: list[Seen]) -> None:
    (request,) = (span for span in told if span.name == "POST /orders")
    (charge,) = (span for span in told if span.name == "step charge")

    assert (charge.trace, charge.attributes["customer"]) == (request.trace, "ada")


def test_commits_and_recoveries_are_traces_of_their_own(told: list[Seen]) -> None:
    order, host = of_the_order(told), [span for span in told if span.name in OF_THE_HOST]

    assert len({span.trace for span in order + host}) == 1 + len(host)
    assert [span.attributes[names.INTERRUPTED] for span in host if span.name == names.RECOVER] == [1]


def attempt_of(span: Seen) -> object:
    return span.attributes.get(names.ATTEMPT, 1)


# --- a real log ---


@pytest.mark.slow
def test_a_real_log_gives_one_trace_a_case(receiving: Receiving, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    path = Path(os.environ.get(LOG, pytestconfig.rootpath / RECEIPT))
    if not path.exists():
        pytest.skip(f"{path} is not here: {LOG} says where else the log is")
    log = read_log(path)

    told = anyio.run(tell_cases, receiving, log, tmp_path)

    assert len({span.trace for span in told if span.name == "handle Case.run"}) == len({event.case for event in log})
    assert cases_in(told) == cases_of(log)


async def tell_cases(receiving: Receiving, log: list[Event], place: Path) -> list[Seen]:
    (place / "receiver").mkdir()
    async with receiving(place / "receiver") as receiver:
        provider = TracerProvider(shutdown_on_exit=False)
        exporter = OTLPSpanExporter(f"{receiver.endpoint}/v1/traces")
        provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=QUEUE, schedule_delay_millis=100))
        try:
            await play(log, f"lmdb:{place}/store", provider)
        finally:
            await asyncio.to_thread(provider.shutdown)
        return await wait_for(receiver, lambda seen: sum(span.name == "handle Case.record" for span in seen) >= len(log))


def cases_of(log: list[Event]) -> list[list[str]]:
    """The ids of each case's events, in their order."""
    found = defaultdict(list)
    for event in log:
        found[event.case].append(event.id)
    return sorted(found.values())


def cases_in(spans: list[Seen]) -> list[list[str]]:
    """The same, of each trace's turns."""
    found = defaultdict(list)
    for span in sorted((span for span in spans if span.name == "handle Case.record"), key=turn_of):
        found[span.trace].append(str(span.attributes[names.PAYLOAD]))
    return sorted(found.values())


def turn_of(span: Seen) -> int:
    return int(str(span.attributes[names.TURN]))
