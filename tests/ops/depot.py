"""A depot: parcels whose past is kept, for the tests of histories."""

from __future__ import annotations

from perdure.actors import durable_actor, signal, step, wait_for_signal, workflow


@step(name="depot.weigh")
async def weigh(what: str) -> int:
    """Weigh something."""
    return len(what)


@step(name="depot.measure")
async def measure(what: str) -> int:
    """Do it otherwise."""
    return len(what)


@durable_actor(keep_history=100)
class Parcel:
    """Is weighed, and waits to be paid for."""

    paid = signal(str)

    @workflow
    async def run(self, what: str) -> str:
        """Weigh, and wait."""
        grams = await weigh(what)
        by = await wait_for_signal(Parcel.paid)
        return f"{grams} g, paid by {by}"


@durable_actor(name="Parcel")
class Tomorrow:
    """The same, measured."""

    paid = signal(str)

    @workflow
    async def run(self, what: str) -> str:
        """Measure, and wait."""
        grams = await measure(what)
        by = await wait_for_signal(Tomorrow.paid)
        return f"{grams} mm, paid by {by}"
