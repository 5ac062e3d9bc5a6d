"""Classes that move between modules: what names them in a store loads by a rename, or stands still with the line to write."""

from __future__ import annotations

from typing import Any, Final

import pytest
from perdure.actors import ActorQuarantined, NotDeserializable, rename, send_signal
from perdure.actors.testing import World

from .village import TILL, WARES, Village

pytestmark = [pytest.mark.anyio, pytest.mark.promise("moved-classes-load")]

THINGS: Final = {
    "Guilder": "Guilder(5)",
    "Slip": "Slip(5)",
    "Tint": "Tint.RED",
    "Spot": "Spot(1, 2)",
    "Heap": "Heap([1, 2])",
    "Mislaid": "Mislaid('x')",
    "PriceTag": "PriceTag('x')",
    "Crate.Inner": "Crate.Inner(3)",
    "Docket": "Docket(5)",
    "Scheme": "Scheme(cents=5)",
    "rate": "rate",
}
LINE: Final = '\n    rename("wares.Guilder", "goods.Guilder")'
WRAPS: Final = ["{}", "[{{'deep': ({},)}}]"]


def made(module: Any, what: str, wrap: str = "{}") -> object:
    return eval(wrap.format(what), vars(module))


async def keep(village: Village, what: str, wrap: str = "{}") -> None:
    """An actor keeps a thing of the module that is about to go."""
    with village.code(wares=WARES, till=TILL) as then:
        async with village.hosted(then.till.Till) as world:
            await world.ref(then.till.Till, "t").ask("keep", made(then.wares, what, wrap))


@pytest.mark.parametrize("wrap", WRAPS, ids=["plain", "nested"])
@pytest.mark.parametrize("name", THINGS)
async def test_a_state_of_a_moved_class_loads_by_its_rename(village: Village, name: str, wrap: str) -> None:
    await keep(village, THINGS[name], wrap)

    with village.code(goods=WARES, till=TILL) as now:
        rename(f"wares.{name}", f"goods.{name}")
        async with village.hosted(now.till.Till) as world:
            till = world.ref(now.till.Till, "t")
            assert await till.query("same", made(now.goods, THINGS[name], wrap))
            assert await till.ask("tick") == 2


@pytest.mark.parametrize("name", THINGS)
async def test_a_state_of_a_moved_class_stands_still_with_the_line_to_write(village: Village, name: str) -> None:
    await keep(village, THINGS[name])

    with village.code(goods=WARES, till=TILL) as now:
        async with village.hosted(now.till.Till) as world:
            with pytest.raises(ActorQuarantined) as caught:
                await world.ref(now.till.Till, "t").ask("tick")

    text = str(caught.value)
    assert f'\n    rename("wares.{name}", "goods.{name}")\n' in text
    assert "\n    @durable_actor(version=2)\n    ...\n        @migrate(1)\n" in text


async def test_a_class_that_is_nowhere_leaves_its_new_place_open(village: Village) -> None:
    await keep(village, "Guilder(5)")

    with village.code(till=TILL) as now:
        async with village.hosted(now.till.Till) as world:
            with pytest.raises(NotDeserializable, match=r'rename\("wares.Guilder", "…"\)'):
                await world.ref(now.till.Till, "t").query("same", None)


@pytest.mark.promise("what-does-not-fit-goes-on-later")
async def test_the_next_deploy_that_knows_the_rename_goes_on(village: Village) -> None:
    await keep(village, "Guilder(5)")
    with village.code(goods=WARES, till=TILL) as second:
        async with village.hosted(second.till.Till) as world:
            await world.ref(second.till.Till, "t").send_event("tick")

    with village.code(goods=WARES, till=TILL) as third:
        rename("wares", "goods")
        async with village.hosted(third.till.Till) as world:
            await world.settled()
            assert (await world.ref(third.till.Till, "t").info()).status == "idle"
            assert await world.ref(third.till.Till, "t").query("number") == 2


# --- what waits ---


async def wait(world: World, then: Any, how: str) -> None:
    """Let an actor wait for "go", with a thing of the module that is about to go somewhere in its past, or in its future."""
    thing = then.wares.Guilder(5)
    till = await world.start(then.till.Till.run, "t", how, thing if how in {"start", "flight"} else None)
    await world.settled()
    if how in {"signal", "kept"}:
        await send_signal(till, "hear", thing)
    if how == "event":
        await till.ask("keep", thing)
    await world.settled()


@pytest.mark.parametrize("how", ["start", "signal", "kept", "step", "flight", "event"])
async def test_what_waits_with_something_that_has_moved_goes_on_by_a_rename(village: Village, how: str) -> None:
    with village.code(wares=WARES, till=TILL) as then:
        async with village.hosted(then.till.Till) as world:
            await wait(world, then, how)
    with village.code(goods=WARES, till=TILL) as second:
        async with village.hosted(second.till.Till) as world:
            if how != "flight":
                await send_signal(world.ref(second.till.Till, "t"), "go")
            await world.run_until_idle()
            info = await world.ref(second.till.Till, "t").info()
            assert (info.status, info.error and LINE in info.error) == (("suspended", None) if how == "flight" else ("quarantined", True))

    with village.code(goods=WARES, till=TILL) as third:
        rename("wares.Guilder", "goods.Guilder")
        async with village.hosted(third.till.Till) as world:
            await world.run_until_idle()
            till: Any = world.ref(third.till.Till.run, "t")
            result = await till.result()
            assert result == (None if how == "event" else third.goods.Guilder(5))
            assert await world.dead_letters() == []


async def test_a_message_with_something_that_has_moved_is_put_aside_and_redriven(village: Village) -> None:
    with village.code(wares=WARES, till=TILL) as then:
        async with village.hosted(then.till.Till) as world:
            till = world.ref(then.till.Till, "t")
            await till.send_event("hold")
            await till.send_event("keep", then.wares.Guilder(5))
    with village.code(goods=WARES, till=TILL) as second:
        async with village.hosted(second.till.Till) as world:
            await send_signal(world.ref(second.till.Till, "t"), "go")
            await world.run_until_idle()
            (letter,) = await world.dead_letters()
            assert LINE in letter.error

    with village.code(goods=WARES, till=TILL) as third:
        rename("wares", "goods")
        async with village.hosted(third.till.Till) as world:
            assert await world.ref(third.till.Till, "t").redrive() == 1
            await world.settled()
            assert await world.ref(third.till.Till, "t").query("same", third.goods.Guilder(5))
