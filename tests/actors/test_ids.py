"""A key is any Unicode text of up to 200 bytes, and names one actor for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perdure.actors import InvalidKey, KeyTooLong
from perdure.actors._ids import actor_id
from perdure.actors._persistence import Table, below_actor, key_row_key
from perdure.storage import MAX_KEY_BYTES

from .bank import Counter
from .conftest import MakeWorld

pytestmark = pytest.mark.promise("a-key-is-any-text")

KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200).filter(lambda key: len(key.encode()) <= 200)

ODD_KEYS = ["", " ", "\0", "\0" * 200, "ключ", "🔑" * 50, "a/b", "a\nb", "ÿ", "\uffff", "o-1", "o-10"]


@pytest.mark.anyio
async def test_odd_keys_are_told_apart_and_listed_in_order(make_world: MakeWorld) -> None:
    world = await make_world(Counter)

    for number, key in enumerate(ODD_KEYS):
        await world.ref(Counter, key).ask(Counter.add, number)
    await world.restart()

    assert [info.id.key async for info in world.actors(Counter)] == sorted(ODD_KEYS)
    assert [await world.ref(Counter, key).query(Counter.value) for key in ODD_KEYS] == list(range(len(ODD_KEYS)))


@pytest.mark.anyio
async def test_what_is_no_key_is_refused_where_it_is_written(make_world: MakeWorld) -> None:
    world = await make_world(Counter)

    with pytest.raises(KeyTooLong, match="201 bytes"):
        world.ref(Counter, "x" * 201)
    with pytest.raises(InvalidKey, match="lone surrogate"):
        world.ref(Counter, "\ud800")
    with pytest.raises(InvalidKey, match="a key is a str"):
        world.ref(Counter, 7)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


@given(KEYS, st.text(min_size=1, max_size=64).filter(lambda name: len(name.encode(errors="ignore")) <= 64))
def test_every_row_key_of_an_actor_fits_into_the_store(key: str, type_name: str) -> None:
    type_name = type_name.encode(errors="ignore").decode()
    actor = actor_id(type_name, key)

    longest = max(len(key_row_key(actor, b"\0" * 16)), len(below_actor(Table.MAILBOX, actor).start) + 12)

    assert longest <= MAX_KEY_BYTES


@given(KEYS, KEYS)
def test_no_actors_rows_lie_within_anothers(one: str, other: str) -> None:
    rows = below_actor(Table.MAILBOX, actor_id("Order", one))

    inside = below_actor(Table.MAILBOX, actor_id("Order", other)).start in rows

    assert inside == (one == other)
