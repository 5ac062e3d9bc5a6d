"""What names an actor, one of its lives, and a message.

An actor is addressed by (type, key) for ever; an incarnation is one life behind that address. A message id is the same however often the
message is delivered or its turn is run again, so attempts can be counted by it before the message is durable.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple, NewType, final

from ._errors import InvalidKey, KeyTooLong

MAX_KEY_BYTES: Final = 200  # of UTF-8: with every byte escaped, the longest row key stays below LMDB's 511

Incarnation = NewType("Incarnation", bytes)
MessageId = NewType("MessageId", bytes)


@final
class ActorId(NamedTuple):
    """The address of an actor: the name of its type, and its key."""

    type: str
    key: str

    def __str__(self) -> str:
        return f"{self.type}/{self.key}"


ActorId.__module__ = "perdure.actors"


def actor_id(type_name: str, key: str) -> ActorId:
    """An address from outside, checked. Raises KeyTooLong beyond 200 bytes of UTF-8, InvalidKey for what is not Unicode text."""
    if not isinstance(key, str):
        raise InvalidKey(type_name, repr(key), "a key is a str")
    try:
        size = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidKey(type_name, ascii(key), "a lone surrogate is no Unicode text") from error
    if size > MAX_KEY_BYTES:
        raise KeyTooLong(type_name, key, size, MAX_KEY_BYTES)
    return ActorId(type_name, key)


def address_in(text: str) -> ActorId:
    """The address that a text is of: no type's name has a slash in it."""
    return ActorId(*text.split("/", 1))


def first_incarnation(actor: ActorId, first: MessageId) -> Incarnation:
    """The life that an actor's first message begins: the same when its turn is run again after a crash, so that what it sends is known."""
    return Incarnation(hashlib.blake2b(first + str(actor).encode(), digest_size=16).digest())


def check_idempotency_key(actor: ActorId, key: str) -> None:
    """Raise InvalidKey for an idempotency key that is not Unicode text: no record could hold it."""
    if not isinstance(key, str):
        raise InvalidKey(actor.type, repr(key), "an idempotency key is a str")
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise InvalidKey(actor.type, ascii(key), "an idempotency key has no lone surrogate") from error


def sent_id(incarnation: Incarnation, turn: int, nth: int) -> MessageId:
    """The id of the nth message that a turn of an incarnation sends: the same when the turn is run again after a crash."""
    return MessageId(incarnation + turn.to_bytes(6, "big") + nth.to_bytes(3, "big"))


def request_id(incarnation: Incarnation, turn: int, nth: int) -> MessageId:
    """The id of the nth thing that a turn of an incarnation asks for: that of the message which brings its outcome."""
    return MessageId(sent_id(incarnation, turn, nth) + b"?")


def child_key(parent: str, incarnation: Incarnation, turn: int, nth: int) -> str:
    """The key of a child that was given none: its parent's, and which asking of which life it was."""
    tail = f"/{incarnation[:4].hex()}-{turn}-{nth}"
    if len(parent.encode()) + len(tail) > MAX_KEY_BYTES:
        parent = hashlib.blake2b(parent.encode(), digest_size=16).hexdigest()
    return parent + tail


def continued(incarnation: Incarnation) -> Incarnation:
    """The life that follows one, the same when the turn in which it ends is run again."""
    return Incarnation(hashlib.blake2b(incarnation + b"continued", digest_size=16).digest())


def renewed(incarnation: Incarnation) -> Incarnation:
    """The life that follows one which its parent's supervision has ended: the same when the turn is run again."""
    return Incarnation(hashlib.blake2b(incarnation + b"renewed", digest_size=16).digest())


def life_of(made: MessageId) -> Incarnation:
    """The life that an id of something which it sent or asked for comes from."""
    return Incarnation(made[:16])
