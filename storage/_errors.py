"""What can go wrong with a store, as one tree.

    PerdureError                     everything this project raises on purpose
    └── StoreError                   a store's trouble; names the store and the remedy
        ├── StoreLocked              another process owns it, or has it open where nobody may
        ├── StoreFull                no room on the disk: nothing was written, try again later
        ├── StoreCorrupt             it is damaged, empty or not ours
        ├── StoreVersionError        written by another format or LMDB engine
        ├── Fenced                   another owner took over: this one may write nothing more
        ├── CommitUncertain          a commit failed in a way that leaves its outcome unknown
        └── StoreClosed              used after close, or in a forked child

Every class builds its own sentence from the parts it is given, so that each text says what happened, to which store, and what to do.
"""

from typing import final


class PerdureError(Exception):
    """The root of all errors that Perdure raises on purpose."""

    __module__ = "perdure.storage"


class StoreError(PerdureError):
    """A store's trouble. `store` is its URL or path."""

    __module__ = "perdure.storage"

    def __init__(self, store: str, what: str, remedy: str) -> None:
        super().__init__(store, what, remedy)
        self.store = store
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.store}: {self.what}. {self.remedy}"


@final
class StoreLocked(StoreError):
    """Another process owns the store, or has it open where nobody may. `pid` is its process id, or 0 if it could not be read."""

    __module__ = "perdure.storage"

    def __init__(
        self,
        store: str,
        pid: int,
        does: str = "hosts this store already",
        remedy: str = "Stop that host first, or talk to it with Client(…).",
    ) -> None:
        owner = f"process {pid}" if pid else "another process"
        StoreError.__init__(self, store, f"{owner} {does}", remedy)
        self.args = (store, pid, does, remedy)
        self.pid = pid


@final
class StoreFull(StoreError):
    """There is no room left: nothing of the refused write is stored, and reads go on."""

    __module__ = "perdure.storage"

    def __init__(self, store: str, what: str = "no space is left for new data") -> None:
        StoreError.__init__(self, store, what, "Free some space on its disk; the host goes on by itself.")
        self.args = (store, what)


@final
class StoreCorrupt(StoreError):
    """The store is damaged, empty, or not a Perdure store."""

    __module__ = "perdure.storage"

    def __init__(self, store: str, what: str, remedy: str = "Restore it from a backup; keep the damaged files for a look.") -> None:
        StoreError.__init__(self, store, what, remedy)
        self.args = (store, what, remedy)


@final
class StoreVersionError(StoreError):
    """The store was written in another format than this release reads."""

    __module__ = "perdure.storage"


@final
class Fenced(StoreError):
    """Another owner took the partition over; the write that found out changed nothing."""

    __module__ = "perdure.storage"

    def __init__(self, store: str, epoch: int, current: int) -> None:
        what = f"this host owned epoch {epoch}, and epoch {current} has begun"
        StoreError.__init__(self, store, what, "This host stops; the newer one goes on with everything that was acknowledged.")
        self.args = (store, epoch, current)


@final
class CommitUncertain(StoreError):
    """A commit failed, and whether it is on disk is not known until the store is read again.

    `recoverable` tells whether a fresh start on the same store may go on at once; after an input/output error of the disk it may not.
    """

    __module__ = "perdure.storage"

    def __init__(self, store: str, cause: str, recoverable: bool) -> None:
        remedy = (
            "Ask again with the same idempotency key: the store is read afresh."
            if recoverable
            else "The host stops: check the disk, then start it again; what was acknowledged is safe."
        )
        StoreError.__init__(self, store, f"a commit has an unknown outcome ({cause})", remedy)
        self.args = (store, cause, recoverable)
        self.recoverable = recoverable


@final
class StoreClosed(StoreError):
    """The store object was used after it was closed, or in a forked child process."""

    __module__ = "perdure.storage"

    def __init__(self, store: str, what: str = "it is closed", remedy: str = "Open the store again in this process.") -> None:
        StoreError.__init__(self, store, what, remedy)
        self.args = (store, what, remedy)
