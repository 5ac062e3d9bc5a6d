"""The demo kills the host of real work and counts what was lost: nothing, and it would see it; it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from perdure.actors import Runtime
from perdure.actors.ops.cli import main
from perdure.actors.ops.demo import Order, _drive
from perdure.actors.ops.demo._drive import Count, count
from perdure.actors.ops.demo._feed import shipped_feed

from .conftest import Command, installed

RECEIPT = Path("../shared/data/receipt.csv")  # a real log of a Dutch municipality

Demo = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    """Starts the demo, with a directory of its own for what is temporary."""
    (tmp_path / "temporary").mkdir()

    def start(*arguments: str | Path) -> subprocess.Popen[str]:
        environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
        command = [installed(), "demo", *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    return start


@pytest.fixture
def small_feed(tmp_path: Path) -> Path:
    """The first 300 events of the shipped feed."""
    path = tmp_path / "small.jsonl"
    lines = Path(_drive.__file__).with_name("orders.jsonl").read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:300]))
    return path


def figures(output: str) -> dict[str, str]:
    """The rows of the table at the end."""
    return dict(re.findall(r"^  (\S.*?) {2,}(\S.*)$", output, re.MULTILINE))


def test_nothing_is_lost_when_the_host_is_killed_three_times(demo: Demo, small_feed: Path, tmp_path: Path) -> None:
    with demo(small_feed) as process:
        output, trouble = process.communicate(timeout=50)

    assert (process.returncode, trouble) == (0, "")
    told = figures(output)
    assert [told[row] for row in ("sent", "applied", "lost", "doubled", "orders out of order", "restarts")] == [
        "300",
        "300",
        "0",
        "0",
        "0",
        "3",
    ]
    assert output.count("SIGKILL") == 3
    assert "\x1b" not in output
    assert os.listdir(tmp_path / "temporary") == []


@pytest.mark.slow
def test_a_real_process_log_goes_through_whole(demo: Demo, pytestconfig: pytest.Config) -> None:
    log = pytestconfig.rootpath / RECEIPT
    if not log.exists():
        pytest.skip(f"{RECEIPT} is not here")

    with demo(log) as process:
        output, trouble = process.communicate(timeout=55)

    assert (process.returncode, trouble) == (0, "")
    assert figures(output)["applied"] == "8,577"


def test_a_kept_store_shows_what_the_feed_says(perdure: Command, demo: Demo, small_feed: Path, tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/kept"

    with demo(small_feed, "--kills", "1", "--store", url) as process:
        process.communicate(timeout=50)

    order = shipped_feed().events[0].case
    assert f"events: {shipped_feed().by_case()[order][:2]!r}"[:-1] in perdure("show", "Order", order, store=url).stdout
    assert perdure("demo", "--store", url).exit_code == 2


@pytest.mark.parametrize(("signal_number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_leaves_nothing_behind(demo: Demo, tmp_path: Path, signal_number: int, status: int) -> None:
    url = f"lmdb:{tmp_path}/kept"
    with demo("--store", url) as process:
        assert process.stdout is not None
        while "SIGKILL" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal_number)

        assert process.communicate(timeout=20)[1] == ""

    assert process.returncode == status
    assert os.listdir(tmp_path / "temporary") == []
    anyio.run(become_host, url)


async def become_host(url: str) -> None:
    """Raises StoreLocked while another host lives."""
    async with Runtime(url, actors=[Order]):
        pass


@pytest.mark.parametrize(
    ("applied", "lost", "doubled", "disordered"),
    [
        (["e-1", "e-2", "e-3"], 0, 0, 0),
        (["e-1", "e-3"], 1, 0, 0),
        (["e-1", "e-1", "e-2", "e-3"], 0, 1, 0),
        (["e-1", "e-3", "e-2"], 0, 0, 1),
        (["e-1", "e-2", "e-3", "e-9"], 0, 0, 1),
        ([], 3, 0, 0),
    ],
)
def test_the_count_sees_each_kind_of_damage(applied: list[str], lost: int, doubled: int, disordered: int) -> None:
    counted = count({"o-1": ["e-1", "e-2", "e-3"]}, {"o-1": applied})

    assert counted == Count(3, 1, len(applied), lost, doubled, disordered)
    assert counted.is_sound == (not lost + doubled + disordered)


def test_a_loss_ends_with_status_one(perdure: Command, small_feed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_drive, "count", lambda expected, found: count(expected, {case: ids[1:] for case, ids in found.items()}))

    result = perdure("demo", str(small_feed), "--kills", "0")

    assert result.exit_code == 1
    assert figures(result.stdout)["lost"] != "0"
    assert "The promise is broken" in result.stdout


def test_a_host_that_cannot_start_is_told_of(perdure: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = perdure("demo", "--store", f"lmdb:{tmp_path}/file/store")

    assert result.exit_code == 1
    assert "error: the host ended by itself with status 1" in result.stderr


def test_without_its_extra_the_command_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 1
    assert 'pip install "perdure[cli]"' in capsys.readouterr().err
