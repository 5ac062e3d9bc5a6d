"""Tuple keys whose bytes sort as the tuples do.

An element is an int (0 … 2**64-1), a str or bytes. `below(elements)` is the range of exactly those keys that begin with these elements.

The encoding is the one of FoundationDB's tuple layer, cut down: a code byte per element; an int's code tells its length and its big-endian
bytes follow; text (UTF-8, whose byte order is code point order) and bytes end with 0x00, a 0x00 inside them becomes 0x00 0xFF. No code
byte is 0xFF, so an escaped 0x00 sorts after every continuation of the shorter element.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from ._protocol import Range

Element: TypeAlias = int | str | bytes

_BYTES: Final = 0x01
_TEXT: Final = 0x02
_INT: Final = 0x10  # 0x10 + length in bytes: 0x10 is zero, 0x18 the longest


def pack(elements: tuple[Element, ...]) -> bytes:
    """The key of a tuple. Raises TypeError for another type of element, ValueError for an int out of range or text that is not Unicode."""
    key = bytearray()
    for element in elements:
        if isinstance(element, str):
            key.append(_TEXT)
            key += element.encode().replace(b"\0", b"\0\xff")
            key.append(0)
        elif isinstance(element, bytes):
            key.append(_BYTES)
            key += element.replace(b"\0", b"\0\xff")
            key.append(0)
        elif isinstance(element, int):
            key += _pack_int(element)
        else:
            raise TypeError(f"a key element is an int, a str or bytes, not {element!r}")
    return bytes(key)


def unpack(key: bytes) -> tuple[Element, ...]:
    """The tuple of a key. Raises ValueError for bytes that `pack` did not make."""
    elements: list[Element] = []
    position = 0
    while position < len(key):
        code = key[position]
        position += 1
        if code in (_TEXT, _BYTES):
            raw, position = _unpack_escaped(key, position)
            elements.append(raw.decode() if code == _TEXT else raw)
        elif _INT <= code <= _INT + 8:
            end = position + code - _INT
            if end > len(key):
                raise ValueError(f"not a packed key: {key!r}")
            elements.append(int.from_bytes(key[position:end], "big"))
            position = end
        else:
            raise ValueError(f"not a packed key: {key!r}")
    return tuple(elements)


def below(elements: tuple[Element, ...]) -> Range:
    """All keys that begin with these elements, themselves included."""
    start = pack(elements)
    return Range(start, start + b"\xff")  # no code byte is 0xFF, so every continuation sorts before it


def _pack_int(number: int) -> bytes:
    if not 0 <= number < 1 << 64:
        raise ValueError(f"an int in a key is from 0 to 2**64-1, not {number}")
    length = (number.bit_length() + 7) // 8
    return bytes((_INT + length,)) + number.to_bytes(length, "big")


def _unpack_escaped(key: bytes, start: int) -> tuple[bytes, int]:
    end = start
    while True:
        end = key.find(b"\0", end)
        if end < 0:
            raise ValueError(f"not a packed key: {key!r}")
        if key[end + 1 : end + 2] != b"\xff":
            return key[start:end].replace(b"\0\xff", b"\0"), end + 1
        end += 2
