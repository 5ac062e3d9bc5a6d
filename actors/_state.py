"""State: which attributes of an actor are stored, and how they are taken from an instance and put into another.

Every attribute is state but those annotated Transient. What is put back is an instance that never saw `__init__`; where the stored state
refers to the actor itself, the new one is meant.
"""

from __future__ import annotations

import copyreg
import inspect
import re
import sys
import threading
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field
from functools import cached_property, partial
from typing import Any, ClassVar, Final, Protocol, TypeVar, final

import msgspec

from ._codec import PROTOCOL, Codec, MsgspecCodec, PickleCodec, narrowed, writer_of
from ._errors import DefinitionError, NotDeserializable, NotSerializable
from ._marks import TransientMark, Waits
from ._primitives import register_loaded

T = TypeVar("T")

_TOLERANT: Final = PickleCodec(placeholders=True)
_DEFAULTS: Final = "__perdure_defaults__"
_IS_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class made by a class statement; others keep data outside their attributes


class Layout(Protocol):
    """Where instances of a kind of class keep their attributes."""

    def blank(self) -> Any:
        """A new instance with no attribute set."""
        ...

    def attributes(self, instance: Any) -> dict[str, Any]:
        """The attributes that are set, by name; not to be changed."""
        ...

    def fill(self, instance: Any, attributes: dict[str, Any]) -> None:
        """Set attributes, past any `__setattr__`."""
        ...


@final
class DictLayout:
    """Plain classes, dataclasses and attrs classes without slots."""

    __slots__ = ("_cls",)

    def __init__(self, cls: type) -> None:
        self._cls: Final[type[Any]] = cls

    def blank(self) -> Any:
        """A new instance with no attribute set."""
        return object.__new__(self._cls)

    def attributes(self, instance: Any) -> dict[str, Any]:
        """The instance's own dict."""
        return instance.__dict__  # type: ignore[no-any-return]

    def fill(self, instance: Any, attributes: dict[str, Any]) -> None:
        """Set attributes, past any `__setattr__`."""
        instance.__dict__.update(attributes)


@final
class SlotsLayout:
    """The same with slots."""

    __slots__ = ("_cls",)

    def __init__(self, cls: type) -> None:
        self._cls: Final[type[Any]] = cls

    def blank(self) -> Any:
        """A new instance with no attribute set."""
        return object.__new__(self._cls)

    def attributes(self, instance: Any) -> dict[str, Any]:
        """What `object` itself would pickle: the dict, if there is one, and the slots that are set."""
        state: Any = object.__getstate__(instance)
        own, slots = state if isinstance(state, tuple) else (state, {})
        return {**(own or {}), **slots}

    def fill(self, instance: Any, attributes: dict[str, Any]) -> None:
        """Set attributes, past any `__setattr__`."""
        for name, value in attributes.items():
            object.__setattr__(instance, name, value)


@final
class StructLayout:
    """msgspec Structs."""

    def __init__(self, cls: type[msgspec.Struct]) -> None:
        self._cls: Final = cls

    @cached_property
    def _prototype(self) -> Any:
        return self._cls()

    def blank(self) -> Any:
        """A copy of one instance, emptied: msgspec has no other way past `__init__`."""
        instance = self._prototype.__copy__()
        for name in self._cls.__struct_fields__:
            if hasattr(instance, name) and not self._cls.__struct_config__.frozen:
                delattr(instance, name)
        return instance

    def attributes(self, instance: Any) -> dict[str, Any]:
        """The fields that are set."""
        return {name: getattr(instance, name) for name in self._cls.__struct_fields__ if hasattr(instance, name)}

    def fill(self, instance: Any, attributes: dict[str, Any]) -> None:
        """Set fields, of frozen Structs too."""
        for name, value in attributes.items():
            msgspec.structs.force_setattr(instance, name, value)


