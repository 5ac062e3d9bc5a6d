"""The catalogue: which types, handlers and signals there are, as the hosts of a store wrote it down.

It needs no code of the user's. What it does not know is looked up again before it is refused, since a host may have come meanwhile; what
it refuses was never stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast, final

import msgspec

from ._envelope import Kind
from ._errors import ExtraNotInstalled, UnknownActorType, UnknownHandler, WrongArguments
from ._ids import ActorId
from ._persistence import Reads, read_registered
from ._registry import HandlerEntry, RegistryEntry

_ENTRY: Final = msgspec.msgpack.Decoder(RegistryEntry)
_RAW_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])


async def read_registry(reads: Reads) -> list[RegistryEntry]:
    """The types that hosts of the store have served, in order of name and version."""
    return [_ENTRY.decode(entry) for _, _, entry in await read_registered(reads)]


class Listed(NamedTuple):
    """A handler or declared signal of a type, and the kind of message that it takes."""

    label: str
    entry: HandlerEntry
    kind: Kind


@final
class Catalogue:
    """What can be called in a store. `wanted` is "event", "signal", "query" or "workflow" throughout."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._types: Mapping[str, RegistryEntry] = {}
        self._listed: dict[tuple[str, str, str], Listed] = {}

    def __repr__(self) -> str:
        return f"<Catalogue of {', '.join(self._types)}>"

    async def find(self, target: ActorId, wanted: str, name: str) -> Listed:
        """The handler of that name. Raises UnknownActorType, UnknownHandler."""
        place = target.type, wanted, name
        if place not in self._listed:
            await self._read()
        found = self._listed.get(place)
        if found is None:
            known = [each for type_name, kind, each in self._listed if (type_name, kind) == (target.type, wanted)]
            raise UnknownHandler((await self.require(target.type)).name, name, wanted, known)
        return found

    async def require(self, type_name: str) -> RegistryEntry:
        """The newest version of a type. Raises UnknownActorType."""
        if type_name not in self._types:
            await self._read()
        if type_name not in self._types:
            raise UnknownActorType(type_name, self._types)
        return self._types[type_name]

    async def _read(self) -> None:
        entries = await read_registry(self._reads)
        self._types = {entry.name: entry for entry in entries}
        self._listed = {}
        for each in entries:  # of a handler that several versions have, the newest counts
            for handler in each.handlers:
                kind = Kind.SIGNAL if handler.kind == "signal" else Kind.EVENT
                self._listed[each.name, handler.kind, handler.name] = Listed(f"{each.name}.{handler.name}", handler, kind)
            for signal in each.signals:
                self._listed[each.name, "signal", signal.name] = Listed(f"{each.name}.{signal.name}", signal, Kind.DECLARED)


def encode_json_call(listed: Listed, text: str | bytes) -> bytes:
    """Arguments in JSON as they are stored: an object, which fits the handler's schema.

    An array is by position; anything else is the only argument. Raises WrongArguments, also for an opaque handler; ExtraNotInstalled.
    """
    if listed.entry.schema is None:
        raise WrongArguments(listed.label, "(…)", "its arguments have no JSON form, so it cannot be called by name with JSON")
    schema: dict[str, Any] = msgspec.json.decode(listed.entry.schema)
    raw = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    try:
        value = msgspec.json.decode(raw)
        if not isinstance(value, dict):
            raw = _by_name(listed, schema, raw if isinstance(value, list) else b"[" + raw + b"]")
            value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refused(listed, schema, f"that is not JSON ({error})") from error
    _validate(listed, schema, value)
    return raw


def _by_name(listed: Listed, schema: dict[str, Any], raw: bytes) -> bytes:
    """The object that an array stands for; numbers stay as they are written."""
    values = _RAW_ARRAY.decode(raw)
    named: dict[str, object] = {}
    for name, described in schema["properties"].items():
        if values and described.get("x-rest"):
            named[name], values = values, []
        elif values:
            named[name] = values.pop(0)
    if values:
        raise _refused(listed, schema, "too many positional arguments")
    return msgspec.json.encode(named)


def _validate(listed: Listed, schema: dict[str, Any], value: Any) -> None:
    try:
        from jsonschema import Draft202012Validator  # an extra, and 80 ms
        from jsonschema.exceptions import best_match
    except ImportError:
        raise ExtraNotInstalled("jsonschema", "cli") from None
    error = best_match(Draft202012Validator(schema).iter_errors(value))
    if error is not None:
        where = "".join(f"[{part!r}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".")
        raise _refused(listed, schema, f"{where}: {error.message}" if where else error.message)


def _refused(listed: Listed, schema: dict[str, Any], problem: str) -> WrongArguments:
    required = cast("list[str]", schema.get("required", []))
    shown = ", ".join(_parameter(name, described, name in required) for name, described in schema["properties"].items())
    return WrongArguments(listed.label, f"({shown})", problem)


def _parameter(name: str, described: dict[str, Any], is_required: bool) -> str:
    if described.get("x-rest"):
        return f"*{name}"
    kind = described.get("type", "")
    typed = f"{name}: {kind}" if kind else name
    if is_required:
        return typed
    return f"{typed} = {msgspec.json.encode(described['default']).decode()}" if "default" in described else f"{typed} = …"
