"""What type checkers must infer of versions, migrations and patches, and, on the lines that end in a comment `E…`, the mistakes to find.

Never run: `test_typing.py` shows it to the checkers.
"""

from datetime import timedelta
from typing import Any, assert_type

from perdure.actors import ActorQuarantined, MigrationFailed, VersionMismatch, durable_actor, migrate, on_event, patched


@durable_actor(version=3, replays=(1, 2), retention=timedelta(days=30))
class Account:
    @migrate(1)
    @staticmethod
    def with_currency(state: dict[str, Any]) -> dict[str, Any]:
        return {"balance": {"EUR": state["cents"]}}

    @migrate(2)  # E1
    @staticmethod
    def counted(state: int) -> dict[str, Any]:
        return {"count": state}

    @on_event
    def deposit(self, cents: int) -> bool:
        return patched("fees")


async def main() -> None:
    assert_type(patched("fees"), bool)
    assert_type(Account.with_currency({}), dict[str, Any])
    try:
        patched(1)  # E2
    except VersionMismatch as mismatch:
        assert_type(mismatch.wrote, tuple[int, ...])
    except MigrationFailed as failed:
        assert_type(failed.version, int)
        assert isinstance(failed, ActorQuarantined)


@durable_actor(version="2")  # E3
class Wrong: ...


@durable_actor(retention=30)  # E4
class WrongToo: ...
