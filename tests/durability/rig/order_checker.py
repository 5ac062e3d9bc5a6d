"""The checker of orders: what they know must follow from what was acknowledged, from what is in the accounts, and from the steps' journal.

A  what was acknowledged is applied
B  everything that is applied is applied once, in its order, and comes to what it must
C  a step that is recorded never runs again; one in flight runs at most once in each life; none runs before asking for it is durable
F  every timer that is due fires, once, and not early
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from .checker import Accounts
from .ledger import Acknowledgement, Run
from .orders import APPROVALS, LINES, NAPS, PAYMENTS, STEPS, WORTH, Book
from .remains import Remains

Books = Mapping[str, Book]
OF_ORDERS: Final = frozenset({"order", "approval", "line", "earned"})


def broken_orders(books: Books, accounts: Accounts, acknowledged: Iterable[Acknowledgement]) -> list[str]:
    """Every promise about orders that is broken, in words, when all orders have come to rest."""
    of_orders = [promise for promise in acknowledged if promise.kind in OF_ORDERS]
    received = {(sender, number) for facts in accounts.values() for sender, number, _ in facts.received}
    found = [*_lost(books, of_orders), *_earnings(of_orders)]
    for key, book in books.items():
        found += [f"{problem}: order {key} knows {book}" for problem in _odd(book)]
        found += [f"A: payment {number} of {key} was answered and is lost" for number in book.payments if (key, number) not in received]
    return found


def _lost(books: Books, acknowledged: Iterable[Acknowledgement]) -> Iterator[str]:
    for kind, key, _, number in acknowledged:
        book = books.get(key)
        if book is None:
            yield f"A: {kind} {number} of {key} was acknowledged, and there is no such order"
        elif (
            (kind == "order" and not book.begun)
            or (kind == "approval" and book.begun and number not in book.approvals)  # before, it is kept
            or (kind == "line" and number not in book.lines)
            or (kind == "earned" and number != book.earned)
        ):
            yield f"A: {kind} {number} of {key} was acknowledged and is lost: {book}"


def _earnings(acknowledged: Iterable[Acknowledgement]) -> Iterator[str]:
    prices = {key: number for kind, key, _, number in acknowledged if kind == "order"}
    for kind, key, _, number in acknowledged:
        if kind == "earned" and number != prices[key] * WORTH:
            yield f"B: order {key} earned {number}, and not {prices[key] * WORTH}"


def _odd(book: Book) -> Iterator[str]:
    """What is too much in an order, or missing at its end."""
    numbered = (book.approvals, APPROVALS), (book.lines, LINES), (book.payments, PAYMENTS)
    if any(numbers != list(range(1, len(numbers) + 1)) or len(numbers) > most for numbers, most in numbered):
        yield "B"
    if len({*book.done, *book.given_up}) != len(book.done) + len(book.given_up) or len(book.done) > STEPS:
        yield "C"
    if book.early or book.rung > 1 or book.naps > NAPS:
        yield "F"
    if book.earned is not None and (len(book.done), book.naps, book.rung) != (STEPS, NAPS, 1):
        yield "B"


# --- steps ---


def broken_steps(remains: Remains, before: Iterable[Run], since: Iterable[Run]) -> Iterator[str]:
    """What steps did that they must not: `before` and `since` a life began with those remains."""
    for key in sorted(remains.asked & remains.recorded):
        yield f"C: {key} is recorded, and asked for still"
    for key in sorted({run.key for run in before} - remains.asked - remains.recorded):
        yield f"C: {key} has run, and nothing that is durable has asked for it"
    for key in sorted({run.key for run in since} & remains.recorded):
        yield f"C: {key} is recorded, and ran again"
    runs: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for run in (*before, *since):
        runs[run.key, run.life].append(run)
    for (key, life), in_life in runs.items():
        if any(not run.fails for run in in_life[:-1]):
            yield f"C: {key} ran more than once in life {life}: {in_life}"
