"""What a test of actors needs: a world with a host, a store, a clock that jumps, and crashes on demand."""

from ._clock import JumpingClock
from ._store import CrashPoint, UnsteadyStore
from ._world import World

__all__ = ["CrashPoint", "JumpingClock", "UnsteadyStore", "World"]
