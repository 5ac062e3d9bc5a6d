"""What every test gets, and the ledger of skips: a run passes only if each skip in it is one that `project/allowed_skips.toml` expects."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, final

import pytest
from hypothesis import Phase, settings

ALLOWED_SKIPS = Path("tests/project/allowed_skips.toml")

# A shared machine may stall an example at any time, so only the time-out of the whole test counts.
settings.register_profile("house", deadline=None, print_blob=True)
# That it fails is all that `make mutants` wants to know, and that it does so each time.
settings.register_profile("hasty", settings.get_profile("house"), phases=(Phase.explicit, Phase.generate), derandomize=True)
settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How thorough tests are, and how crowded their worlds: every promise must hold however few actors may stay in memory."""
    parser.addoption("--torture", action="store_true", help="kill, damage and back up stores in full, which takes its time")
    parser.addoption("--memory", action="store_true", help="leave out what is only a repetition on a disk of a test in memory")
    parser.addoption("--integration", action="store_true", help="have products beside the tests read what is sent to them")
    parser.addoption("--max-active", dest="max_active", type=int, default=10_000, help="actors kept in memory by the tests' worlds")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a product, and repetitions where only Python is another one: the disk is the same."""
    unwanted = {item for item in items if isinstance(item, pytest.Function) and _is_unwanted(config, item)}
    if unwanted:
        config.hook.pytest_deselected(items=list(unwanted))
        items[:] = [item for item in items if item not in unwanted]


def _is_unwanted(config: pytest.Config, item: pytest.Function) -> bool:
    is_repeated = config.getoption("memory") and _parameter(item, "store_url") == "lmdb"
    return is_repeated or (item.get_closest_marker("integration") is not None and not config.getoption("integration"))


def _parameter(item: pytest.Function, name: str) -> object:
    return item.callspec.params.get(name) if hasattr(item, "callspec") else None


@pytest.fixture
def anyio_backend() -> str:
    """Actors run on asyncio alone."""
    return "asyncio"


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """Let no test hear less because of another one, that expected trouble and silenced it."""
    loggers = [logging.getLogger(name) for name in ("perdure", "perdure.actors", "perdure.actor")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


class AllowedSkip(NamedTuple):
    """Tests that may be skipped where something is missing: `program:NAME`, `module:NAME`, `file:PATH` (from the root).

    Or where `command:WORDS` does not succeed: what is missing is the right to do that.
    """

    tests: str
    missing: str
    why: str

    def covers(self, nodeid: str, root: Path) -> bool:
        """Whether this test may be skipped here: the thing must truly be missing."""
        return fnmatchcase(nodeid, self.tests) and self._is_missing(root)

    def _is_missing(self, root: Path) -> bool:
        kind, _, name = self.missing.partition(":")
        match kind:
            case "program":
                return shutil.which(name) is None
            case "module":
                return importlib.util.find_spec(name) is None
            case "file":
                return not (root / name).exists()
            case "command":
                return not succeeds(*name.split())
            case _:
                raise pytest.UsageError(f"{ALLOWED_SKIPS}: missing = {self.missing!r} names neither program:, module:, file: nor command:")


def succeeds(*command: str) -> bool:
    """Whether a command can be run here, and comes to a good end."""
    return shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0


@final
class SkipLedger:
    """Notes every skip of a run, and fails the run if one was not expected."""

    def __init__(self, root: Path) -> None:
        self._root = root
        listed = root / ALLOWED_SKIPS
        rows = tomllib.loads(listed.read_text()).get("skip", []) if listed.exists() else []
        self._allowed = [AllowedSkip(**row) for row in rows]
        self._unexpected: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that skipped itself; an expected failure is reported as a skip too, and is none."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that skipped itself."""
        if report.skipped:
            self._note(report)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Turn success into failure."""
        if self._unexpected and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which skips they were."""
        if self._unexpected:
            terminalreporter.section(f"skips that {ALLOWED_SKIPS} does not allow here", red=True)
            for line in self._unexpected:
                terminalreporter.write_line(line)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not any(allowed.covers(report.nodeid, self._root) for allowed in self._allowed):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self._unexpected.append(f"{report.nodeid}: {reason}")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the ledger where the reports of all workers arrive."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(SkipLedger(config.rootpath), "skip-ledger")
