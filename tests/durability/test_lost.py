"""What a migration can read of things whose class is gone, wherever they are in a state."""

from __future__ import annotations

from typing import Final

import pytest
from perdure.actors import MigrationFailed

from .village import TILL, WARES, Village

pytestmark = pytest.mark.anyio

MIGRATION: Final = """
    @migrate(1)
    @staticmethod
    def read(state):
        lost = state["kept"]
        return {**state, "kept": READ}
"""
NEXT: Final = TILL.replace('name="Till"', 'name="Till", version=2').replace("import Retry", "import Retry, migrate") + MIGRATION
READ: Final = [
    ("Guilder(5)", "lost.cents", 5),
    ("Slip(5)", "lost.cents", 5),
    ("Seal(5)", "lost.items", [[5]]),
    ("Tint.RED", "lost.arguments", ("red",)),
    ("{Tint.RED: 1}", "[key.arguments for key in lost]", [("red",)]),
    ("Tint.RED.tell", "lost.__qualname__", "Tint.tell"),
    ("Crate.Inner(3).tell", "(lost.__module__, lost.__qualname__)", ("wares", "Crate.Inner.tell")),
    ("Spot(1, 2)", "lost.arguments", (1, 2)),
    ("Heap([1, 2])", "lost.items", [1, 2]),
    ("Mislaid('x')", "lost.arguments", ("x",)),
    ("PriceTag('x')", "lost.arguments", ("x",)),
    ("Docket(5)", "lost.arguments", (5,)),
    ("Scheme(cents=5)", "lost.cents", 5),
    ("Crate.Inner(3)", "(repr(lost), lost.size)", ("<Placeholder for wares.Crate.Inner>", 3)),
    ("[{'deep': (Guilder(5), Guilder(6))}]", "[each.cents for each in lost[0]['deep']]", [5, 6]),
    ("{Guilder(7)}", "[each.cents for each in lost]", [7]),
    ("Crate.Inner(Guilder(5))", "lost.size.cents", 5),
    ("Crate.Inner(Heap([Guilder(5)]))", "lost.size.items[0].cents", 5),
    ("rate", "(lost.__module__, lost.__qualname__)", ("wares", "rate")),
    ("Guilder", "lost.__qualname__", "Guilder"),
]


async def migrated(village: Village, made: str, read: str) -> object:
    """What version 2 keeps of what version 1 had made, whose classes are gone."""
    with village.code(wares=WARES, till=TILL) as then:
        async with village.hosted(then.till.Till) as world:
            await world.ref(then.till.Till, "t").ask("keep", eval(made, vars(then.wares)))
    with village.code(till=NEXT.replace("READ", read)) as now:
        async with village.hosted(now.till.Till) as world:
            assert await world.ref(now.till.Till, "t").ask("tick") == 2
            return await world.ref(now.till.Till, "t").query("what")


@pytest.mark.parametrize(("made", "read", "expected"), READ, ids=[row[0] for row in READ])
async def test_a_migration_reads_what_was_stored_of_a_lost_class(village: Village, made: str, read: str, expected: object) -> None:
    assert await migrated(village, made, read) == expected


@pytest.mark.parametrize("made", ["Guilder(5)", "Guilder", "rate", "[Tint.RED]", "Tint.RED.tell"])
async def test_a_placeholder_cannot_be_stored_in_whatever_form(village: Village, made: str) -> None:
    with pytest.raises(MigrationFailed, match=r"a placeholder for wares\.\S+ cannot be stored again"):
        await migrated(village, made, "lost")
