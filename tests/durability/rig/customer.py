"""A customer: another process, which does business with whatever host lives, and writes down what was acknowledged.

It outlives hosts, and is killed at any moment itself; its asks wait for their answers from one host to the next.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from perdure.actors import Client

from .ledger import Ledger
from .load import Sender
from .peace import business

BURST: Final = 10  # requests
PAUSE: Final = 0.02  # seconds between bursts: a host must be able to keep up


async def do_business(place: Path, number: int, accounts: int) -> None:
    """Do business for ever, but for while a host audits, and again what the customer before has asked with keys."""
    async with Client(f"lmdb:{place}/store") as client:
        sender = Sender(client, Ledger(place / "ledger"), f"customer {number}", accounts)
        for name in (f"customer {number - 1}", f"customer {number}"):
            async with business(place):
                await sender.repeat(name)
        while True:
            async with business(place):
                await sender.run(BURST)
            await asyncio.sleep(PAUSE)
