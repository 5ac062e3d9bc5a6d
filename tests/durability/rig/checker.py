"""The checker: what the accounts say must follow from what was acknowledged, and from each other.

A  what was acknowledged is applied
B  everything that is applied is applied once
D  money is neither made nor lost
E  what a sender sent in one lane arrived in its order

Orders, and the store itself, are looked at elsewhere.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from .bank import Facts
from .ledger import Acknowledgement

Accounts = Mapping[str, Facts]


def violations(accounts: Accounts, acknowledged: Iterable[Acknowledgement]) -> list[str]:
    """Every promise that is broken, in words."""
    return [*_lost(accounts, acknowledged), *_out_of_order(accounts), *_transfers(accounts), *_money(accounts)]


def _lost(accounts: Accounts, acknowledged: Iterable[Acknowledgement]) -> Iterator[str]:
    applied = {
        "deposit": {(key, sender, number) for key, facts in accounts.items() for sender, number, _ in facts.received},
        "note": {(key, sender, number) for key, facts in accounts.items() for sender, number in facts.heard},
    }
    made = {(key, label) for key, facts in accounts.items() for label in facts.made}
    answers: dict[tuple[str, str], int] = {}
    for kind, account, peer, number in acknowledged:
        there = (account, peer) in made if kind == "transfer" else (account, peer, number) in applied[kind]
        if not there:
            yield f"A: {kind} {number} of {peer} to {account} was acknowledged and is lost"
        if kind == "transfer" and answers.setdefault((account, peer), number) != number:
            yield f"B: transfer {peer} was answered {answers[account, peer]}, and later {number}"


def _out_of_order(accounts: Accounts) -> Iterator[str]:
    """A sender's numbers are 1, 2, 3 … in each lane: anything else is lost, doubled or out of order."""
    for key, facts in accounts.items():
        for lane, arrived in (("deposits", [row[:2] for row in facts.received]), ("notes", facts.heard)):
            by_sender: dict[str, list[int]] = defaultdict(list)
            for sender, number in arrived:
                by_sender[sender].append(number)
            for sender, numbers in by_sender.items():
                if numbers != list(range(1, len(numbers) + 1)):
                    letter = "B" if len(set(numbers)) < len(numbers) else "E"
                    yield f"{letter}: {lane} of {sender} in {key}: {_first_odd(numbers)}"


def _first_odd(numbers: list[int]) -> str:
    place = next(place for place, number in enumerate(numbers) if number != place + 1)
    return f"… {numbers[max(0, place - 2) : place + 3]} …, where {place + 1} was due"


def _transfers(accounts: Accounts) -> Iterator[str]:
    """What one account sent, the other received: neither less nor more."""
    for key, facts in accounts.items():
        if doubled := [label for label, times in Counter(facts.made).items() if times > 1]:
            yield f"B: transfers {doubled} were made more than once by {key}"
        for payee, count in facts.sent.items():
            received = sum(sender == key for sender, _, _ in accounts[payee].received)
            heard = sum(sender == key for sender, _ in accounts[payee].heard)
            if (received, heard) != (count, count):
                yield f"B: {key} paid {payee} {count} times, which received {received} payments and heard of {heard}"


def _money(accounts: Accounts) -> Iterator[str]:
    held = sum(facts.balance for facts in accounts.values())
    brought = sum(cents for facts in accounts.values() for sender, _, cents in facts.received if sender not in accounts)
    if held != brought:
        yield f"D: {brought} cents were brought to the bank, and {held} are in it"
