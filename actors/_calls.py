"""Calls: the arguments of one handler, checked against its signature, as bytes and back.

A call that does not fit is refused by WrongArguments before anything is stored; the same arguments make the same bytes, however they were
passed. In the store a call is a tuple of positional arguments, or a list of those and the keywords; in JSON an array is positional, an
object is by name.
"""

from __future__ import annotations

import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from inspect import Parameter
from itertools import chain, islice, repeat
from typing import Any, Final, final

import msgspec

from ._codec import Codec, MsgspecCodec, narrowed, writer_of
from ._digest import digest
from ._envelope import Form
from ._errors import NotDeserializable, NotSerializable, WrongArguments

Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # positional and by keyword: the codec's edge
Annotations = Callable[[], Mapping[str, object]]

LONG: Final = 1 << 16  # bytes of arguments, of which a repr would cost more than a walk: of 64 MiB, two seconds
SCALARS: Final = frozenset({int, str, bool, float, bytes, type(None)})  # whose repr says all

_NEVER: Final = 1 << 30  # more arguments than any call has


class Call:
    """What one name of an actor type can be called with, and how such a call is stored."""

    def __init__(self, label: str, name: str, signature: inspect.Signature, annotations: Annotations, codec: Codec) -> None:
        self.label: Final = label  # with the type's name, for error texts
        self.name: Final = name
        self.signature: Final = signature
        self.codec: Final = codec
        self._annotations: Final = annotations  # called when first needed: they may name classes that are defined later
        self._encode: Final = codec.encode
        self._fewest, self._most = _positional_range(signature)

    def encode_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """The arguments as bytes. Raises WrongArguments if they do not fit, NotSerializable with the argument's name."""
        if kwargs or not self._fewest <= len(args) <= self._most:
            return self._encode_bound(args, kwargs)
        try:
            return self._encode(args)
        except NotSerializable as error:
            raise narrowed(self.codec, error, self._named(args)) from error

    def decode(self, payload: bytes, form: Form) -> Arguments:
        """New arguments, whoever has encoded them. Raises as `decode_call` and `decode_json` do."""
        return self.decode_json(payload) if form is Form.JSON else self.decode_call(payload)

    def decode_call(self, payload: bytes) -> Arguments:
        """New arguments, as encoded by `encode_call`. Raises NotDeserializable, or WrongArguments where the signature has changed since."""
        codec = writer_of(payload, self.codec)  # a version with another codec may have sent it
        call = codec.decode(payload)
        if isinstance(codec, MsgspecCodec):
            return self._converted(call, codec.is_json)
        if isinstance(call, tuple):
            return (call, {}) if self._fewest <= len(call) <= self._most else self._bound(call, {})
        if isinstance(call, list) and len(call) == 2:
            return self._bound(*call)
        raise NotDeserializable(codec.name, f"it is no call of {self.label}")

    def decode_json(self, payload: bytes) -> Arguments:
        """Arguments from a JSON array (positional) or object (by name), converted to the annotations. Raises WrongArguments."""
        if self.schema is None:
            raise self.refused("its arguments have no JSON form, so it cannot be called by name with JSON")
        try:
            call = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self.refused(f"that is not JSON ({error})") from error
        return self._converted(call, is_json=True)

    def refused(self, problem: str) -> WrongArguments:
        """The error for a call that does not fit."""
        return WrongArguments(self.label, _shown(self.signature), problem)

    @cached_property
    def schema(self) -> dict[str, Any] | None:
        """The JSON schema of the arguments as an object, or None where msgspec can make none: such a handler is opaque."""
        try:
            (reference,), components = msgspec.json.schema_components([self._by_name])
        except Exception:  # noqa: BLE001  evaluating annotations and describing their types runs the user's code
            return None
        schema: dict[str, Any] = components.pop(reference["$ref"].rpartition("/")[2])
        for parameter in self.signature.parameters.values():
            if isinstance(parameter.default, str | int | float | None):
                schema["properties"][parameter.name]["default"] = parameter.default
            if parameter.kind is Parameter.VAR_KEYWORD:
                schema["additionalProperties"] = True
            elif parameter.kind is Parameter.VAR_POSITIONAL:
                schema["properties"][parameter.name]["x-rest"] = True  # it takes what is left of an array of arguments
        return {**schema, "$defs": components} if components else schema

    @cached_property
    def _by_name(self) -> type[msgspec.Struct]:
        fields: list[Any] = []
        for parameter in self.signature.parameters.values():
            wanted: Any = self._type_of(parameter)
            if parameter.kind is Parameter.VAR_KEYWORD:
                continue
            if parameter.kind is Parameter.VAR_POSITIONAL:
                fields.append((parameter.name, list[wanted] | msgspec.UnsetType, msgspec.UNSET))
            elif parameter.default is Parameter.empty:
                fields.append((parameter.name, wanted))
            else:
                fields.append((parameter.name, wanted | msgspec.UnsetType, msgspec.UNSET))
        return msgspec.defstruct(self.name, fields, kw_only=True, forbid_unknown_fields=True)

    def _type_of(self, parameter: Parameter) -> object:
        return self._annotations().get(parameter.name, Any)

    def _encode_value(self, value: object, label: str) -> bytes:
        try:
            return self._encode(value)
        except NotSerializable as error:
            raise error.within(label) from error

    def _decode_value(self, data: bytes, annotation: str) -> Any:
        codec = writer_of(data, self.codec)
        if not isinstance(codec, MsgspecCodec):
            return codec.decode(data)
        return codec.decode(data, self._annotations().get(annotation, Any))

    def _encode_bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise self.refused(str(error)) from error
        try:
            return self._encode(self._stored(bound))
        except NotSerializable as error:
            raise narrowed(self.codec, error, bound.arguments.items()) from error

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Arguments that fitted once, if they still do."""
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise self.refused(str(error)) from error
        return args, kwargs

    def _stored(self, bound: inspect.BoundArguments) -> object:
        if not bound.kwargs:
            return bound.args
        if not isinstance(self.codec, MsgspecCodec):
            return [bound.args, bound.kwargs]
        by_name = dict(bound.arguments)
        for parameter in self.signature.parameters.values():
            if parameter.kind is Parameter.VAR_KEYWORD:
                by_name.update(by_name.pop(parameter.name, {}))
        return by_name

    def _named(self, args: tuple[Any, ...]) -> Iterable[tuple[str, object]]:
        return self.signature.bind(*args).arguments.items()

    def _converted(self, call: object, is_json: bool) -> Arguments:
        """Plain data as arguments of the annotated types."""
        try:
            if isinstance(call, list):
                return self._from_array(call, is_json)
            if isinstance(call, dict):
                return self._from_object(call, is_json)
        except (msgspec.ValidationError, TypeError, NameError) as error:
            raise self.refused(str(error)) from error
        raise self.refused("arguments are an array or an object")

    def _from_array(self, values: list[Any], is_json: bool) -> Arguments:
        self.signature.bind(*values)
        types = (self._type_of(parameter) for parameter in self._positional(len(values)))
        converted: tuple[Any, ...] = msgspec.convert(values, tuple.__class_getitem__(tuple(types)), str_keys=is_json)
        return converted, {}

    def _positional(self, count: int) -> Iterable[Parameter]:
        """The parameters that take so many positional arguments: *args as often as need be."""
        parameters = list(self.signature.parameters.values())
        rest = next((parameter for parameter in parameters if parameter.kind is Parameter.VAR_POSITIONAL), None)
        named = parameters.index(rest) if rest else count
        return islice(chain(parameters[:named], repeat(rest) if rest else ()), count)

    def _from_object(self, values: dict[str, Any], is_json: bool) -> Arguments:
        parameters = self.signature.parameters
        rest = next((parameter for parameter in parameters.values() if parameter.kind is Parameter.VAR_KEYWORD), None)
        named = {name: value for name, value in values.items() if not rest or (name in parameters and name != rest.name)}
        given = msgspec.convert(named, self._by_name, str_keys=is_json)
        arguments = {name: getattr(given, name) for name in given.__struct_fields__ if getattr(given, name) is not msgspec.UNSET}
        if rest:
            unnamed = [name for name in values if name not in named]
            arguments[rest.name] = {name: msgspec.convert(values[name], self._type_of(rest), str_keys=is_json) for name in unnamed}
        bound = inspect.BoundArguments(self.signature, OrderedDict((name, arguments[name]) for name in parameters if name in arguments))
        self.signature.bind(*bound.args, **bound.kwargs)
        return bound.args, bound.kwargs


def digest_of_call(args: tuple[Any, ...], kwargs: Mapping[str, Any], size: int) -> bytes:
    """What tells two calls of one function apart; empty where the arguments cannot be taken apart: then only their order does.

    `size`: bytes of the arguments' encoding, about.
    """
    if size < LONG and not kwargs and all(type(argument) in SCALARS for argument in args):
        return hashlib.blake2b(repr(args).encode(errors="surrogatepass"), digest_size=16).digest()  # type and value, in a fifth of the time
    try:
        return digest((args, dict(kwargs)) if kwargs else args)
    except (RecursionError, TypeError, AttributeError):
        return b""


def method_signature(function: Callable[..., object]) -> inspect.Signature:
    """The signature of a method as its caller sees it: without self."""
    signature = inspect.signature(function)
    first, *others = signature.parameters.values()
    return signature if first.kind is Parameter.VAR_POSITIONAL else signature.replace(parameters=others)


def _positional_range(signature: inspect.Signature) -> tuple[int, int]:
    """How few and how many arguments make a good call without keywords; none does where a keyword is required."""
    fewest = most = 0
    for parameter in signature.parameters.values():
        required = parameter.default is Parameter.empty
        if parameter.kind in {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD}:
            fewest += required
            most += 1
        elif parameter.kind is Parameter.VAR_POSITIONAL:
            most = _NEVER
        elif parameter.kind is Parameter.KEYWORD_ONLY and required:
            return _NEVER, _NEVER
    return fewest, most


@final
class _Text(str):
    """An annotation as it was written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _shown(signature: inspect.Signature) -> str:
    """What a call takes, as its author wrote it: annotations that are kept as text are not quoted."""
    given = [
        each.replace(annotation=_Text(each.annotation)) if isinstance(each.annotation, str) else each
        for each in signature.parameters.values()
    ]
    return str(signature.replace(parameters=given, return_annotation=inspect.Signature.empty))
