"""The map of a store doubles as often as it must, under load, and neither the host nor those who read beside it notice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .rig.growth import FIRST_MAP, Growth

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def started(root: Path, place: Path, role: str, size: int) -> subprocess.Popen[str]:
    """A process that plays a role, and has the store open."""
    command = [sys.executable, "-m", "tests.durability.rig.growth", str(place), role, str(size)]
    process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert said(process) == "open\n"
    return process


def said(process: subprocess.Popen[str]) -> str:
    """The next line of a process."""
    assert process.stdout is not None
    return process.stdout.readline()


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Give a process a line."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def ended(process: subprocess.Popen[str]) -> Growth:
    """What a process came to."""
    told, _ = process.communicate()
    assert process.returncode == 0
    return Growth(*json.loads(told))


@pytest.mark.reliability(8)
def test_a_map_that_grows_under_load_disturbs_nobody(tmp_path: Path, pytestconfig: pytest.Config, torture: bool) -> None:
    size = 200 if torture else 20
    host = started(pytestconfig.rootpath, tmp_path, "host", size)
    clients = [started(pytestconfig.rootpath, tmp_path, role, size) for role in ("read", "read", "fill")]

    tell(host, "go")
    assert said(host) == "grown\n"
    (tmp_path / "end").touch()
    growths = [ended(process) for process in (*clients, host)]

    print(growths)
    assert [growth.violations for growth in growths] == [[]] * 4
    assert all(growth.done > 0 for growth in growths)
    assert [growth.first for growth in growths] == [FIRST_MAP] * 4
    assert min(growth.last for growth in growths) >= size << 20
