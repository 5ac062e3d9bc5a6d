"""`perdure check-upgrade`: what is said of a store's actors before the code of tomorrow is deployed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio
import pytest
from perdure.actors import ActorId, Runtime, send_signal
from perdure.actors._envelope import Envelope, Kind
from perdure.actors._ids import MessageId
from perdure.actors._registry import Registry
from perdure.actors._watchdog import Watchdog
from perdure.actors.ops._upgrade import Checker, Concern, Hearing
from perdure.storage import MemoryStore

from .conftest import installed
from .tearoom import Account, Order, trade

pytestmark = pytest.mark.slow  # a process for nearly each, and no version of Python changes what they find

Check = Callable[..., "subprocess.CompletedProcess[str]"]

HEAD = """
import asyncio
from perdure.actors import (
    Transient, current_actor, durable_actor, migrate, on_activate, on_event, on_timer, signal, step, wait_for_signal, workflow,
)

@step(name="charge")
async def charge(what): ...

@step(name="weigh")
async def weigh(what): ...
"""
ACCOUNT = """
@durable_actor
class Account:
    def __init__(self): self.cents = 0
    @on_event
    def add(self, cents): ...
    @on_event
    def remind(self): ...
    @on_timer
    def reminded(self): ...
"""
ORDER = """
@durable_actor
class Order:
    approved = signal(str)
    def __init__(self): self.changes = []
    @workflow
    async def run(self, what):
        await charge(what)
        await wait_for_signal(Order.approved)
    @on_event
    def change(self, what): self.changes.append(what)
"""
RICHER = """
@durable_actor(version=2)
class Account:
    def __init__(self): self.money = (0, "EUR")
    @migrate(1)
    @staticmethod
    def with_currency(state): return {"money": (state["cents"], "EUR")}
    @on_event
    def add(self, cents): ...
"""
WEIGHING = ORDER.replace("await charge(what)", "await (weigh if what == 'ham' else charge)(what)")


@pytest.fixture(scope="module")
def busy_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store that its host has left; it is read alone, so the tests share it."""
    url = f"lmdb:{tmp_path_factory.mktemp('tearoom')}/store"
    anyio.run(trade, url)
    return url


