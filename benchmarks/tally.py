"""The actor that the benchmarks ask: it counts, and its state is a record of everyday size.

Its handlers do next to nothing, so that what is measured is what is around them.
"""

from __future__ import annotations

from perdure.actors import current_actor, durable_actor, on_event


@durable_actor
class Tally:
    """Counts; about 110 bytes of pickled state."""

    def __init__(self) -> None:
        self.count = 0
        self.owner = "customer 4711"
        self.place = "14 Harbour Lane"
        self.open = True

    @on_event
    def add(self, by: int) -> int:
        """Count."""
        self.count += by
        return self.count

    @on_event
    def hop(self, left: int) -> None:
        """Count, and pass it on to the next actor, as often as there are hops left."""
        self.count += 1
        if left:
            current_actor().ref(Tally, f"hop {left - 1}").send_event(Tally.hop, left - 1)
