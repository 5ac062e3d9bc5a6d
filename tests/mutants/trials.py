"""Trials: the tests run over a copy of the packages that has one mutant in it.

The tree itself is never changed: the copy stands before it on the path, for the processes that tests start, too.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias, final

from .making import Mutant

PACKAGES: Final = "actors", "storage", "tracing"
Verdict: TypeAlias = Literal["killed", "timed out", "survived"]

PLAIN: Final = "-m", "not slow"
CROWDED: Final = "--max-active=0"

# What notices most of a module's mutants within seconds.
QUICK: Final[dict[str, tuple[str, ...]]] = {
    "storage/_commit.py": (
        *("tests/storage/test_commit.py", "tests/project/test_exports.py"),
        *("tests/actors/test_gates.py", "tests/actors/test_trouble.py"),
    ),
    "storage/_overlay.py": ("tests/storage/test_overlay.py", "tests/actors/test_gates.py", "tests/actors/test_recovery.py"),
    "actors/_recovery.py": (
        *("tests/actors/test_charges.py", "tests/actors/test_taking_up.py", "tests/actors/test_recovery.py"),
        *("tests/actors/test_damage.py", "tests/actors/test_poison_policy.py", "tests/actors/test_versions.py"),
    ),
    "actors/_replaying.py": (
        *(CROWDED, "tests/actors/test_replaying.py", "tests/actors/test_versions.py", "tests/actors/test_regressions.py"),
        *("tests/durability/test_versions.py", "tests/actors/test_changes_regressions.py", "tests/actors/test_coroutines.py"),
    ),
    "actors/_journal.py": (CROWDED, "tests/actors/test_journal.py", "tests/actors/test_versions.py"),
    "actors/_mailbox.py": ("tests/actors/test_mailbox.py", "tests/actors/test_delivery.py", "tests/actors/test_recovery.py"),
}
ROUNDS: Final[tuple[tuple[str, ...], ...]] = (
    ("tests/actors", "tests/storage", "tests/model", "tests/project/test_exports.py", *PLAIN),
    ("tests/actors", CROWDED, *PLAIN),
    ("tests/durability", *PLAIN),
)
QUIET: Final = "-q", "-x", "-p", "no:randomly", "-p", "no:cacheprovider", "--tb=line", "--hypothesis-profile=hasty"
TIMED_OUT: Final = "+ Timeout +"  # says pytest-timeout when it ends a run
LIMIT: Final = 1200.0  # seconds; a test that hangs has ended by its own time-out long before, however busy the machine is


class Outcome(NamedTuple):
    """What became of a mutant; `test` is what noticed it first."""

    verdict: Verdict
    seconds: float
    test: str = ""


@final
class Copy:
    """A copy of the packages, and the tests over it."""

    def __init__(self, root: Path, folder: Path, workers: int) -> None:
        self._root = root
        self._folder = folder
        self._workers = workers
        for package in PACKAGES:
            shutil.copytree(root / package, folder / "perdure" / package, ignore=shutil.ignore_patterns("__pycache__"))
        environment = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "examples")}
        self._environment = {**os.environ, **environment}
        self._check()

    def quick(self, mutant: Mutant) -> Outcome:
        """What the tests say that are about the module."""
        return self._try(mutant, [("-n0", *QUICK[mutant.module])])

    def thorough(self, mutant: Mutant) -> Outcome:
        """What all tests say."""
        return self._try(mutant, [("-n", str(self._workers), *arguments) for arguments in ROUNDS])

    def healthy(self, module: str) -> Outcome:
        """What the quick tests of a module say without a mutant: they must be content, or each mutant dies of another's illness."""
        return self._run(("-n0", *QUICK[module]))

    def _check(self) -> None:
        program = "import perdure.actors, perdure.storage; print(perdure.actors.__file__, perdure.storage.__file__)"
        found = subprocess.run([sys.executable, "-c", program], env=self._environment, check=True, capture_output=True, text=True).stdout
        if found.count(str(self._folder)) != 2:
            raise SystemExit(f"the tests would not import the copy, but {found}")

    def _try(self, mutant: Mutant, rounds: list[tuple[str, ...]]) -> Outcome:
        changed = self._folder / "perdure" / mutant.module
        changed.write_text(mutant.text)
        seconds = 0.0
        try:
            for arguments in rounds:
                outcome = self._run(arguments)
                seconds += outcome.seconds
                if outcome.verdict != "survived":
                    return outcome._replace(seconds=seconds)
        finally:
            shutil.copyfile(self._root / mutant.module, changed)
        return Outcome("survived", seconds)

    def _run(self, arguments: tuple[str, ...]) -> Outcome:
        shutil.rmtree(self._folder / "examples", ignore_errors=True)
        command = [sys.executable, "-m", "pytest", *QUIET, f"--basetemp={self._folder / 'tmp'}", *arguments]
        begin = time.perf_counter()
        with self._started(command) as tests:
            try:
                output, _ = tests.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                output = TIMED_OUT
            finally:
                _end(tests)
        seconds = round(time.perf_counter() - begin, 1)
        if tests.returncode == 0:
            return Outcome("survived", seconds)
        return Outcome("timed out" if TIMED_OUT in output else "killed", seconds, _first_failed(output))

    def _started(self, command: list[str]) -> subprocess.Popen[str]:
        out = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self._root, env=self._environment, stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )


def _end(tests: subprocess.Popen[str]) -> None:
    """End the tests, and the processes that they started and left."""
    try:
        os.killpg(tests.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _first_failed(output: str) -> str:
    for line in output.splitlines():
        word, _, rest = line.partition(" ")
        if word in {"FAILED", "ERROR"} and rest.startswith("tests/"):  # what is logged begins alike
            return rest.partition(" - ")[0]
    return ""
