"""What the command line tells of the room that a store takes, and how it gives some back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from perdure.actors import Runtime
from perdure.actors._persistence import Table
from perdure.actors.ops import _usage
from perdure.storage import Batch, Range, Room, open_store, pack, unpack

from .conftest import Command, Hosting
from .kiosk import Basket, Note, Till


def told(perdure: Command, url: str, *arguments: str) -> Any:
    return json.loads(perdure("du", "--json", *arguments, store=url).stdout)


def counted(shares: list[dict[str, Any]]) -> dict[str, int]:
    return {share["name"]: share["rows"] for share in shares}


@pytest.fixture
def grown(url: str) -> str:
    """A store that was much longer than it need be: a note of three megabytes was written, and forgotten."""

    async def write() -> None:
        async with Runtime(url, actors=[Basket, Note, Till]) as runtime:
            await runtime.ref(Note, "long").ask(Note.write, "x" * 3_000_000)
            await runtime.ref(Note, "long").delete()
            await runtime.ref(Note, "short").ask(Note.write, "hello")

    anyio.run(write)
    return url


def test_room_is_told_by_kind_and_by_type(perdure: Command, kiosk_url: str) -> None:
    found = told(perdure, kiosk_url)

    rows = counted(found["kinds"])
    assert (rows["snapshots"], rows["mailboxes"], rows["dead letters"], rows["idempotency keys"], rows["signals"]) == (4, 2, 1, 2, 1)
    assert set(counted(found["types"])) == {"Basket", "Note", "Till"}
    for shares in (found["kinds"], found["types"], found["actors"]):
        assert [share["size"] for share in shares] == sorted((share["size"] for share in shares), reverse=True)


def test_each_byte_of_the_rows_is_counted_once(perdure: Command, kiosk_url: str) -> None:
    with Room(kiosk_url) as room:
        rows = [row for row in room.rows(Range(b"", b"\xff"), limit=999) if unpack(row.key)[1] != "batch"]  # the commits' own

    kinds = told(perdure, kiosk_url)["kinds"]

    assert sum(share["rows"] for share in kinds) == len(rows)
    assert sum(share["size"] for share in kinds) == sum(row.size for row in rows)


def test_the_biggest_actors_are_named(perdure: Command, kiosk_url: str) -> None:
    actors = told(perdure, kiosk_url)["actors"]

    assert {(actor["type"], actor["key"]) for actor in actors} >= {("Basket", "b-2"), ("Till", "t-1"), ("Note", "a\x1b[31mb")}
    assert told(perdure, kiosk_url, "--top", "1")["actors"] == actors[:1]
    assert told(perdure, kiosk_url, "--top", "0")["actors"] == []


def test_the_room_of_one_type_is_told(perdure: Command, kiosk_url: str) -> None:
    whole, of_type = told(perdure, kiosk_url), told(perdure, kiosk_url, "Till")

    assert of_type["types"] == [share for share in whole["types"] if share["name"] == "Till"]
    assert [actor["key"] for actor in of_type["actors"]] == ["t-1"]
    assert sum(share["size"] for share in of_type["kinds"]) == of_type["types"][0]["size"]


def test_an_unknown_type_has_no_room(perdure: Command, kiosk_url: str) -> None:
    refused = perdure("du", "Tram", store=kiosk_url)

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "Tram" in refused.stderr


@pytest.mark.parametrize("page", [1, 2, 3])
def test_actors_whose_keys_begin_alike_are_told_apart(url: str, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ["a", "a\0", "a\0b", "a\xff", "aa", ""]
    anyio.run(put_rows, url, [(0, table, "T", key, seq) for key in keys for table in (Table.ACTOR, Table.LOG) for seq in (1, 2)])
    monkeypatch.setattr(_usage, "PAGE", page)

    found = _usage.usage(url, "T", 9)

    assert {actor.id.key: actor.rows for actor in found.actors} == dict.fromkeys(keys, 4)
    assert {share.name: share.rows for share in found.kinds} == {"snapshots": 12, "logs": 12}


async def put_rows(url: str, keys: Sequence[tuple[int | str, ...]]) -> None:
    store = open_store(url)
    batch = Batch()
    for key in keys:
        batch.put(pack(key), b"row")
    await store.commit(batch, await store.own(0))
    await store.close()


def test_every_table_has_a_name_that_a_user_knows() -> None:
    assert [table for table in Table if table not in _usage.KINDS] == []


def test_files_and_what_is_spare_are_shown_beside_a_host(perdure: Command, grown: str, hosting: Hosting) -> None:
    with hosting(grown):
        shown = perdure("du", store=grown).stdout

    lines = [line.split() for line in shown.splitlines()]
    assert [(line[2], line[4]) for line in lines if line[:1] == ["data.mdb"]] == [("MiB", "MiB")]
    assert {"breadcrumbs", "ballast", "inbox/data.mdb"} <= {line[0] for line in lines if line}
    assert shown.splitlines()[-1].endswith(f"perdure compact --store {grown}")


def test_a_compaction_tells_what_it_gave_back(perdure: Command, grown: str) -> None:
    spare = sum(file["spare"] for file in told(perdure, grown)["files"])

    done = perdure("compact", store=grown)

    assert spare > 2_000_000
    assert done.stdout.splitlines()[0].startswith("store: 2.9 MiB before, ")
    assert sum(file["spare"] for file in told(perdure, grown)["files"]) == 0
    assert json.loads(perdure("show", "Note", "short", "--json", store=grown).stdout)["status"] == "idle"


def test_a_hosted_store_is_not_compacted(perdure: Command, url: str, hosting: Hosting) -> None:
    with hosting(url) as host:
        refused = perdure("compact", store=url)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"process {host.pid} hosts this store already. Stop that host first" in refused.stderr


def test_sizes_before_and_after_are_told_as_json(perdure: Command, grown: str) -> None:
    done = json.loads(perdure("compact", "--json", store=grown).stdout)

    assert set(done) == {"before", "after", "inbox_before", "inbox_after"}
    assert done["before"] > done["after"]
