"""What a test of actors needs: a world with a host, a store, a clock that jumps, and crashes on demand; and histories, replayed."""

from ._clock import JumpingClock
from ._jumper import NothingHappens
from ._replay import Replayed, replay_history
from ._scenario import CrashPoint, Scenario
from ._store import UnsteadyStore
from ._survival import DoesNotSurvive, survives_crashes
from ._world import World

__all__ = [
    "CrashPoint",
    "DoesNotSurvive",
    "JumpingClock",
    "NothingHappens",
    "Replayed",
    "Scenario",
    "UnsteadyStore",
    "World",
    "replay_history",
    "survives_crashes",
]
