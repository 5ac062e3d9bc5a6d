"""A digest of a value that is the same in every process: pickles of equal values differ with the identities in them, this does not.

The walk covers type and value, sets and dict keys sorted by their own digest; nothing remembers identities, so two equal values agree
whether or not they share parts. BLAKE2b (RFC 7693), 16 bytes.
"""

from __future__ import annotations

import copyreg
import hashlib
import struct
from typing import Any, Final

MAX_DEPTH: Final = 200  # a value nested deeper, or one that contains itself, has no digest


def digest(value: object) -> bytes:
    """The digest of a value. Raises RecursionError for one that contains itself, TypeError for one that cannot be taken apart."""
    return _walk(value, MAX_DEPTH)


def _walk(value: Any, depth: int) -> bytes:
    if depth == 0:
        raise RecursionError("the value is nested too deep, or contains itself")
    kind = type(value)
    if value is None or kind is bool or kind is int:
        return _hash(kind, repr(value).encode())
    if kind is str:
        return _hash(kind, value.encode(errors="surrogatepass"))
    if kind is bytes or kind is bytearray:
        return _hash(kind, bytes(value))
    if kind is float:
        return _hash(kind, struct.pack(">d", value))
    return _hash(kind, b"".join(_parts(value, kind, depth - 1)))


def _parts(value: Any, kind: type, depth: int) -> list[bytes]:
    if kind is tuple or kind is list:
        return [_walk(item, depth) for item in value]
    if kind is dict:
        return sorted(_walk(key, depth) + _walk(item, depth) for key, item in value.items())
    if kind is set or kind is frozenset:
        return sorted(_walk(item, depth) for item in value)
    if isinstance(value, type) or callable(value):
        return [f"{value.__module__}.{value.__qualname__}".encode()]
    return _reduced(value, depth)


def _reduced(value: Any, depth: int) -> list[bytes]:
    """The parts of any other object are those that pickle would write."""
    reducer = copyreg.dispatch_table.get(type(value))
    reduced = reducer(value) if reducer else value.__reduce_ex__(4)
    if isinstance(reduced, str):
        return [reduced.encode()]
    make, arguments, *rest = reduced
    state, items, pairs = (*rest, None, None, None)[:3]
    contents = [make, tuple(arguments), state, list(items or ()), list(pairs or ())]
    return [_walk(part, depth) for part in contents]


def _hash(kind: type, content: bytes) -> bytes:
    return hashlib.blake2b(f"{kind.__module__}.{kind.__qualname__}\0".encode() + content, digest_size=16).digest()
