"""What was found wrong with stores, moving, keys and stampedes once, and is not wrong any more."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from perdure.actors import ExportUnreadable, _archive, _dispatch, durable_actor, on_event, on_timer, query, set_timer

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


@durable_actor
class Bell:
    """Rings an hour later."""

    rung: int = 0

    @on_event
    def wind_up(self) -> None:
        set_timer(Bell.ring, after=HOUR)

    @on_timer
    def ring(self) -> None:
        self.rung += 1

    @query
    def rings(self) -> int:
        return self.rung


class Careful(io.BytesIO):
    """A file that nobody reads more of than it has: memory is reserved for what is asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size <= len(self.getvalue())
        return super().read(size)


async def test_what_fell_due_has_its_turn_where_it_is_always_crowded(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await make_world(Bell)
    bells = [world.ref(Bell, f"{number}") for number in range(200)]
    for bell in bells:
        await bell.ask(Bell.wind_up)

    monkeypatch.setattr(_dispatch, "CROWD", -1)
    await world.advance(HOUR)

    assert [await bell.query(Bell.rings) for bell in bells] == [1] * 200


def test_no_memory_is_reserved_for_what_an_export_cannot_hold() -> None:
    file = Careful()
    writer = _archive.ArchiveWriter(file, "0")
    writer.close()
    damaged = Careful(file.getvalue()[:17] + (_archive.MAX_FRAME - 1).to_bytes(4, "little") + file.getvalue()[21:])

    assert list(_archive.read_archive(file)) == []
    with pytest.raises(ExportUnreadable, match="cut short"):
        list(_archive.read_archive(damaged))
