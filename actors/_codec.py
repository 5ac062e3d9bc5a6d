"""Codecs: how state, arguments and results become bytes, and values again.

What is decoded equals what was encoded and shares nothing mutable with it; what cannot be encoded is refused by a NotSerializable that
names the place, and what cannot be decoded by a NotDeserializable: no other error leaves a codec of this module.
"""

from __future__ import annotations

import pickle
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType, UnionType
from typing import Any, Final, Protocol, cast, final

import msgspec

from ._errors import DefinitionError, NotDeserializable, NotSerializable
from ._renames import RENAMES, Placeholder, RenamingUnpickler, missing, refuse_to_store

PROTOCOL: Final = 5  # of pickle (PEP 574); every supported Python reads and writes it
MAX_PATH: Final = 30  # parts of a path to what cannot be stored: more, nobody would read


class Codec(Protocol):
    """What turns values to bytes and back. `name` is recorded beside what it wrote, so it never changes its meaning.

    A codec of one's own brings the types back by itself, as pickle does; `type` is a wish.
    """

    @property
    def name(self) -> str:
        """The name it is known by in the store."""
        ...

    def encode(self, value: object) -> bytes:
        """The value as bytes. Raises NotSerializable, its path beginning with `value`."""
        ...

    def decode(self, data: bytes, type: object = ...) -> object:  # noqa: A002  the word is the protocol's
        """A new value, equal to the one encoded. Raises NotDeserializable."""
        ...


Codec.__module__ = "perdure.actors"  # said here, since in its body it would be one of the protocol's members


@final
class PickleCodec:
    """Pickle, and cloudpickle for what pickle refuses: lambdas, local functions and classes.

    `placeholders` lets values of classes that are gone be decoded as Placeholder objects, for tools.
    """

    __module__ = "perdure.actors"
    __slots__ = ("_placeholders", "name")

    def __init__(self, *, placeholders: bool = False) -> None:
        self.name: Final = "pickle"
        self._placeholders = placeholders

    def encode(self, value: object) -> bytes:
        """The value as a pickle of protocol 5. Raises NotSerializable with the path to what cannot be stored."""
        try:
            return pickle.dumps(value, PROTOCOL)
        except Exception:  # noqa: BLE001  pickling runs the value's own methods, which may raise anything
            return _encode_by_value(value)

    def decode(self, data: bytes, type: object = object) -> object:  # noqa: A002  the word is the protocol's
        """A new value; `type` is not needed. Raises NotDeserializable for damaged bytes, and for classes that are gone."""
        try:
            if RENAMES or self._placeholders:
                return cast("object", RenamingUnpickler(data, placeholders=self._placeholders).load())
            return cast("object", pickle.loads(data))
        except Exception as error:
            raise NotDeserializable(self.name, _said(error), *missing(data)) from error


@final
class MsgspecCodec:
    """JSON or MessagePack by msgspec, which tools and other languages can read.

    Types come back as they are annotated. What has no annotation comes back as plain data: a tuple or set as a list, an object as a dict;
    JSON, which has neither infinity nor NaN, makes None of them.
    """

    __slots__ = ("_decode", "_encode", "is_json", "name")

    def __init__(self, name: str, *, is_json: bool) -> None:
        self.name: Final = name
        self.is_json: Final = is_json
        self._encode = msgspec.json.Encoder().encode if is_json else msgspec.msgpack.Encoder().encode
        self._decode: Callable[..., object] = msgspec.json.decode if is_json else msgspec.msgpack.decode

    def encode(self, value: object) -> bytes:
        """The value as bytes. Raises NotSerializable with the path to what msgspec does not know."""
        try:
            data = self._encode(value)
        except Exception as error:
            raise _refusal(value, error, self._encode) from error
        return b" " + data if self.is_json and len(data) == 1 else data  # a single byte is MessagePack: see `writer_of`

    def decode(self, data: bytes, type: object = Any) -> object:  # noqa: A002  the word is the protocol's
        """A new value of the annotated type. Raises NotDeserializable where the bytes do not fit it."""
        try:
            return self._decode(data, type=type)
        except Exception as error:
            raise NotDeserializable(self.name, _said(error)) from error

    def convert(self, value: object, type: object) -> object:  # noqa: A002  the word is the protocol's
        """Plain data, as decoded without a type, as a value of that type. Raises msgspec.ValidationError or TypeError."""
        return msgspec.convert(value, type, str_keys=self.is_json)


def shown_as_json(value: object) -> bytes:
    """A value as JSON for people and tools: what has no JSON form is shown by its repr."""
    try:
        return msgspec.json.encode(value, enc_hook=repr)
    except Exception:  # noqa: BLE001  keys that JSON has not, a value that contains itself, an attribute that raises
        return msgspec.json.encode(repr(value))


PICKLE: Final = PickleCodec()
_CODECS: Final[dict[str, PickleCodec | MsgspecCodec]] = {
    "pickle": PICKLE,
    "msgspec": MsgspecCodec("msgspec", is_json=False),
    "msgspec-json": MsgspecCodec("msgspec-json", is_json=True),
}


def writer_of(data: bytes, own: Codec) -> Codec:
    """Which of these codecs has written something that a type with the codec `own` is to read; a codec of one's own reads what it wrote.

    Pickles of protocol 5 begin with 0x80 0x05, which is no MessagePack; JSON begins with ASCII, which in MessagePack is a whole number.
    """
    is_pickle = data[:2] == _PICKLED
    if (is_pickle and type(own) is PickleCodec) or type(own) not in {PickleCodec, MsgspecCodec}:  # as nearly always
        return own
    if is_pickle:
        return PICKLE
    return _CODECS["msgspec" if data[:1] >= b"\x80" or len(data) == 1 else "msgspec-json"]


