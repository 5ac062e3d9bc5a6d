"""Parents and children: what becomes of a child that has failed, and of the children of an actor that has ended.

A parent has a row of each child, and a child's standing says whose it is; both have the id of the request that made the child, and the
number of its life. What does not agree with them is out of date, and is dropped: so whatever crosses on its way, each end of a child is
judged once.
"""

from __future__ import annotations

import logging
from typing import Final, final

import msgspec

from ._activation import Activation
from ._books import Books
from ._endings import Ended
from ._envelope import Envelope, Kind, Parent
from ._failure import Failure
from ._ids import ActorId, address_in
from ._mailbox import Item
from ._outcome_errors import ChildFailed
from ._records import OUTCOME, ChildRow, Outcome, Raised, Status, Value
from ._standing import StandingDraft
from ._supervision import Verdict, judge
from ._turn import Turn

logger = logging.getLogger("perdure.actors")


@final
class Families:
    """Judges over children, and parts from them."""

    __slots__ = ("_books",)

    def __init__(self, books: Books) -> None:
        self._books: Final = books

    # --- of the parent ---

    def hear(self, activation: Activation, item: Item, turn: Turn) -> Item | None:
        """A child has ended: judge. Returns the message as it is for the actor's code, or None where it is dealt with."""
        row = self._row(activation, item.envelope)
        if row is None:
            self._books.drop(activation, item, turn)
            self.disown(activation.actor, item.envelope)
            return None
        verdict = self._judge(activation, row, item.envelope, turn) if _is_to_be_judged(item.envelope) else None
        if verdict is not None and verdict.directive == "restart":
            self._renew(activation, item, verdict, turn)
            return None
        if verdict is not None and verdict.directive == "escalate":
            return item._replace(envelope=msgspec.structs.replace(item.envelope, kind=Kind.ESCALATE))
        if activation.definition.child_exit is not None:
            return item
        draft = StandingDraft(activation, self._books.epoch.commit.batch)
        self.dismiss(activation, draft, item.envelope)
        self._books.stay(activation, item, turn, draft.record())
        return None

    def dismiss(self, activation: Activation, draft: StandingDraft, envelope: Envelope) -> None:
        """A child's end has been heard of, and is for good."""
        row = self._row(activation, envelope)
        if row is None:
            return
        draft.drop_child(row.id)
        if envelope.name == Status.FAILED.name.lower():
            logger.warning("%s: its child %s/%s has failed for good", activation.actor, row.type, row.key)
        if _is_to_be_judged(envelope):
            self._tell_child(activation.actor, row, Kind.SETTLE)

    def disown(self, parent: ActorId, envelope: Envelope) -> None:
        """A child has ended that is none of this actor's: if its failure waits to be judged, nobody will, and it stays so."""
        if envelope.parent is not None and envelope.sender is not None and _is_to_be_judged(envelope):
            child = address_in(envelope.sender)
            self._books.send(parent, child, Kind.SETTLE, Kind.SETTLE.name.lower(), envelope.parent)

    def part(self, activation: Activation, draft: StandingDraft) -> None:
        """The parent's life has ended: so do its children, each as was said when it was spawned."""
        for row in list((activation.children or {}).values()):
            draft.drop_child(row.id)
            self._tell_child(activation.actor, row, row.on_close)

    def _row(self, activation: Activation, envelope: Envelope) -> ChildRow | None:
        parent = envelope.parent
        row = None if parent is None or activation.children is None else activation.children.get(parent.id)
        if row is None or parent is None:
            return None
        # A failure of an earlier life has been judged; any other end is for good, also where it has crossed the order to begin again.
        return row if row.life == parent.life or not _is_to_be_judged(envelope) else None

    def _judge(self, activation: Activation, row: ChildRow, envelope: Envelope, turn: Turn) -> Verdict:
        outcome, policy = OUTCOME.unpack(envelope.payload), activation.definition.supervise
        if policy is None or not isinstance(outcome, Raised):
            return Verdict("stop", [])
        return judge(policy, list((activation.children or {}).values()), row, outcome.failure.revive(), turn.time)

    def _renew(self, activation: Activation, item: Item, verdict: Verdict, turn: Turn) -> None:
        draft = StandingDraft(activation, self._books.epoch.commit.batch)
        for row in verdict.renewed:
            draft.put_child(row)
            self._tell_child(activation.actor, row, Kind.RENEW, verdict.due)
        self._books.stay(activation, item, turn, draft.record())
        first, *others = (f"{row.type}/{row.key}" for row in verdict.renewed)
        logger.warning(
            "%s: its child %s has failed and begins again%s", activation.actor, first, f", and {', '.join(others)}" * bool(others)
        )

    def _tell_child(self, parent: ActorId, row: ChildRow, kind: Kind, due: float = 0.0) -> None:
        link = Parent(parent.type, parent.key, row.id, row.on_close, row.supervised, row.life)
        reason = b"its parent has ended" if kind in {Kind.CANCEL, Kind.TERMINATE} else b""
        self._books.send(parent, ActorId(row.type, row.key), kind, kind.name.lower(), link, payload=reason, due=due)

    # --- of the child ---

    def is_judged(self, parent: Parent) -> bool:
        """Whether a failure is judged by the supervision of that parent, whose type this host serves."""
        return parent.supervised and self._books.epoch.registry.serves(parent.type)

    def tell_parent(self, child: ActorId, parent: Parent, ended: Ended) -> None:
        """Tell the parent how its child has ended; what the child returned is only for who asks for its result."""
        told = ended.outcome if isinstance(ended.outcome, Raised) else Value(b"")
        name = ended.status.name.lower()
        self._books.send(child, ActorId(parent.type, parent.key), Kind.CHILD_EXIT, name, parent, payload=OUTCOME.pack(told))

    def tell_refused(self, child: ActorId, spawned: Envelope, refused: Raised) -> None:
        """Tell the parent that its child could not begin: there is nothing to begin again."""
        if spawned.parent is not None:
            self.tell_parent(child, msgspec.structs.replace(spawned.parent, supervised=False), Ended(refused, Status.FAILED))


def _is_to_be_judged(envelope: Envelope) -> bool:
    """Whether the child waits for what its parent's supervision says of its failure."""
    return envelope.parent is not None and envelope.parent.supervised and envelope.name == Status.FAILED.name.lower()


def outcome_for(child: ActorId, parent: Parent | None, asker: tuple[str, str, bytes] | None, outcome: Outcome) -> Outcome:
    """A workflow's outcome as the actor that asks for it is told: to a parent, its child has failed."""
    if parent is None or asker is None or asker[:2] != (parent.type, parent.key) or not isinstance(outcome, Raised) or outcome.refused:
        return outcome
    failure = outcome.failure
    told = Failure.of(ChildFailed(child, ActorId(parent.type, parent.key), f"{failure.type_name}: {failure.text}"))
    return Raised(msgspec.structs.replace(told, cause=failure), refused=True)
