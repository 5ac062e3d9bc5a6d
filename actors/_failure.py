"""Exceptions that travel: between actors, between processes, and through the store.

Whoever receives one sees the original class where that survives the round trip, which is tried at once; otherwise a RemoteError.
"""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Final, final

import msgspec

from ._codec import PICKLE
from ._errors import RemoteError

MAX_TRACEBACK: Final = 16_384  # characters kept, the last ones: where it was raised
MAX_FRAMES: Final = 100  # that are written of a traceback, the last ones: a thousand, of a recursion without end, cost 10 ms
MAX_TEXT: Final = 65_536  # characters kept, the first ones: an error may quote whatever it was given
MAX_CAUSES: Final = 4  # of causes of causes
_NOTE: Final = "Remote traceback:\n"


@final
class Failure(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is known of an exception: its class's name, its text and traceback, a pickle of it where one is faithful, and its cause."""

    type_name: str
    text: str
    traceback: str
    pickled: bytes | None = None
    cause: Failure | None = None

    @classmethod
    def of(cls, exception: BaseException, *, depth: int = MAX_CAUSES) -> Failure:
        """An exception as a record. Never raises, whatever the exception's own methods do."""
        name = f"{type(exception).__module__}.{type(exception).__qualname__}".removeprefix("builtins.")
        if isinstance(exception, RemoteError):
            return cls(exception.type_name, exception.text, exception.traceback or _traceback(exception))
        before = exception.__cause__
        cause = cls.of(before, depth=depth - 1) if isinstance(before, Exception) and depth else None
        return cls(name, _text(exception), _traceback(exception), _faithful_pickle(exception), cause)

    def revive(self) -> Exception:
        """The exception, new at each call, with the remote traceback as a note; a RemoteError where it cannot be had."""
        exception = self._original() or RemoteError(self.type_name, self.text, self.traceback)
        earlier = [note for note in getattr(exception, "__notes__", ()) if not note.startswith(_NOTE)]
        exception.__notes__ = [*earlier, _NOTE + self.traceback]  # one such note: the traceback has those of earlier hops within it
        if self.cause is not None:
            exception.__cause__ = self.cause.revive()
        return exception

    def _original(self) -> Exception | None:
        if self.pickled is None:
            return None
        try:
            exception = PICKLE.decode(self.pickled)
        except BaseException:  # noqa: BLE001  decoding runs what the class of today says
            return None
        return exception if isinstance(exception, Exception) else None


def innermost(exception: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """An exception with the last frames of its traceback, as `logging` takes it for `exc_info`."""
    shown = last = exception.__traceback__
    for _ in range(MAX_FRAMES):
        last = last and last.tb_next
    while shown and last:
        shown, last = shown.tb_next, last.tb_next
    return type(exception), exception, shown


def _text(exception: BaseException) -> str:
    try:
        text = str(exception)
    except BaseException:  # noqa: BLE001  a __str__ of the user's may raise anything
        return "(its text could not be had)"
    return text[:MAX_TEXT].encode("utf-8", "backslashreplace").decode()


def _traceback(exception: BaseException) -> str:
    try:
        lines = "".join(traceback.format_exception(*innermost(exception)))
    except BaseException:  # noqa: BLE001  it calls the exception's __str__, and those of its causes
        lines = "".join(traceback.format_tb(exception.__traceback__, limit=-MAX_FRAMES))
    return lines[-MAX_TRACEBACK:].encode("utf-8", "backslashreplace").decode()


def _faithful_pickle(exception: BaseException) -> bytes | None:
    """A pickle of it, if what comes out is like what went in.

    Many classes hand a text of their own to `Exception.__init__` and take something else: those come back wrong, or not at all.
    """
    try:
        pickled = PICKLE.encode(exception)
        revived = PICKLE.decode(pickled)
    except BaseException:  # noqa: BLE001  so do its __reduce__ and its __setstate__
        return None
    same = type(revived) is type(exception) and isinstance(revived, Exception) and _is_like(revived, exception)
    return pickled if same else None


def _is_like(revived: BaseException, exception: BaseException) -> bool:
    try:
        same_arguments = revived.args == exception.args or PICKLE.encode(revived.args) == PICKLE.encode(exception.args)
        return bool(same_arguments) and str(revived) == str(exception)
    except BaseException:  # noqa: BLE001  comparing calls the user's methods
        return False
