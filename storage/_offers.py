"""Offers that no owner has accepted yet, as whoever looks at a store sees them: they stay where they are."""

from __future__ import annotations

from ._backup import opened_environments
from ._format import POSITION_KEY, numbered
from ._inbox import offers_after
from ._protocol import Offer, Store


def waiting_offers(source: Store | str, partition: int) -> tuple[list[Offer], bool]:
    """(the first offers in the inbox of an LMDB store that its owner has not accepted yet, whether these are all).

    `source` is its URL, its path or itself. They are as many as an owner takes at once: a thousand, or some megabytes of them.
    """
    with opened_environments(source) as (main, inbox):
        position = int.from_bytes(main.read([numbered(POSITION_KEY, partition)])[0] or b"", "big")
        _, offers, is_all = inbox.view(lambda transaction: offers_after(transaction, partition, position))
    return offers, is_all
