"""Children: workflows that an actor begins with its turn, and that share its end as was said when they were begun.

A child exists if and only if the turn that spawned it does. What becomes of it reaches its parent as a message, once for each of its ends.
"""

from __future__ import annotations

from typing import Final, Literal, ParamSpec, TypeVar, final

from ._calls import digest_of_call
from ._coroutines import current_turn
from ._envelope import ON_PARENT_CLOSE, Kind
from ._ids import actor_id
from ._marks import Workflow
from ._ref import WorkflowRef, child_ref

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")

OnParentClose = Literal["cancel", "abandon", "terminate"]


@final
class Spawner:
    """What `spawn` is: call it, or take another one with `options`."""

    __module__ = "perdure.actors"
    __slots__ = ("_on_close",)

    def __init__(self, on_close: Kind = Kind.CANCEL) -> None:
        self._on_close: Final = on_close

    def __repr__(self) -> str:
        return f"<spawn, and on its parent's end {self._on_close.name.lower()}>"

    def __call__(self, run: Workflow[A, P, R], key: str | None, /, *args: P.args, **kwargs: P.kwargs) -> WorkflowRef[A, R]:
        """Begin a child's workflow with this turn; returns its reference at once.

        Without a key it gets one made of its parent's. A key whose actor has ended begins a new life there; one whose actor is at work is
        no child: ChildFailed, from WorkflowAlreadyStarted. Raises UnknownActorType, WrongArguments, NotSerializable, KeyTooLong, InvalidKey
        at the call; NotInActor outside an actor; NotDurable in a query.
        """
        turn = current_turn("spawn()")
        definition = turn.surroundings.registry.of_workflow(run)
        handler = definition.require_workflow()
        if key is not None:
            actor_id(definition.name, key)
        payload = handler.encode_call(args, kwargs)
        digest = digest_of_call(args, kwargs, len(payload))
        child, request = turn.spawn(handler, definition.name, key, payload, digest, self._on_close)
        return child_ref(child, turn.actor, request)

    def options(self, *, on_parent_close: OnParentClose = "cancel") -> Spawner:
        """What becomes of the child when its parent ends, in whatever way: "cancel" it, "terminate" it, or "abandon" it to go on alone.

        `continue_as_new` is no end: children are kept. Raises ValueError for anything else.
        """
        if on_parent_close not in ON_PARENT_CLOSE:
            raise ValueError(f"on_parent_close={on_parent_close!r} is none of {', '.join(map(repr, ON_PARENT_CLOSE))}")
        return Spawner(ON_PARENT_CLOSE[on_parent_close])


spawn: Final = Spawner()
