"""Commands that help, as they can be typed."""

from __future__ import annotations

from collections.abc import Iterable
from shlex import quote
from typing import Any, Final, cast

import msgspec

from .._errors import shell_form
from .._ids import ActorId
from .._registry import RegistryEntry

_PLACEHOLDERS: Final[dict[str, object]] = {"string": "…", "integer": 0, "number": 0.0, "boolean": True, "array": [], "object": {}}


def retry(actor: ActorId) -> str:
    """Let a quarantined actor go on."""
    return f"perdure retry {shell_form(str(actor))}"


def explain(actor: ActorId) -> str:
    """Ask the same of another actor."""
    return f"perdure explain {shell_form(str(actor))}"


def show(actor: ActorId) -> str:
    """All of an actor, with its state."""
    return f"perdure show {shell_form(str(actor))}"


def terminate(actor: ActorId) -> str:
    """End an actor."""
    return f"perdure terminate {shell_form(str(actor))}"


def see_letter(actor: ActorId, seq: int) -> str:
    """Look at a dead letter."""
    return f"perdure dead-letters show {shell_form(str(actor))} {seq}"


def redrive(actor: ActorId) -> str:
    """Put the dead letters of an actor back."""
    return f"perdure dead-letters redrive {shell_form(str(actor))}"


def run(store: str) -> str:
    """Start a host."""
    return f"perdure run MODULE --store {quote(store)}"


def send_signal(actor: ActorId, name: str, types: Iterable[RegistryEntry]) -> str | None:
    """Send a declared signal, with its arguments in outline; None if it has no form in JSON, so that only a program can send it."""
    found = [signal for entry in types if entry.name == actor.type for signal in entry.signals if signal.name == name]
    schema = found[-1].schema if found else None  # of the newest version
    if schema is None:
        return None
    outline = _outline(msgspec.json.decode(schema))
    return f"perdure signal {shell_form(str(actor))} {quote(name)}{outline and ' ' + quote(outline)}"


def _outline(schema: dict[str, Any]) -> str:
    """The arguments that must be there, as a JSON array."""
    required = cast("list[str]", schema.get("required", []))
    values = [_PLACEHOLDERS.get(described.get("type", ""), "…") for name, described in schema["properties"].items() if name in required]
    return msgspec.json.encode(values).decode() if values else ""
