"""A customer: another process, which does business with whatever host lives, and writes down what was acknowledged.

It outlives hosts, and is killed at any moment itself; its asks wait for their answers from one host to the next.

    python -m tests.durability.rig.customer PLACE NUMBER ACCOUNTS
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Final

from perdure.actors import Client

from .buyer import Buyer
from .ledger import Ledger
from .load import Sender
from .orders import Order
from .peace import business

BURST: Final = 10  # requests
PAUSE: Final = 0.02  # seconds between bursts: a host must be able to keep up


async def do_business(place: Path, number: int, accounts: int, *, trades: bool = False) -> None:
    """Do business for ever, but for while a host audits, and again what the customer before has asked with keys.

    `trades`: and ordered.
    """
    async with Client(f"lmdb:{place}/store", [Order]) as client:
        ledger = Ledger(place / "ledger")
        sender, buyer = Sender(client, ledger, f"customer {number}", accounts), Buyer(client, ledger, accounts)
        for name in (f"customer {number - 1}", f"customer {number}"):
            async with business(place):
                await sender.repeat(name)
                if trades:
                    await buyer.order(f"order of {name}")
            if trades:
                await buyer.earn(f"order of {name}")
        while True:
            async with business(place):
                await sender.run(BURST)
            await asyncio.sleep(PAUSE)


def main() -> None:
    """Do business at a place as the customer of a number, with orders."""
    logging.disable()
    asyncio.run(do_business(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), trades=True))


if __name__ == "__main__":
    main()
