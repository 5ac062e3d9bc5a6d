"""What a test of actors needs: a world with a host, a store, a clock that jumps, and crashes on demand."""

from ._clock import JumpingClock
from ._jumper import NothingHappens
from ._scenario import CrashPoint, Scenario
from ._store import UnsteadyStore
from ._survival import DoesNotSurvive, survives_crashes
from ._world import World

__all__ = ["CrashPoint", "DoesNotSurvive", "JumpingClock", "NothingHappens", "Scenario", "UnsteadyStore", "World", "survives_crashes"]
