"""Spans that wait for their batch.

They are kept beyond the epoch that has made them: where a commit's outcome is unknown, the next epoch finds it out, and they are seen, or
never were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, final

if TYPE_CHECKING:
    from ._spans import Draft

BatchId: TypeAlias = tuple[int, int]  # epoch, number


@final
class PendingSpans:
    """The drafts of batches that are not known to be durable, over the epochs of one store."""

    __module__ = "perdure.tracing"

    __slots__ = ("_batches",)

    def __init__(self) -> None:
        self._batches: dict[BatchId, list[Draft]] = {}

    def __repr__(self) -> str:
        return f"<PendingSpans of {len(self._batches)} batches>"

    def park(self, batch: BatchId, draft: Draft) -> None:
        """Let a draft wait for its batch."""
        drafts = self._batches.get(batch)
        if drafts is None:
            self._batches[batch] = [draft]
        else:
            drafts.append(draft)

    def release(self, batch: BatchId) -> list[Draft]:
        """The batch is durable: what has waited for it."""
        return self._batches.pop(batch, [])

    def settle(self, durable: BatchId) -> list[Draft]:
        """An epoch begins, and `durable` is the last batch before it: what has waited for that one and those before. The rest never was.

        If that batch is of a later epoch than all that wait, another process was the host meanwhile, and nobody knows what became of these.
        """
        batches, self._batches = self._batches, {}
        return [draft for batch in sorted(batches) if batch <= durable and batch[0] == durable[0] for draft in batches[batch]]
