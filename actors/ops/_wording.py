"""Numbers and times as people say them: what is told reads the same wherever it is told."""

from __future__ import annotations

from datetime import datetime
from typing import Final

_UNITS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def roughly(seconds: float) -> str:
    """Some time as people say it: `3 d`, `200 ms`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds * 1000:.0f} ms"


def duration(nanoseconds: int) -> str:
    """A time that was measured, to two digits and more: `4.2 s`, `349 µs`."""
    for size, unit in (*_UNITS, (1e-3, "ms")):
        amount = nanoseconds / (size * 1e9)
        if amount >= 0.9995:
            return f"{amount:.1f}".removesuffix(".0") + f" {unit}" if amount < 9.95 else f"{amount:.0f} {unit}"
    return f"{max(0, nanoseconds) / 1000:.0f} µs"


def counted(number: int, what: str, plural: str = "") -> str:
    """`1 event`, `2,038 events`."""
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


def distance(at: float, now: float) -> str:
    """How far one time is from another: `2 h ago`, `in 3.2 s`."""
    seconds = abs(at - now)
    told = f"{seconds:.1f} s" if 1 <= seconds < 10 else roughly(seconds)
    return f"in {told}" if at > now else f"{told} ago"


def moment(at: float, now: float) -> str:
    """A time, in the local time zone, and how far it is from now: `14:03:05 (in 2 h)`, with the date if it is another day."""
    try:
        there, here = datetime.fromtimestamp(at).astimezone(), datetime.fromtimestamp(now).astimezone()
    except (OverflowError, ValueError, OSError):  # of a timer that is never due
        return "a time that never comes"
    return f"{there:{'%H:%M:%S' if there.date() == here.date() else '%Y-%m-%d %H:%M:%S'}} ({distance(at, now)})"