@pytest.fixture
def check(tmp_path: Path, busy_url: str) -> Check:
    """Checks a module of that text, in one process where nothing else is said: each takes a third of a second to begin."""

    def run(*parts: str, store: str = busy_url, jobs: int = 1, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        module = tmp_path / "tomorrow.py"
        module.write_text("\n".join(map(dedent, (HEAD, *parts))))
        command = [installed(), "check-upgrade", str(module), "--store", store, "--jobs", f"{jobs}", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def findings(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return json.loads(result.stdout)["findings"]  # type: ignore[no-any-return]


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    return result.stdout.splitlines()[-1]


# --- what becomes of actors ---


@pytest.mark.promise("deploys-are-foretold")
def test_code_that_goes_on_with_everything_is_let_through(check: Check) -> None:
    result = check(ACCOUNT, ORDER)

    assert (result.stdout, result.stderr) == (
        "5 actors: 4 go on as they are, 0 migrate, 1 ended, 0 would be quarantined\n",
        "",
    )
    assert result.returncode == 0


@pytest.mark.promise("deploys-are-foretold")
def test_what_would_ask_for_something_else_is_shown_with_the_difference(check: Check) -> None:
    result = check(RICHER, WEIGHING)

    assert result.returncode == 1
    assert "Order version 1: 1 actor would be quarantined: o-1\n" in result.stdout
    assert "    -step charge\n    +step weigh\n" in result.stdout
    assert 'if patched("what-has-changed")' in result.stdout
    assert last_line(result) == "5 actors: 1 go on as they are, 2 migrate, 1 ended, 1 would be quarantined"


def test_a_version_without_a_migration_is_shown_with_the_lines_to_write(check: Check) -> None:
    result = check(ACCOUNT.replace("@durable_actor", "@durable_actor(version=2)"), ORDER)

    assert result.returncode == 1
    assert "Account version 1 → 2: 2 actors would be quarantined: a-0, a-1\n" in result.stdout
    assert "      @migrate(1)\n" in result.stdout
    assert "check-upgrade` tells beforehand" not in result.stdout


def test_a_migration_that_raises_is_shown_with_its_line(check: Check) -> None:
    (finding,) = findings(check(RICHER.replace('"cents"', '"dollars"'), ORDER, options=("--json",)))

    assert (finding["error"], finding["count"], finding["keys"]) == ("MigrationFailed", 2, ["a-0", "a-1"])
    assert "KeyError: 'dollars'" in finding["text"]
    assert finding["text"].endswith("in with_currency")


def test_a_class_that_waits_in_the_old_version_can_be_hosted_beside(check: Check) -> None:
    newer = ORDER.replace("@durable_actor", '@durable_actor(name="Order", version=2)').replace("Order", "NewOrder").replace('"New', '"')

    alone, beside = check(ACCOUNT, newer), check(ACCOUNT, newer, ORDER)

    assert (alone.returncode, beside.returncode) == (1, 0)
    assert "replays=(1,)" in alone.stdout


def test_a_hook_that_fails_with_the_stored_state_is_found(check: Check) -> None:
    hook = "    @on_activate\n    def look(self): self.lost\n"

    (finding,) = findings(check(ACCOUNT + hook, ORDER, options=("--json",)))

    assert finding["text"].splitlines()[0] == "AttributeError: 'Account' object has no attribute 'lost'"


def test_keys_are_shown_up_to_the_limit(check: Check) -> None:
    result = check(RICHER.replace('"cents"', '"dollars"'), ORDER, options=("--limit", "1"))

    assert "2 actors would be quarantined: a-0, …\n" in result.stdout


# --- what else is said ---


def test_a_type_that_is_not_served_is_said_with_the_name_to_keep(check: Check) -> None:
    result = check(ACCOUNT)

    assert result.returncode == 0
    assert '@durable_actor(name="Order")' in result.stdout
    assert last_line(result) == "5 actors: 2 go on as they are, 0 migrate, 3 are of a type that is not served, 0 would be quarantined"


def test_what_has_ended_may_be_unreadable_and_is_no_reason(check: Check) -> None:
    newer = ORDER.replace("@durable_actor", '@durable_actor(name="Order", version=2)').replace("Order", "NewOrder").replace('"New', '"')

    result = check(ACCOUNT, ORDER, newer.replace("self.changes = []", "self.notes = []").replace("@workflow", BROKEN + "    @workflow"))

    assert result.returncode == 0
    assert "1 actor could not be queried any more: ended\n" in result.stdout


BROKEN = "@migrate(1)\n    @staticmethod\n    def lose(state): return state['lost']\n"


def test_messages_that_nobody_would_handle_are_a_reason(check: Check, tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/mail"
    anyio.run(leave_mail, url)
    changed = ORDER.replace("change(self, what)", "change(self, what, why)") + HOLD

    result = check(ACCOUNT.replace("reminded", "remembered"), changed, store=url, options=("--json",))

    said = {(each["concern"], each["name"], each["text"].splitlines()[0]) for each in findings(result)}
    assert result.returncode == 1
    assert said == {
        ("put_aside", "event change", "WrongArguments: Order.change(what, why) cannot be called so: missing a required argument: 'why'."),
        ("put_aside", "timer reminded", "UnknownHandler: Account has no timer 'reminded'. There is: remembered."),
    }


HOLD = """
    @on_event
    async def hold(self): await asyncio.sleep(86400)
"""


async def leave_mail(url: str) -> None:
    async with Runtime(url, actors=[Account, Order]) as runtime:
        await runtime.ref(Account, "a").ask(Account.remind)
        order = runtime.ref(Order, "o")
        await order.send_event(Order.hold)
        await order.send_event(Order.change, "more")
        await runtime.settled()


SILENCE = "import logging.config\nlogging.config.dictConfig({'version': 1})  # and no logger that there is says anything any more\n"


def test_a_state_that_replay_would_mend_is_said(check: Check) -> None:
    result = check(SILENCE, ACCOUNT, ORDER.replace("append(what)", "append(what.upper())"))

    assert result.returncode == 0
    assert "Order version 1: 2 actors would go on, with a warning: o-0, o-1\n  after replay self.changes[0] was not" in result.stdout


SCRIPT = """
from perdure.actors import Runtime

async def main():
    async with Runtime({!r}, actors=[Order]) as runtime:
        await runtime.start(Order.run, "o", "tea")
        await runtime.settled()

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_steps_that_a_script_recorded_are_told_from_changed_code(check: Check, tmp_path: Path) -> None:
    url, order = f"lmdb:{tmp_path}/scripted", ORDER.replace("charge(", "pay(")
    (tmp_path / "script.py").write_text(f"{HEAD}{PAY}{order}{SCRIPT.format(url)}")
    subprocess.run([sys.executable, tmp_path / "script.py"], check=True)

    result = check(PAY, order, store=url)

    assert result.returncode == 1
    assert "-step __main__.pay" in result.stdout
    assert '@step(name="__main__.…")' in result.stdout


PAY = """
@step
async def pay(what): ...
"""


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("type_name", "kind", "concern"),
    [("Order", Kind.START, Concern.STOPPED), ("Order", Kind.EVENT, Concern.PUT_ASIDE), ("Tea", Kind.EVENT, Concern.PUT_ASIDE)],
)
async def test_a_message_that_nobody_can_read_stops_its_actor_or_is_put_aside(type_name: str, kind: Kind, concern: Concern) -> None:
    checker = Checker(MemoryStore(), Registry.of_classes([Order]), Watchdog(), Hearing(), lambda: None)
    envelope = Envelope(MessageId(b"m"), kind, "change", b"\x80\x05clost\nThing\n.")

    checked = await checker.check_arrival(ActorId(type_name, "o"), envelope)

    assert [finding.concern for finding in checked.findings] == [concern]


# --- hostile code ---


def test_code_that_ends_its_process_costs_no_other_actor(check: Check) -> None:
    deadly = RICHER.replace("return {", "import os; state['cents'] or os._exit(3); return {")

    result = check(deadly, ORDER, jobs=2)

    assert result.returncode == 1
    assert "ended with status 3" in result.stdout
    assert last_line(result) == "5 actors: 2 go on as they are, 1 migrate, 1 ended, 1 would be quarantined"


def test_code_that_does_not_come_back_costs_no_other_actor(check: Check) -> None:
    endless = RICHER.replace("return {", "\n        while not state['cents']: pass\n        return {")

    result = check(endless, ORDER, options=("--timeout", "0.3", "--json"))

    (finding,) = findings(result)
    assert (result.returncode, finding["error"], finding["keys"]) == (1, "TurnDidNotEnd", ["a-0"])


def test_resources_may_be_kept_and_not_used(check: Check) -> None:
    hook = "    till: Transient[object]\n    @on_activate\n    def open(self): self.till = current_actor().resources['till']{}\n"

    kept, used = check(ACCOUNT + hook.format(""), ORDER), check(ACCOUNT + hook.format(".open()"), ORDER)

    assert last_line(kept).startswith("5 actors: 4 go on as they are")
    assert (used.returncode, "2 could not be checked" in last_line(used)) == (0, True)
    assert "its code uses the resource 'till', which only a host has" in used.stdout


def test_what_replayed_code_prints_is_not_in_the_report(check: Check) -> None:
    result = check(ACCOUNT, ORDER.replace("await charge", "print('hello'); await charge"), options=("--json",))

    assert json.loads(result.stdout)["goes_on"] == 4


# --- the call ---


@pytest.mark.promise("deploys-are-foretold")
def test_nothing_is_written(check: Check, busy_url: str) -> None:
    files = [path for path in Path(busy_url.removeprefix("lmdb:")).rglob("*") if path.is_file() and path.name != "lock.mdb"]
    before = [path.read_bytes() for path in files]

    check(RICHER, WEIGHING)

    assert [path.read_bytes() for path in files] == before


def test_a_host_may_be_at_work_meanwhile(check: Check, tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/busy"

    async def work() -> None:
        async with Runtime(url, actors=[Account, Order]) as runtime, anyio.create_task_group() as tasks:
            for number in range(200):
                await runtime.start(Order.run, f"o-{number}", "tea")
            tasks.start_soon(end_and_begin, runtime)
            found.append(await anyio.to_thread.run_sync(lambda: check(ACCOUNT, ORDER, store=url)))
            tasks.cancel_scope.cancel()

    found: list[subprocess.CompletedProcess[str]] = []
    anyio.run(work)

    assert (found[0].returncode, found[0].stderr) == (0, "")


async def end_and_begin(runtime: Runtime) -> None:
    while True:
        for number in range(200):
            order = runtime.ref(Order.run, f"o-{number}")
            await order.send_event(Order.change, "more")
            await send_signal(order, Order.approved, "ada")
            await order.result()
            await runtime.options(if_exists="restart").start(Order.run, f"o-{number}", "tea")


@pytest.mark.parametrize(
    ("module", "store", "status", "said"),
    [
        ("lost.py", "lmdb:lost", 2, "error: lost.py: there is no such file."),
        ("json", "lmdb:lost", 2, "error: json: no class in it is decorated with @durable_actor."),
        ("tearoom.py", "lmdb:lost", 1, "there is no store"),
        ("tearoom.py", "memory:", 2, "a store in memory is in the memory of its own process alone"),
    ],
)
def test_a_call_that_cannot_be_is_refused_in_a_sentence(module: str, store: str, status: int, said: str) -> None:
    command = [installed(), "check-upgrade", module, "--store", store]

    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)

    assert (result.returncode, result.stdout) == (status, "")
    assert said in " ".join(result.stderr.replace("│", "").split())


@pytest.mark.promise("deploys-are-foretold")
@pytest.mark.timeout(180)
def test_one_planted_change_among_ten_thousand_actors_is_found_within_ten_seconds(check: Check, tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/crowd"
    anyio.run(trade, url, 9_000, 999, 8)

    begun = time.monotonic()
    result = check(RICHER, WEIGHING, store=url, jobs=2)
    seconds = time.monotonic() - begun

    assert last_line(result) == "10,000 actors: 998 go on as they are, 9,000 migrate, 1 ended, 1 would be quarantined"
    assert "would be quarantined: o-1\n" in result.stdout
    assert seconds <= 10
