"""A test that is skipped holds nothing, so a run passes only with the skips that were expected."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SKIPPING = "import pytest\n\ndef test_one():\n    pytest.skip('no such program')\n"


@pytest.fixture
def project(pytester: pytest.Pytester, root: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with this house's conftest and one test that skips itself."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytester.makeini("[pytest]\n")
    pytester.makeconftest((root / "tests/conftest.py").read_text())
    pytester.makepyfile(test_sample=SKIPPING)
    pytester.mkdir("tests")
    pytester.mkdir("tests/project")
    return pytester


def allow(project: pytest.Pytester, tests: str, missing: str) -> None:
    listed = project.path / "tests/project/allowed_skips.toml"
    listed.write_text(f'[[skip]]\ntests = "{tests}"\nmissing = "{missing}"\nwhy = "tried"\n')


def test_a_skip_that_nobody_expects_fails_the_run(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess()

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*does not allow here*", "test_sample.py::test_one: *no such program"])


def test_a_skip_of_a_whole_module_fails_the_run_too(project: pytest.Pytester) -> None:
    project.makepyfile(test_sample="import pytest\npytest.importorskip('no_such_module')\n")

    result = project.runpytest_subprocess("-n", "1")

    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("missing", ["program:no-such-program", "command:false", "command:no-such-program --help"])
def test_a_listed_skip_passes_where_the_thing_is_missing(project: pytest.Pytester, missing: str) -> None:
    allow(project, "test_sample.py::*", missing)

    assert project.runpytest_subprocess().ret == pytest.ExitCode.OK


@pytest.mark.parametrize("missing", ["program:sh", "module:json", "file:conftest.py", "command:true"])
def test_a_listed_skip_fails_where_the_thing_is_there(project: pytest.Pytester, missing: str) -> None:
    allow(project, "test_sample.py::*", missing)

    assert project.runpytest_subprocess().ret == pytest.ExitCode.TESTS_FAILED


def test_an_expected_failure_is_no_skip(project: pytest.Pytester) -> None:
    project.makepyfile(test_sample="import pytest\n\n@pytest.mark.xfail\ndef test_one():\n    raise ValueError\n")

    assert project.runpytest_subprocess().ret == pytest.ExitCode.OK
