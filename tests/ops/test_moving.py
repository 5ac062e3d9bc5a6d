"""Copying a store and carrying actors of it elsewhere, from the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import Command, Hosting


def test_a_store_is_copied_under_its_host_and_restored(perdure: Command, url: str, tmp_path: Path, hosting: Hosting) -> None:
    with hosting(url):
        perdure("send", "Basket", "b-1", "add", '["tea"]', "--wait", store=url)
        copied = perdure("backup", f"{tmp_path}/copy", store=url)
    restored = perdure("restore", f"{tmp_path}/copy", f"lmdb:{tmp_path}/restored")

    assert re.fullmatch(rf"{url} is copied to {tmp_path}/copy: \d+\.\d KiB in \d\.\d s\n", copied.stdout)
    assert restored.stdout.startswith(f"{tmp_path}/copy is restored; its store is lmdb:{tmp_path}/restored: ")
    assert perdure("ls", store=f"lmdb:{tmp_path}/restored").stdout.splitlines()[1:]


def test_nothing_is_overwritten(perdure: Command, kiosk_url: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")

    calls = (["backup", f"{tmp_path}/there"], ["export", "--output", f"{tmp_path}/there"])
    refused = [perdure(*call, store=kiosk_url) for call in calls]

    assert [each.exit_code for each in refused] == [1, 2]
    assert all("exists" in each.stderr for each in refused)
    assert (tmp_path / "there").read_text() == "mine"


def test_actors_go_by_a_file_to_another_store(perdure: Command, kiosk_url: str, tmp_path: Path) -> None:
    file, there = f"{tmp_path}/kiosk.export", f"lmdb:{tmp_path}/there"

    exported = perdure("export", "Basket", "--output", file, store=kiosk_url)
    imported = [perdure("import", file, store=there).stdout for _ in range(2)]

    assert exported.stdout.startswith("2 actors exported: ")
    assert imported[0].startswith("2 actors imported: ")
    assert imported[1].startswith("0 actors imported, 2 were there already: ")
    assert (
        perdure("show", "Basket", "b-1", "--json", store=there).stdout == perdure("show", "Basket", "b-1", "--json", store=kiosk_url).stdout
    )


def test_without_a_file_an_export_goes_to_standard_output(perdure: Command, kiosk_url: str, tmp_path: Path) -> None:
    exported = perdure("export", "Basket", "b-1", store=kiosk_url)
    (tmp_path / "export").write_bytes(exported.stdout_bytes)

    imported = perdure("import", f"{tmp_path}/export", store=f"lmdb:{tmp_path}/there")

    assert exported.stderr.startswith("1 actor exported: ")
    assert imported.stdout.startswith("1 actor imported: ")


def test_while_a_host_runs_an_export_comes_from_a_restored_backup(perdure: Command, url: str, tmp_path: Path, hosting: Hosting) -> None:
    with hosting(url):
        perdure("send", "Basket", "b-1", "add", '["tea"]', "--wait", store=url)
        refused = perdure("export", "--output", f"{tmp_path}/export", store=url)
        perdure("backup", f"{tmp_path}/copy", store=url)
        perdure("restore", f"{tmp_path}/copy", f"{tmp_path}/other")
        exported = perdure("export", "--output", f"{tmp_path}/export", store=f"lmdb:{tmp_path}/other")

    assert (refused.exit_code, exported.exit_code) == (1, 0)
    assert f"backup COPY --store {url}\n    perdure restore COPY lmdb:OTHER\n    perdure export --store lmdb:OTHER" in refused.stderr
    assert exported.stdout.startswith("1 actor exported")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "export", "other", "store"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["import", __file__], "it is no export of actors"),
        (["export", "Baskett", "--output", "{}/x"], "Did you mean 'Basket'?"),
        (["export", "Basket", "b-9", "--output", "{}/x"], "there is no actor Basket/b-9"),
        (["export", "--output", "{}/nowhere/x"], "there is no such directory"),
    ],
)
def test_what_cannot_be_moved_is_said(perdure: Command, kiosk_url: str, tmp_path: Path, call: list[str], said: str) -> None:
    refused = perdure(*(each.format(tmp_path) for each in call), store=kiosk_url)

    assert refused.exit_code in (1, 2)
    assert said in refused.stderr
    assert list(tmp_path.iterdir()) == []
