"""The linter refuses what a replay would not repeat, where it stands, and nothing else."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from perdure.actors.ops.lint import Report, lint

from .conftest import Command

PREAMBLE = """
import asyncio
import random
import time
from datetime import datetime
from pathlib import Path
from perdure.actors import current_actor, durable_actor, on_event, on_signal, query, step, workflow
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files, by their names without suffix, and returns their folder."""

    def write(**texts: str) -> Path:
        for name, text in texts.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(text), "utf-8")
        return tmp_path

    return write


def an_order(workflow: str, *members: str, before: str = "") -> str:
    """A module with a durable type, whose workflow runs that."""
    body = "\n".join(("@workflow\nasync def run(self, rows: list[int]) -> None:\n" + textwrap.indent(workflow, "    "), *members))
    return f"{PREAMBLE}{before}\n@durable_actor\nclass Order:\n{textwrap.indent(body, '    ')}\n"


@pytest.fixture
def codes(write: Write) -> Callable[..., list[str]]:
    """Lints an order, and tells the codes of what is found."""

    def codes(workflow: str, *members: str, before: str = "") -> list[str]:
        return [finding.code for finding in lint([write(orders=an_order(workflow, *members, before=before))]).findings]

    return codes


Codes = Callable[..., list[str]]


def places(report: Report) -> list[tuple[str, int, str]]:
    return [(finding.path.name, finding.line, finding.code) for finding in report.findings]


@pytest.mark.parametrize(
    ("code", "workflow"),
    [
        ("PER001", "time.time()"),
        ("PER001", "import time as t\nt.monotonic_ns()"),
        ("PER001", "from time import perf_counter as now\nnow()"),
        ("PER001", "import datetime as dt\ndt.datetime.now(dt.UTC)"),
        ("PER001", "datetime.utcnow()"),
        ("PER001", "clock = time.time\nreturn rows.append(1)"),
        ("PER001", "time.localtime()"),
        ("PER002", "time.sleep(1)"),
        ("PER003", "random.choice(rows)"),
        ("PER003", "random.Random()"),
        ("PER003", "sorted(rows, key=lambda row: random.random())"),
        ("PER003", "import secrets\nsecrets.token_hex()"),
        ("PER003", "import os\nos.urandom(8)"),
        ("PER004", "from uuid import uuid4\nuuid4()"),
        ("PER005", "import os\nos.environ['REGION']"),
        ("PER005", "from os import getenv\ngetenv('REGION')"),
    ],
)
def test_what_differs_from_replay_to_replay_is_refused(codes: Codes, code: str, workflow: str) -> None:
    assert codes(workflow) == [code]


@pytest.mark.parametrize(
    ("code", "workflow"),
    [
        ("PER006", "with open('rows') as file: file.read()"),
        ("PER006", "input()"),
        ("PER006", "import subprocess\nsubprocess.run(['ls'], check=True)"),
        ("PER006", "import urllib.request\nurllib.request.urlopen('http://shop')"),
        ("PER006", "import httpx\nasync with httpx.AsyncClient() as client: await client.get('/')"),
        ("PER006", "(Path('rows') / 'first').unlink()"),
        ("PER006", "folder = Path('rows').parent\nfolder.mkdir()"),
        ("PER006", "self.file.read_text()"),
        ("PER007", "await asyncio.to_thread(sum, rows)"),
        ("PER007", "import anyio\nawait anyio.to_thread.run_sync(sum, rows)"),
        ("PER007", "await asyncio.get_running_loop().run_in_executor(None, sum, rows)"),
        ("PER007", "await asyncio.open_connection('shop', 80)"),
        ("PER007", "await asyncio.create_subprocess_exec('ls')"),
    ],
)
def test_what_belongs_into_a_step_is_refused(codes: Codes, code: str, workflow: str) -> None:
    assert codes(workflow) == [code]


@pytest.mark.parametrize(
    "workflow",
    [
        "for row in {1, 2}: print(row)",
        "for row in set(rows): print(row)",
        "seen = {row for row in rows}\nfor row in seen: print(row)",
        "seen = set()\nseen |= {1}\nseen = seen | {2}\nlist(seen)",
        "[row for row in frozenset(rows) - {1}]",
        "','.join({'a', 'b'})",
        "print(*set(rows))",
        "for n, row in enumerate(set(rows)): print(n, row)",
        "set(rows).pop()",
        "wanted: set[str] = find(rows)\nreturn {each: 1 for each in wanted}",
        "for row in COLOURS: print(row)",
        "for tag in self.tags: print(tag)",
        "for tag in self.more.union(rows): print(tag)",
    ],
)
def test_the_order_of_a_set_is_refused(codes: Codes, workflow: str) -> None:
    members = "tags: set[str]", "def __init__(self) -> None:\n    self.more = set()"

    assert codes(workflow, *members, before="COLOURS = {'red', 'blue'}") == ["PER008"]


@pytest.mark.parametrize(
    ("workflow", "expected"),
    [
        ("for each in asyncio.as_completed([pay(1), pay(2)]): await each", ["PER009"]),
        ("paying = (pay(row) for row in rows)\nfor each in asyncio.as_completed(paying): await each", ["PER009"]),
        ("for each in asyncio.as_completed([asyncio.create_task(pay(1))]): await each", []),
        ("for each in asyncio.as_completed(rows): await each", []),
        ("await asyncio.wait([asyncio.gather(pay(1))])", ["PER010"]),
        ("both = asyncio.gather(pay(1))\nawait asyncio.wait({both})", ["PER010"]),
        ("await asyncio.wait([asyncio.create_task(pay(1))])", []),
    ],
)
def test_what_wakes_by_address_is_refused(codes: Codes, workflow: str, expected: list[str]) -> None:
    assert codes(workflow, before="@step\ndef pay(row): ...") == expected


@pytest.mark.parametrize(
    "workflow",
    [
        "current_actor().now()\ncurrent_actor().random.choice(rows)\ncurrent_actor().uuid4()",
        "await asyncio.sleep(5)\nasyncio.get_running_loop().time()\nprint(rows)",
        "random = current_actor().random\nrandom.choice(rows)",
        "random.Random(7).random()\ntime.gmtime(0)\ndatetime.fromtimestamp(0)",
        "time: datetime = rows[0]\ntime.time()",
        "def later(time): return time.time()\nlater(datetime)",
        "for row in sorted(set(rows)): print(row)",
        "return sum(row for row in set(rows)) + len({1}), {row for row in {1}}, 1 in {1}",
        "seen = set(rows)\nseen = sorted(seen)\nfor row in seen: print(row)",
        "tasks = {asyncio.create_task(asyncio.sleep(row)) for row in rows}\nfor task in tasks: task.cancel()",
        "import httpx\ntry: rows.clear()\nexcept httpx.HTTPError: raise httpx.HTTPError('no')",
        "Path('rows').with_suffix('.txt').name",
        "rows.open, self.open()\ntext = 'time.time()'",
        "@step\nasync def pay(): return time.time()\nawait pay()",
    ],
)
def test_what_a_replay_repeats_is_not_refused(codes: Codes, workflow: str) -> None:
    assert codes(workflow) == []


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ("@on_event\ndef add(self): time.time()", ["PER001"]),
        ("@on_signal\ndef hurry(self): time.time()", ["PER001"]),
        ("def __init__(self): self.at = time.time()", ["PER001"]),
        ("@query\ndef age(self): return time.time()", []),
        ("def unused(self): return time.time()", []),
    ],
)
def test_beside_a_workflow_all_handlers_but_queries_count(codes: Codes, member: str, expected: list[str]) -> None:
    assert codes("pass", member) == expected


@pytest.mark.parametrize(("kind", "expected"), [("def", []), ("async def", ["PER001", "PER001"])])
def test_a_type_that_is_never_suspended_may_do_anything(write: Write, kind: str, expected: list[str]) -> None:
    text = f"""{PREAMBLE}
