"""What is done about dead letters: they are put back into their actor's mailbox, dropped, or given other arguments.

A letter goes in the batch that puts its message back, and all that one request asks for is one batch; so each message is put back once,
however often it is asked for and wherever the host crashes. Nothing of it happens while the actor takes a turn.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..storage import Batch, PerdureError
from ._activation import Activation
from ._envelope import Envelope, Kind
from ._epoch import Epoch
from ._errors import ActorCompleted, DeadLetterNotFound, MailboxFull, WrongArguments
from ._ids import ActorId
from ._persistence import StoredLetter, put_edited_letter
from ._records import LETTER_CHANGE, DamagedRecord, LetterChange, Outcome, Value, refusal
from ._settlement import Settlement
from ._telling import IN_NO_MAILBOX, Telling

PutBack = Callable[[Activation, Envelope], bool]


def change_letters(epoch: Epoch, settlement: Settlement, activation: Activation, request: Envelope, put_back: PutBack) -> Outcome:
    """Do what a request asks about the letters that were read for it; the answer is how many they were.

    `put_back` accepts a message again, and is False if the mailbox has no room for it.
    """
    letters, activation.letters = activation.letters or [], None
    stands_for, activation.stands_for = activation.stands_for or {}, None
    settlement.books.touch(activation, len(request.payload))
    batch = epoch.commit.batch
    try:
        named, change = _named(activation.actor, letters, request)
        if request.kind is Kind.REDRIVE:
            return _answer(_redrive(batch, settlement, activation, named, stands_for, put_back))
        if request.kind is Kind.DROP:
            return _answer(_drop(batch, named))
        return _answer(_edit(batch, activation.actor, named, change, request))
    except PerdureError as refused:
        return refusal(refused)


def drop_unserved(epoch: Epoch, telling: Telling, actor: ActorId, request: Envelope, letters: list[StoredLetter]) -> None:
    """Drop letters of an actor whose type is not served; those that go are taken out of `letters`, which are all that it has."""
    try:
        named, _ = _named(actor, letters, request)
        outcome: Outcome = _answer(_drop(epoch.commit.batch, named))
        letters[:] = [letter for letter in letters if letter not in named]
    except PerdureError as refused:
        outcome = refusal(refused)
    if request.awaiter is not None:
        telling.tell(actor, request.awaiter, outcome)


def _named(actor: ActorId, letters: list[StoredLetter], request: Envelope) -> tuple[list[StoredLetter], LetterChange]:
    """The letters that a request names, or all, and the request."""
    try:
        change = LETTER_CHANGE.unpack(request.payload)
    except DamagedRecord as damage:
        raise WrongArguments(f"{actor.type}: {request.name}", "(*seqs)", str(damage)) from damage
    return [letter for letter in letters if not change.seqs or letter.seq in change.seqs], change


def _redrive(
    batch: Batch,
    settlement: Settlement,
    activation: Activation,
    letters: list[StoredLetter],
    stands_for: dict[str, tuple[str, bytes]],
    put_back: PutBack,
) -> int:
    if activation.damaged and (quarantined := activation.refusal()) is not None:  # what its mailbox holds is not known
        raise quarantined
    if activation.snapshot is not None and activation.snapshot.status.is_end:
        raise ActorCompleted(activation.actor)
    count = 0
    for row, seq, letter in letters:
        key = letter.envelope.key
        used_for = stands_for.get(key[0]) if key is not None and seq >= IN_NO_MAILBOX else None
        if not letter.envelope.is_for_code or used_for not in {None, _call(letter.envelope)}:
            continue
        if used_for is not None:  # it has been sent again since, and taken then
            batch.delete(row)
            count += 1
            continue
        envelope = msgspec.structs.replace(letter.envelope, ask=False)  # whoever asked has gone
        if not put_back(activation, envelope):
            if not count:
                raise MailboxFull(activation.actor, activation.definition.mailbox_limit)
            break  # what has no room stays, behind what had
        settlement.books.discharge(envelope.id)
        batch.delete(row)
        count += 1
        if key is not None:
            stands_for[key[0]] = _call(envelope)
    return count


def _call(envelope: Envelope) -> tuple[str, bytes]:
    return envelope.name, b"" if envelope.key is None else envelope.key[1]


def _drop(batch: Batch, letters: list[StoredLetter]) -> int:
    for letter in letters:
        batch.delete(letter.row)
    return len(letters)


def _edit(batch: Batch, actor: ActorId, letters: list[StoredLetter], change: LetterChange, request: Envelope) -> int:
    wanted = next(iter(change.seqs), 0)  # a mailbox numbers from 1
    for row, seq, letter in letters:
        if seq == wanted and letter.envelope.is_for_code and letter.envelope.name == change.handler:
            envelope = msgspec.structs.replace(letter.envelope, payload=change.payload, form=request.form)
            put_edited_letter(batch, row, msgspec.structs.replace(letter, envelope=envelope))
            return 1
    raise DeadLetterNotFound(actor, wanted)


def _answer(count: int) -> Value:
    return Value(count.to_bytes(8, "big"))