@final
class PydanticLayout:
    """pydantic models: their fields, and what pydantic keeps beside them."""

    __slots__ = ("_cls",)

    PRIVATE: ClassVar = "__pydantic_private__"
    _EXTRA: ClassVar = "__pydantic_extra__"
    _SET: ClassVar = "__pydantic_fields_set__"

    def __init__(self, cls: type) -> None:
        self._cls: Final[Any] = cls

    def blank(self) -> Any:
        """A new instance with no attribute set."""
        instance = object.__new__(self._cls)
        self.fill(instance, {})
        return instance

    def attributes(self, instance: Any) -> dict[str, Any]:
        """The fields, extra fields, private attributes and the names of the fields that were set."""
        extra, private = getattr(instance, self._EXTRA), getattr(instance, self.PRIVATE)
        fields_set = sorted(getattr(instance, self._SET))  # in order: equal states are equal bytes
        return {**instance.__dict__, self._SET: fields_set, self._EXTRA: extra, self.PRIVATE: private}

    def fill(self, instance: Any, attributes: dict[str, Any]) -> None:
        """Set all of these, past validation; private ones by their names, too, as a migration gives them."""
        fields = dict(attributes)
        extra, private = fields.pop(self._EXTRA, None), fields.pop(self.PRIVATE, None)
        named = {name: fields.pop(name) for name in self._cls.__private_attributes__ if name in fields}
        if extra is None and self._cls.model_config.get("extra") == "allow":
            extra = {}
        object.__setattr__(instance, self._SET, set(fields.pop(self._SET, ())))
        object.__setattr__(instance, self._EXTRA, extra)
        object.__setattr__(instance, self.PRIVATE, {**(private or {}), **named} if named else private)
        object.__setattr__(instance, "__dict__", fields)


class _Current(threading.local):
    """The actor whose state is being encoded or decoded on this thread."""

    instance: object = None


_current: Final = _Current()


def the_actor() -> object:
    """Found in stored states where they refer to their own actor; so neither this name nor its module's may change."""
    return _current.instance


def _reduced(instance: object) -> str | tuple[Any, ...]:
    return (the_actor, ()) if instance is _current.instance else instance.__reduce_ex__(PROTOCOL)