@durable_actor(version=2)
class Till:
    @on_event
    {kind} pay(self): time.time()
    @on_signal
    def stop(self): time.time()
"""

    assert [finding.code for finding in lint([write(till=text)]).findings] == expected


@pytest.mark.parametrize(
    "workflow",
    [
        "helper()",
        "asyncio.get_running_loop().call_soon(helper)",
        "self.middle()",
        "run = self.middle\nrun()",
        "Line().total()",
        "async def inner(): helper()\nawait inner()",
    ],
)
def test_what_a_workflow_calls_is_followed_to_the_end(codes: Codes, workflow: str) -> None:
    before = "def helper(): return last()\ndef last(): return time.time()\nclass Line:\n    def __init__(self): helper()\n"

    assert codes(workflow, "def middle(self): helper()", before=before) == ["PER001"]


def test_steps_and_others_handlers_are_not_followed(codes: Codes) -> None:
    before = """
@step(retry=None)
def charge(): time.time()
@durable_actor
class Till:
    @on_event
    def pay(self): time.time()
"""

    assert codes("await charge()\nawait till.ask(Till.pay)", before=before) == []


def test_inherited_handlers_and_super_are_followed(write: Write) -> None:
    text = """
    import time
    from perdure.actors import durable_actor, workflow
    class Root:
        def begin(self): time.time()
    class Base(Root):
        @workflow
        async def run(self): self.begin()
    @durable_actor
    class Order(Base):
        def begin(self): super().begin()
    """

    assert places(lint([write(orders=text)])) == [("orders.py", 5, "PER001")]


@pytest.mark.parametrize(
    ("decorator", "imported"),
    [
        ("pa.durable_actor(version=1)", "import perdure.actors as pa"),
        ("perdure.actors.durable_actor", "import perdure.actors"),
        ("lasting", "from perdure.actors import durable_actor as lasting"),
        ("durable_actor", "from .outside import durable_actor"),
        ("durable_actor", "from . import durable_actor"),
    ],
)
def test_a_durable_type_is_known_under_any_alias(write: Write, decorator: str, imported: str) -> None:
    text = an_order("time.time()").replace("@durable_actor", f"{imported}\n@{decorator}")

    report = lint([write(orders=text)])

    assert (report.types, len(report.findings)) == (1, 1)


@pytest.mark.parametrize(
    "imported", ["from .stock import price", "from shop.stock import price", "from . import price", "from .stock import price as fee"]
)
def test_imports_between_linted_files_are_followed(write: Write, imported: str) -> None:
    call = "fee()" if imported.endswith("fee") else "price()"
    door, stock = "from .stock import price", "import time\ndef price(): return time.time()\ndef other(): time.sleep(1)\n"

    report = lint([write(**{"shop/__init__": door, "shop/orders": an_order(call, before=imported), "shop/stock": stock})])

    assert places(report) == [("stock.py", 2, "PER001")]
    assert report.findings[0].message.endswith(" (`Order.run` leads here)")


def test_files_that_import_a_name_from_each_other_end(write: Write) -> None:
    folder = write(one="from two import price\n" + an_order("price()"), two="from one import price")

    assert lint([folder]).findings == []


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("# noqa", []),
        ("# noqa: PER001", []),
        ("# noqa:E501,PER001  the log alone sees it", []),
        ("# noqa: PER002", ["PER001"]),
        ("# noqa: because", ["PER001"]),
        ("# noqas", ["PER001"]),
    ],
)
def test_a_comment_silences_what_it_names(codes: Codes, comment: str, expected: list[str]) -> None:
    assert codes(f"time.time()  {comment}") == expected


def test_a_finding_names_its_place_in_characters(write: Write) -> None:
    folder = write(orders=an_order("é = 'é'; time.time()"))

    (finding,) = lint([folder]).findings

    lines = (folder / "orders.py").read_text("utf-8").split("\n")
    assert lines[finding.line - 1][finding.column - 1 :] == "time.time()"
    assert (finding.handler, finding.message.partition(":")[2]) == ("Order.run", " call `current_actor().now()`")


def test_folders_are_searched_but_for_what_is_nobodys_own(write: Write) -> None:
    bad = an_order("time.time()")
    folder = write(**{"shop/orders": bad, "env/orders": bad, ".hidden/orders": bad, "node_modules/orders": bad, "shop/.orders": bad})
    (folder / "env" / "pyvenv.cfg").touch()

    report = lint([folder, folder / "shop" / "orders.py"])

    assert (report.files, places(report)) == (1, [("orders.py", 13, "PER001")])


def test_findings_are_printed_as_other_linters_do(perdure: Command, write: Write) -> None:
    path = write(orders=an_order("time.sleep(1)\nrandom.random()")) / "orders.py"

    result = perdure("lint", str(path))

    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert lines[0].startswith(f"{path}:13:9: PER002 `time.sleep` blocks the host")
    assert lines[1].startswith(f"{path}:14:9: PER003 `random.random` draws anew")
    assert lines[2:] == ["Found 2 problems."]


def test_findings_are_printed_as_json_too(perdure: Command, write: Write) -> None:
    path = write(orders=an_order("time.sleep(1)")) / "orders.py"

    result = perdure("lint", "--format", "json", str(path))

    (finding,) = json.loads(result.stdout)
    assert result.exit_code == 1
    assert finding.pop("message").endswith("which is a durable timer")
    assert finding == {"path": str(path), "line": 13, "column": 9, "code": "PER002", "handler": "Order.run"}


def test_good_code_is_counted(perdure: Command, write: Write) -> None:
    folder = write(orders=an_order("pass"), empty="")

    result = perdure("lint", str(folder))

    assert (result.exit_code, result.stdout) == (0, "All good: 2 files, 1 durable type.\n")


@pytest.mark.parametrize("text", ["x = 1\ndef (:\n", "x = 1\n'", "x = 1\nif x:\n"])
def test_a_file_that_is_no_python_is_named_with_its_line(perdure: Command, write: Write, text: str) -> None:
    folder = write(bad=text, orders=an_order("time.sleep(1)"))

    result = perdure("lint", str(folder))

    assert result.exit_code == 2
    assert f"error: {folder}/bad.py:2: this is no Python: " in result.stderr or f"{folder}/bad.py:3: this" in result.stderr
    assert "PER002" in result.stdout


@pytest.mark.parametrize("data", [b"x = '\0'", b"x = '\xff'", b"# coding: nonsense\n", b"(" * 5000])
def test_bytes_that_are_no_python_are_refused(perdure: Command, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bad.py").write_bytes(data)

    result = perdure("lint", str(tmp_path))

    assert result.exit_code == 2
    assert f"{tmp_path}/bad.py" in result.stderr


def test_a_path_that_does_not_exist_is_refused(perdure: Command, tmp_path: Path) -> None:
    result = perdure("lint", str(tmp_path / "nowhere"))

    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def test_a_literal_that_python_warns_of_is_no_trouble(codes: Codes) -> None:
    assert codes(r"'\d'; time.time()") == ["PER001"]
