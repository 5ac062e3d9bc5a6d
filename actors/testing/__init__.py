"""What a test of actors needs: a world with a host, a store, a clock that jumps, and crashes on demand; histories, replayed; simulations.

Nothing in here waits for real time to pass, and what is left to chance comes from a seed.
"""

from ._clock import JumpingClock
from ._jumper import NothingHappens
from ._replay import Replayed, replay_history
from ._scenario import CrashPoint, Scenario
from ._simulated_disk import Faults, SimulatedDisk, SimulatedStore
from ._simulated_loop import LoopClock, SimulatedLoop, TimeStandsStill
from ._store import UnsteadyStore
from ._survival import DoesNotSurvive, survives_crashes
from ._world import World

__all__ = [
    "CrashPoint",
    "DoesNotSurvive",
    "Faults",
    "JumpingClock",
    "LoopClock",
    "NothingHappens",
    "Replayed",
    "Scenario",
    "SimulatedDisk",
    "SimulatedLoop",
    "SimulatedStore",
    "TimeStandsStill",
    "UnsteadyStore",
    "World",
    "replay_history",
    "survives_crashes",
]