_PICKLED: Final = b"\x80\x05"


def codec_named(name: str) -> Codec:
    """One of the codecs that come with the package. Raises DefinitionError, naming them, for another name."""
    codec = _CODECS.get(name)
    if codec is None:
        raise DefinitionError(
            f"codec={name!r}", "there is no codec of that name", f"There is: {', '.join(_CODECS)}; or give a Codec object."
        )
    return codec


def narrowed(codec: Codec, error: NotSerializable, parts: Iterable[tuple[str, object]]) -> NotSerializable:
    """The refusal of a whole, told as that of the first of its named parts that the codec refuses by itself."""
    for name, part in parts:
        try:
            codec.encode(part)
        except NotSerializable as refused:
            return refused.within(name)
    return error


def _encode_by_value(value: object) -> bytes:
    encode = _cloudpickle()
    try:
        return encode(value)
    except Exception as error:
        raise _refusal(value, error, encode) from error


@cache
def _cloudpickle() -> Callable[[object], bytes]:
    import io

    import cloudpickle  # here, since it costs 15 ms that most programs never need

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        """What can be found by its name stays a name, also in the main program: a copy would be another class after a restart."""

        def reducer_override(self, obj: Any) -> Any:
            if reason := _process_reason(obj):
                raise TypeError(reason)  # cloudpickle would store an open file as a copy of what is in it
            if isinstance(obj, type) and issubclass(obj, Placeholder):
                refuse_to_store(obj)  # as a copy it would stay a placeholder for ever
            if isinstance(obj, type | FunctionType) and _is_found_by_name(obj):
                return NotImplemented
            return super().reducer_override(obj)

    def encode(value: object) -> bytes:
        file = io.BytesIO()
        Pickler(file, PROTOCOL).dump(value)
        return file.getvalue()

    return encode


def _is_found_by_name(definition: type | FunctionType) -> bool:
    found: object = sys.modules.get(definition.__module__)
    for name in definition.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is definition


def _refusal(value: object, error: Exception, encode: Callable[[object], bytes]) -> NotSerializable:
    """The error that names the innermost part that cannot be encoded by itself."""
    path, seen = "value", set[int]()
    while id(value) not in seen and len(seen) < MAX_PATH and not _is_too_deep(error) and not _process_reason(value):
        seen.add(id(value))
        for label, part in _parts(value):
            refused = _raised(encode, part)
            if refused is not None:
                path, value, error = path + label, part, refused
                break
    reason = "it is nested too deeply" if _is_too_deep(error) else _process_reason(value) or _said(error)
    return NotSerializable(path, type(value).__qualname__, reason)


def _process_reason(value: object) -> str:
    """Why a value of this kind cannot outlive its process and what to keep instead; nothing for any other kind."""
    if value is sys.stdout or value is sys.stderr:
        return ""  # cloudpickle stores them by name
    return next((reason for kinds, reason in _process_kinds().items() if isinstance(value, kinds)), "")


@cache
def _process_kinds() -> dict[type | UnionType, str]:
    import asyncio
    import io
    import socket
    import threading

    files = io.FileIO | io.BufferedReader | io.BufferedWriter | io.BufferedRandom | io.TextIOWrapper
    return {
        asyncio.Task: "replay starts it again: keep the task in a local variable, and what it found out in self",
        asyncio.Future: "replay makes it again: keep the future in a local variable, or an asyncio.Event in self",
        CoroutineType: "replay starts it again: await the coroutine where it is made, or keep it in a local variable",
        AsyncGeneratorType | GeneratorType: "replay starts it again: keep the generator in a local variable, and what it gave in self",
        asyncio.AbstractEventLoop: "a loop belongs to its process: keep primitives of asyncio as they are, not subclasses of them",
        files: "an open file belongs to its process: keep its path, and open it in a @step",
        socket.socket: "a connection belongs to its process: keep the address, and connect in a @step",
        type(threading.Lock()): "an actor's code never runs in two threads: leave it out, or use asyncio.Lock",
        type(threading.RLock()): "an actor's code never runs in two threads: leave it out, or use asyncio.Lock",
    }


def _is_too_deep(error: Exception) -> bool:
    return isinstance(error, RecursionError) or isinstance(error.__cause__ or error.__context__, RecursionError)


def _raised(encode: Callable[[object], bytes], value: object) -> Exception | None:
    try:
        encode(value)
    except Exception as error:  # noqa: BLE001  the value's own methods may raise anything
        return error
    return None


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What a value consists of, each part with the code that leads to it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"[{_shown(key)}]", item
            yield f" (the key {_shown(key)})", key
    elif isinstance(value, list | tuple | deque):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif isinstance(value, set | frozenset):
        for item in value:
            yield f" (the member {_shown(item)})", item
    for name, part in _attributes(value):
        yield f".{name}", part


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, type | FunctionType):
        return
    try:
        state = value.__getstate__()
    except Exception:  # noqa: BLE001  a value's own __getstate__ may raise anything
        return
    for attributes in state if isinstance(state, tuple) else (state,):
        if isinstance(attributes, dict):
            yield from ((str(name), part) for name, part in attributes.items())


def _shown(key: object) -> str:
    from reprlib import repr as short_repr

    return short_repr(key)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