@final
class State:
    """How the state of one actor type is made, stored and brought back."""

    __slots__ = ("_annotations", "_cls", "_codec", "_defaults", "_fills_whole", "_layout", "_names_of_new", "transient")

    def __init__(self, cls: type, codec: Codec) -> None:
        _refuse_foreign_data(cls)
        self._cls: Final[type[Any]] = cls
        self._codec: Final = codec
        self.transient: Final = _transient_names(cls)
        self._defaults: Final = _defaults_of(cls)
        _refuse_required_arguments(cls, self.transient)
        self._layout: Final = _layout_of(cls)
        self._fills_whole: Final = isinstance(self._layout, PydanticLayout)
        self._annotations: Mapping[str, object] | None = None
        self._names_of_new: set[str] | None = None
        copyreg.pickle(cls, _reduced)  # looked up only when an instance itself is met within what is being pickled

    def create(self) -> Any:
        """A new instance with its defaults set and `__init__` called. Raises what that raises."""
        if not self._defaults:
            return self._cls()
        instance = object.__new__(self._cls)
        for name, make in self._defaults.items():
            object.__setattr__(instance, name, make())
        instance.__init__()
        return instance

    def encode(self, instance: Any) -> bytes:
        """All attributes but the transient ones, as bytes. Raises NotSerializable with the path, as in `self.lines[3].socket`."""
        register_loaded()
        attributes = self._layout.attributes(instance)
        if self.transient:
            attributes = {name: value for name, value in attributes.items() if name not in self.transient}
        return self._encoded(instance, attributes)

    def _encoded(self, instance: Any, attributes: dict[str, Any]) -> bytes:
        _current.instance = instance
        try:
            return self._codec.encode(attributes)
        except NotSerializable as error:
            raise narrowed(self._codec, error, ((f"self.{name}", value) for name, value in attributes.items())) from error
        finally:
            _current.instance = None

    def decode(self, data: bytes) -> Any:
        """A new instance with these attributes; transient ones are not set. Raises NotDeserializable."""
        instance = self._layout.blank()
        codec = writer_of(data, self._codec)  # a version with another codec may have written what this one replays
        _current.instance = instance
        try:
            attributes = codec.decode(data)
        finally:
            _current.instance = None
        if not isinstance(attributes, dict):
            raise NotDeserializable(codec.name, f"it is no state of {self._cls.__qualname__}")
        if isinstance(codec, MsgspecCodec):
            attributes = self._converted(attributes, codec)
        self._fill(instance, attributes)
        return instance

    def changed(self, data: bytes, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
        """Attributes stored by another version, changed and stored again; of lost classes, `change` gets placeholders.

        Raises NotDeserializable, NotSerializable, and what `change` raises: also where the class could not hold what comes of it.
        """
        codec = writer_of(data, self._codec)
        instance = self._layout.blank()
        _current.instance = instance
        try:
            attributes = (_TOLERANT if isinstance(codec, PickleCodec) else codec).decode(data)
            if not isinstance(attributes, dict):
                raise NotDeserializable(codec.name, f"it is no state of {self._cls.__qualname__}")
            changed = change(attributes)
            self._check_whole(changed)
            new = self._encoded(instance, changed)
        finally:
            _current.instance = None
        self.decode(new)
        return new

    def _check_whole(self, attributes: dict[str, Any]) -> None:
        """Raise ValueError where an attribute is left out that every new actor has: its code would look for it in vain.

        `__init__` is called only where something may be missing: it may take from the world what a stored actor never asked for. Where it
        makes no actor of this one, nothing can be missed.
        """
        has = _names(attributes)
        if self._names_of_new is not None and has.issuperset(self._names_of_new):
            return
        try:
            of_new = _names(self._layout.attributes(self.create())) - self.transient
        except Exception:  # noqa: BLE001  it runs the user's code
            return
        self._names_of_new = of_new
        missing = sorted(of_new - has)
        if missing:
            raise ValueError(
                f"it leaves out {', '.join(missing)}, which every new actor has: say what it is, as in state[{missing[0]!r}] = …"
            )

    def mend(self, instance: Any, data: bytes) -> list[str]:
        """Make a rebuilt instance agree with the stored attributes; returns the paths of what was set. Raises StateDiffers."""
        from ._comparison import reconcile  # 6 ms, for what most processes never need

        stored = self.decode(data)
        rebuilt = {name: value for name, value in self._layout.attributes(instance).items() if name not in self.transient}
        set_one = partial(self._set, instance)
        return reconcile(rebuilt, self._layout.attributes(stored), set_one, actors=(instance, stored))

    def _set(self, instance: Any, name: str, value: object) -> None:
        self._layout.fill(instance, {**self._layout.attributes(instance), name: value} if self._fills_whole else {name: value})

    def _fill(self, instance: Any, attributes: dict[str, Any]) -> None:
        try:
            self._layout.fill(instance, attributes)
        except (AttributeError, TypeError) as error:
            raise NotDeserializable(self._codec.name, f"{self._cls.__qualname__} cannot hold it: {error}") from error

    def _converted(self, attributes: dict[str, Any], codec: MsgspecCodec) -> dict[str, Any]:
        try:
            if self._annotations is None:
                self._annotations = typing.get_type_hints(self._cls, include_extras=True)
            types = self._annotations
            return {name: codec.convert(value, types.get(name, Any)) for name, value in attributes.items()}
        except (msgspec.ValidationError, TypeError, NameError) as error:
            raise NotDeserializable(codec.name, f"state of {self._cls.__qualname__}: {error}") from error


def _names(attributes: dict[str, Any]) -> set[str]:
    """The names of attributes, with those that pydantic keeps apart."""
    names = {*attributes, *(attributes.get(PydanticLayout.PRIVATE) or ())}
    return {name for name in names if not name.startswith("__")}


def _layout_of(cls: type) -> Layout:
    if issubclass(cls, msgspec.Struct):
        return StructLayout(cls)
    if hasattr(cls, "__pydantic_fields_set__"):
        return PydanticLayout(cls)
    return SlotsLayout(cls) if any(vars(base).get("__slots__") for base in cls.__mro__) else DictLayout(cls)


def _refuse_foreign_data(cls: type) -> None:
    """A list's items or an exception's arguments are no attributes: they would be lost in silence."""
    for base in cls.__mro__[:-1]:
        if not base.__flags__ & _IS_HEAP_TYPE and not issubclass(cls, msgspec.Struct):
            raise DefinitionError(
                cls.__qualname__,
                f"an actor's state is its attributes, and a {base.__name__} keeps data beside them",
                f"Keep a {base.__name__} in an attribute: self.data = {base.__name__}(…).",
            )


def _refuse_required_arguments(cls: type, transient: frozenset[str]) -> None:
    if inspect.isabstract(cls):
        raise DefinitionError(cls.__qualname__, "it is abstract", f"Define {', '.join(sorted(getattr(cls, '__abstractmethods__', ())))}.")
    required = [
        parameter.name
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.default is parameter.empty and parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    ]
    if not required:
        return
    cure = "Give each a default: an actor is made by its first message, which carries no arguments for __init__."
    if transient.issuperset(required):
        cure = f"Keep what is transient out of it: {required[0]}: Transient[…] = field(init=False)."
    raise DefinitionError(cls.__qualname__, f"__init__ requires {', '.join(required)}", cure)


def _annotations_of(cls: type) -> Mapping[str, object]:
    """The annotations of one class, evaluated if they all can be, else as they were written."""
    try:
        return inspect.get_annotations(cls, eval_str=True)
    except Exception:  # noqa: BLE001  evaluating runs the user's code; forward references are normal
        return _unevaluated(cls)


def _unevaluated(cls: type) -> Mapping[str, object]:
    if sys.version_info >= (3, 14):
        from annotationlib import Format, get_annotations

        return get_annotations(cls, format=Format.FORWARDREF)
    return inspect.get_annotations(cls)


def _is_written(annotation: object, word: str) -> bool:
    return isinstance(annotation, str) and re.match(rf"([\w.]+\.)?{word}\b", annotation) is not None


def _is_transient(annotation: object) -> bool:
    marks = getattr(annotation, "__metadata__", ())
    return any(isinstance(mark, TransientMark) for mark in marks) or _is_written(annotation, "Transient")


def _is_class_variable(annotation: object) -> bool:
    return annotation is ClassVar or typing.get_origin(annotation) is ClassVar or _is_written(annotation, "ClassVar")


def _transient_names(cls: type) -> frozenset[str]:
    is_transient: dict[str, bool] = {}
    for base in reversed(cls.__mro__):
        is_transient.update((name, _is_transient(annotation)) for name, annotation in _annotations_of(base).items())
    return frozenset(name for name, transient in is_transient.items() if transient)


def _defaults_of(cls: type) -> dict[str, Callable[[], object]]:
    """The defaults of annotated class attributes, where no dataclass or the like sees to them, base classes' first."""
    if issubclass(cls, msgspec.Struct) or isinstance(_layout_of(cls), PydanticLayout):
        return {}
    defaults: dict[str, Callable[[], object]] = {}
    for base in reversed(cls.__mro__[:-1]):
        if not {"__dataclass_fields__", "__attrs_attrs__"} & vars(base).keys():
            defaults.update(_own_defaults(base))
    return defaults


def _own_defaults(cls: type) -> Mapping[str, Callable[[], object]]:
    """The defaults of one plain class. As in a dataclass, `field(…)` objects then give way to what they say."""
    known: Mapping[str, Callable[[], object]] | None = vars(cls).get(_DEFAULTS)
    if known is None:
        known = dict(_declared_defaults(cls))
        if known:
            setattr(cls, _DEFAULTS, known)
    return known


def _declared_defaults(cls: type) -> Iterator[tuple[str, Callable[[], object]]]:
    for name, annotation in _annotations_of(cls).items():
        if name not in vars(cls) or _is_class_variable(annotation):
            continue
        default = vars(cls)[name]
        if isinstance(default, Field):
            factory, default = default.default_factory, default.default
            delattr(cls, name)
            if factory is not MISSING:
                yield name, factory
            if default is MISSING:
                continue
            setattr(cls, name, default)
        if isinstance(default, Waits) or inspect.isdatadescriptor(default):
            continue
        _refuse_mutable(cls, name, default)
        yield name, partial(_itself, default)


def _itself(value: T) -> T:
    return value


def _refuse_mutable(cls: type, name: str, default: object) -> None:
    if type(default).__hash__ is None:
        kind = type(default).__name__
        raise DefinitionError(
            f"{cls.__qualname__}.{name}",
            f"its default is a {kind}, which all actors of the type would share",
            f"Make one for each:\n"
            f"    {name}: {kind} = {default!r}   # what was written\n"
            f"    {name}: {kind} = field(default_factory={kind})   # what was meant; from dataclasses import field",
        )
