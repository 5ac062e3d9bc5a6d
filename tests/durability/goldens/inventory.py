"""What there is in a store: tables, kinds of messages and requests, and types of records, each with what it says."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from enum import IntEnum
from typing import Any, Final

import msgspec
from perdure.actors import _envelope, _failure, _records
from perdure.actors._envelope import Envelope, Form, Kind
from perdure.actors._persistence import PARTITION, Table, scan_pages
from perdure.actors._records import ARRIVAL_ROW, LETTER_CHANGE, OUTCOME, RecordFormat, RequestKind, Status
from perdure.storage import Store, keys

from tests.durability.rig.remains import FORMATS

NAMED: Final = Table, Kind, Form, RequestKind, Status
IN_PAYLOADS: Final[Mapping[Kind, RecordFormat[Any]]] = {
    Kind.OUTCOME: OUTCOME,
    Kind.REPLY: OUTCOME,
    Kind.REDRIVE: LETTER_CHANGE,
    Kind.DROP: LETTER_CHANGE,
    Kind.EDIT: LETTER_CHANGE,
}
FIELDS: Final = {
    found.__name__: list(found.__struct_fields__)
    for module in (_envelope, _failure, _records)
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, msgspec.Struct) and found.__module__ == module.__name__
}
ALL: Final = FIELDS.keys() | {str(member) for kind in NAMED for member in map(repr, kind)}


async def inventory(store: Store) -> set[str]:
    """The names of all that is in a store and its inbox. It is owned for that."""
    found = set[str]()
    async for page in scan_pages(store, keys.below((PARTITION,))):
        for entry in page:
            _, table, *rest = keys.unpack(entry.key)
            if isinstance(table, int):  # else it is the store's own
                found.add(repr(Table(table)))
                found.update(_parts(FORMATS[table].unpack(entry.value)) if table in FORMATS else ())
                found.update([repr(Status(int(str(rest[0]))))] if table == Table.STATUS else ())
    fence = await store.own(PARTITION)
    async with aclosing(store.watch(fence)) as watch:  # type: ignore[type-var]
        async for offers in watch:
            found.update(part for offer in offers for part in _parts(ARRIVAL_ROW.unpack(offer.payload)))
            if not offers:
                break
    await store.release(fence)
    return found


async def contents(store: Store, fields: Mapping[str, list[str]]) -> dict[str, str]:
    """A digest of each table's records: of the values of these fields of each type, by their names."""
    found = defaultdict[str, list[object]](list)
    async for page in scan_pages(store, keys.below((PARTITION,))):
        for entry in page:
            table = keys.unpack(entry.key)[1]
            if isinstance(table, int):
                value = FORMATS[table].unpack(entry.value) if table in FORMATS else entry.value
                found[Table(table).name].append([entry.key.hex(), _named(value, fields)])
    return {table: hashlib.blake2b(msgspec.json.encode(rows), digest_size=16).hexdigest() for table, rows in found.items()}


def _named(value: Any, fields: Mapping[str, list[str]]) -> object:
    match value:
        case msgspec.Struct():
            name = type(value).__name__
            return [name, *([field, _named(getattr(value, field), fields)] for field in fields[name])]
        case list() | tuple():
            return [_named(each, fields) for each in value]
        case _:
            return repr(value)


def _parts(value: Any) -> Iterator[str]:
    """The names of a record and of all that it has in it."""
    match value:
        case IntEnum():
            yield repr(value)
        case msgspec.Struct():
            yield type(value).__name__
            for name in value.__struct_fields__:
                yield from _parts(getattr(value, name))
            if isinstance(value, Envelope) and value.kind in IN_PAYLOADS:
                record: Any = IN_PAYLOADS[value.kind].unpack(value.payload)
                yield from _parts(record)
        case list() | tuple():
            for each in value:
                yield from _parts(each)
        case _:
            return
