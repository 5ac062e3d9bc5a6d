"""Lives: how a workflow begins, and how an actor's life ends: for good, in another life, or held until its parent has spoken.

Whoever waits for the outcome of a workflow is told once, when it has ended for good.
"""

from __future__ import annotations

from functools import partial
from typing import Final, assert_never, final

import msgspec

from ..storage import PerdureError
from ._activation import Activation
from ._books import Books
from ._define import Definition
from ._digest import digest
from ._endings import Continued, Ended, Ending, LifeEnd, Renewed
from ._envelope import Awaiter, Envelope, Form, Kind, Parent
from ._errors import ActorCompleted, ActorNotFound
from ._failure import Failure
from ._families import Families, outcome_for
from ._ids import ActorId, Incarnation, MessageId, continued, first_incarnation, life_of, renewed, sent_id
from ._mailbox import Item
from ._outcome_errors import ActorCancelled, WorkflowAlreadyStarted, WorkflowNotStarted
from ._persistence import delete_quarantine
from ._records import Outcome, Raised, Run, Standing, Status, Value, refusal
from ._standing import StandingDraft
from ._telling import resolve
from ._turn import Turn


@final
class Lives:
    """Begins and ends lives."""

    __slots__ = ("_books", "families")

    def __init__(self, books: Books) -> None:
        self._books: Final = books
        self.families: Final = Families(books)

    # --- beginnings ---

    def note_beginning(self, activation: Activation, draft: StandingDraft, envelope: Envelope) -> None:
        """The workflow begins with a message."""
        parent = draft.parent if envelope.kind is Kind.CONTINUE else envelope.parent
        call = (envelope.payload, envelope.form) if parent is not None and parent.supervised else None
        if envelope.kind is Kind.CONTINUE and draft.run is not None:
            draft.run = msgspec.structs.replace(draft.run, call=call)
        else:
            awaiters = draft.run.awaiters if draft.run is not None else []
            draft.run = Run(arguments_digest(activation.definition, envelope), None, awaiters, call)
        draft.parent = parent

    def begins(self, activation: Activation, item: Item, turn: Turn) -> bool:
        """Whether the actor's code is to begin its workflow with a message; if not, whoever sent it is told."""
        kind, run = item.envelope.kind, activation.standing.run
        if run is None or kind is Kind.CONTINUE:
            return True
        if kind is Kind.SPAWN:
            return self._begins_child(activation, item, turn)
        if kind is Kind.RESTART:
            self._restart(activation, item.envelope)
            return True
        outcome: Outcome = Value(b"")
        same = run.arguments == arguments_digest(activation.definition, item.envelope)
        if kind is Kind.START_NEW or not same:
            outcome = refusal(_taken(activation, differs=not same))
        self._books.skip(activation, item, turn)
        self._books.telling.conclude(activation, item.seq, item.envelope, outcome)
        return False

    def _begins_child(self, activation: Activation, item: Item, turn: Turn) -> bool:
        """A child may begin where an actor has ended; where one is about to end, as soon as it has."""
        if activation.status.is_end:
            self._restart(activation, item.envelope)
            return True
        standing = activation.standing
        is_ending = activation.coroutines is not None and activation.coroutines.is_ending
        if is_ending and standing.successor is None:
            self._books.stay(activation, item, turn, msgspec.structs.replace(standing, successor=item.envelope))
            return False
        self._books.skip(activation, item, turn)
        self._refuse_child(activation, item.envelope)
        return False

    def _not_the_child(self, activation: Activation, envelope: Envelope) -> Outcome:
        """The outcome of a child that could not begin, since its key was taken, that somebody else has begun anew, or that is gone."""
        gone = activation.standing.run is None  # deleted, or its retention has passed: what it came to is not known any more
        failed = Raised(Failure.of(ActorCompleted(activation.actor) if gone else _taken(activation)))
        parent = None if envelope.asker is None else Parent(*envelope.asker[:2], MessageId(envelope.payload), Kind.CANCEL)
        return outcome_for(activation.actor, parent, envelope.asker, failed)

    def _refuse_child(self, activation: Activation, envelope: Envelope) -> None:
        self.families.tell_refused(activation.actor, envelope, refusal(_taken(activation)))

    def _restart(self, activation: Activation, envelope: Envelope) -> None:
        """End this life, whatever it is at, for one that a message begins: with nothing but the messages and signals that wait."""
        snapshot = activation.snapshot
        assert snapshot is not None
        ended = Ended(refusal(ActorCancelled(activation.actor, "it was started anew")), Status.CANCELLED)
        draft = self._leave(activation, ended, snapshot.updated)
        parent, draft.parent = draft.parent, None
        if parent is not None and not snapshot.status.is_end:
            self.families.tell_parent(activation.actor, parent, ended)
        if draft.successor is not None:
            self._refuse_child(activation, draft.successor)
        awaiters = draft.run.awaiters if draft.run is not None else []
        draft.run = draft.successor = None
        self._start_over(activation, draft, first_incarnation(activation.actor, envelope.id))
        self._tell_awaiters(activation, None, awaiters, ended.outcome)

    def _start_over(self, activation: Activation, draft: StandingDraft, incarnation: Incarnation) -> None:
        """Another life, with a fresh state; the calls of signal handlers that came while none could be made are made in it."""
        deferred = draft.take_deferred()
        activation.restart(incarnation, draft.record())
        activation.definition = self._books.epoch.registry.require(activation.actor.type)
        assert activation.mailbox is not None
        for signal in deferred:
            activation.mailbox.append(signal.envelope)
        self._books.touch(activation, 100)

    # --- ends ---

    def end(self, activation: Activation, end: LifeEnd, turn: Turn) -> None:
        """The life has ended with a turn, which is in the snapshot already."""
        match end:
            case Ended():
                self.end_for_good(activation, end, turn.time)
            case Continued(payload):
                self._continue(activation, payload, Form.CODEC, continued(turn.incarnation), turn)
            case Renewed(due):
                self._set_renewal(activation, due)
                self._renew_if_due(activation, turn)
            case _ as never:
                assert_never(never)

    def end_for_good(self, activation: Activation, ended: Ended, now: float) -> None:
        """Nothing of the actor goes on but what its parent may begin again; whoever waits for the outcome is told."""
        draft = self._leave(activation, ended, now)
        run, parent = draft.run or Run(b""), draft.parent
        if parent is not None:
            self.families.tell_parent(activation.actor, parent, ended)
            if self.families.is_judged(parent) and ended.status is Status.FAILED and draft.run is not None:
                draft.run = msgspec.structs.replace(run, outcome=ended.outcome, held=True, again=None)
                activation.settle(Status.IDLE, draft.record(), now)
                self._books.touch(activation, 100)
                return
        self._settle(activation, draft, run, ended, now)

    def _leave(self, activation: Activation, ended: Ended, now: float) -> StandingDraft:
        """What every end of a life does: coroutines, timers and requests go, and its children are parted from."""
        handled = activation.handled if activation.coroutines is None else activation.coroutines.handled
        activation.handled = None
        self._books.give_up_all(activation)
        draft = StandingDraft(activation, self._books.epoch.commit.batch)
        draft.forget_log()
        draft.timers = []
        draft.retire = None
        self.families.part(activation, draft)
        activation.forget_instance()
        if handled is not None:
            outcome = ended.outcome if isinstance(ended.outcome, Raised) else refusal(ActorCancelled(activation.actor))
            self._books.end_handler(activation, Ending(*handled, outcome, partly=True), now)
        return draft

    def _settle(self, activation: Activation, draft: StandingDraft, run: Run, ended: Ended, now: float) -> None:
        draft.run = Run(run.arguments, ended.outcome)
        retention = activation.definition.retention
        draft.retire = None if retention is None else max(now, self._books.epoch.clock.now()) + retention
        successor, draft.successor = draft.successor, None
        signals = draft.drop_signals() if successor is None else []  # as in any life that follows another, they are kept
        activation.settle(ended.status, draft.record(), now)
        self._books.touch(activation, draft.size + 100)
        its_own = [awaiter for awaiter in run.awaiters if not _is_for_successor(awaiter, successor)]
        self._tell_awaiters(activation, draft, its_own, ended.outcome)
        for signal in signals:
            self._books.turn_away(activation, signal.seq, signal.envelope, now)
        if successor is not None and activation.mailbox is not None:
            activation.mailbox.append(successor)
            for awaiter in run.awaiters:
                if awaiter not in its_own:
                    self._books.post(activation, Kind.RESULT, "result", now, payload=awaiter.spawned, asker=awaiter.asker)
        self._books.tell_readers(activation)

    def _tell_awaiters(self, activation: Activation, draft: StandingDraft | None, awaiters: list[Awaiter], outcome: Outcome) -> None:
        parent = None if draft is None else draft.parent
        for awaiter in awaiters:
            told = outcome_for(activation.actor, parent, awaiter.asker, outcome)
            self._books.telling.tell(activation.actor, awaiter, told)
        for future in self._books.epoch.awaiting.pop(activation.actor, ()):
            activation.gate.when_open(partial(resolve, future, outcome))

    def _continue(self, activation: Activation, payload: bytes, form: Form, incarnation: Incarnation, turn: Turn) -> None:
        """Begin the workflow's next life with a message of its own, the first that this life takes."""
        envelope = Envelope(
            id=sent_id(turn.incarnation, turn.number, len(turn.effects)),
            kind=Kind.CONTINUE,
            name=activation.definition.require_workflow().name,
            payload=payload,
            form=form,
            sender=str(activation.actor),
            headers=turn.onward,
            sent_at=turn.time,
        )
        activation.begin_life(incarnation)
        assert activation.mailbox is not None
        activation.mailbox.append(envelope)
        self._books.touch(activation, len(payload) + 100)

    # --- what a parent says ---

    def renew(self, activation: Activation, item: Item, turn: Turn) -> bool:
        """The workflow is to begin again. Returns False if its code has to be asked to end first."""
        envelope, standing = item.envelope, activation.standing
        parent, run = standing.parent, standing.run
        if envelope.parent is None:  # its time has come
            if run is None or run.again != envelope.due:
                self._books.drop(activation, item, turn)
                return True
        else:
            if parent is None or run is None or parent.id != envelope.parent.id or envelope.parent.life <= parent.life:
                self._books.drop(activation, item, turn)
                self._tell_successor(activation, envelope.parent, envelope.kind)
                return True
            if activation.status.is_end:
                self._books.drop(activation, item, turn)
                return True
            if not standing.is_waiting:
                return False  # and the turn says whose child it is now
            activation.rearm(msgspec.structs.replace(standing, parent=envelope.parent))
        self._books.skip(activation, item, turn)
        self._set_renewal(activation, envelope.due)
        self._renew_if_due(activation, turn)
        return True

    def _set_renewal(self, activation: Activation, due: float) -> None:
        """Note when the workflow begins again: it is held no more."""
        standing = activation.standing
        run = standing.run
        assert run is not None
        run = msgspec.structs.replace(run, held=False, again=due)
        activation.rearm(msgspec.structs.replace(standing, run=run))
        self._books.touch(activation, 100)

    def _renew_if_due(self, activation: Activation, turn: Turn) -> None:
        """Begin again with a fresh state, from the arguments, in another life."""
        run = activation.standing.run
        assert run is not None
        assert run.again is not None
        if run.again > turn.time:
            self._books.set_alarm(activation)
            return
        assert run.call is not None
        draft = self._leave(activation, Ended(refusal(ActorCancelled(activation.actor, "it begins again")), Status.CANCELLED), turn.time)
        draft.run = msgspec.structs.replace(run, outcome=None, held=False, again=None)
        again = renewed(turn.incarnation)
        self._continue(activation, *run.call, again, turn)
        self._start_over(activation, draft, again)

    def be_settled(self, activation: Activation, envelope: Envelope, now: float) -> None:
        """The parent says that the failure stays as it is."""
        parent = activation.standing.parent
        if parent is not None and envelope.parent is not None and (parent.id, parent.life) == (envelope.parent.id, envelope.parent.life):
            self.settle_failure(activation, now)

    def settle_failure(self, activation: Activation, now: float) -> None:
        """What has failed stays so: its parent does not begin it again."""
        run = activation.standing.run
        if run is None or not activation.standing.is_waiting:
            return
        ended = Ended(refusal(ActorCancelled(activation.actor, "it was to begin again")), Status.CANCELLED)
        if run.outcome is not None:
            ended = Ended(run.outcome, Status.FAILED)
        self._settle(activation, StandingDraft(activation, self._books.epoch.commit.batch), run, ended, now)

    def orphan(self, activation: Activation, envelope: Envelope, now: float) -> bool:
        """The parent that sends this has ended. Returns whether it was the actor's parent; then it is that no more.

        What the actor has failed with is not judged any more: it stays so.
        """
        parent = activation.standing.parent
        if envelope.parent is None or parent is None or parent.id != envelope.parent.id:
            if envelope.parent is not None:
                self._tell_successor(activation, envelope.parent, envelope.kind)
            return False
        activation.rearm(msgspec.structs.replace(activation.standing, parent=None))
        self._books.touch(activation, 100)
        self.settle_failure(activation, now)
        return True

    def _tell_successor(self, activation: Activation, parent: Parent, kind: Kind) -> None:
        """What a parent says to a child that is still to begin, where another life has not yet ended."""
        successor = activation.standing.successor
        if successor is None or successor.parent is None or successor.parent.id != parent.id:
            return
        begun = kind is Kind.RENEW or kind is Kind.ORPHAN
        follows = msgspec.structs.replace(successor, parent=parent if kind is Kind.RENEW else None) if begun else None
        activation.rearm(msgspec.structs.replace(activation.standing, successor=follows))
        self._books.touch(activation, 100)

    # --- ends that somebody asks for ---

    def cancel(self, activation: Activation, item: Item, turn: Turn) -> bool:
        """The actor is asked to end. Returns False if its code has to be asked."""
        envelope, parent = item.envelope, activation.standing.parent
        is_from_parent = envelope.parent is not None and parent is not None and envelope.parent.id == parent.id
        if activation.status is Status.SUSPENDED and (envelope.parent is None or is_from_parent):
            return False  # and the turn says that it has no parent any more
        is_for_it = envelope.parent is None or self.orphan(activation, envelope, turn.time)
        self._books.skip(activation, item, turn)
        if is_for_it and not activation.status.is_end:
            reason = ActorCancelled(activation.actor, envelope.payload.decode(errors="replace"))
            self.end_for_good(activation, Ended(refusal(reason), Status.CANCELLED), turn.time)
        self._books.telling.conclude(activation, item.seq, envelope, Value(b""))
        return True

    def terminate(self, activation: Activation, envelope: Envelope) -> Outcome:
        """End the actor now."""
        if activation.snapshot is None:
            return refusal(ActorNotFound(activation.actor))
        now = self._books.epoch.clock.now()
        is_for_it = envelope.parent is None or self.orphan(activation, envelope, now)
        if activation.snapshot.status.is_end or not is_for_it:
            return Value(b"")
        if activation.failure is not None:
            delete_quarantine(self._books.epoch.commit.batch, activation.suffix)
            activation.failure = None
            if self._books.epoch.listener is not None:
                self._books.epoch.listener.quarantined(activation.actor, ended=True)
            activation.fitted = False  # what keeps it from going on keeps its state from being read, too
        self._books.discharge(activation.decoding)
        reason = envelope.payload.decode(errors="replace")
        outcome = refusal(ActorCancelled(activation.actor, f"terminated: {reason}" if reason else "terminated"))
        self.end_for_good(activation, Ended(outcome, Status.CANCELLED), now)
        return Value(b"")

    def forget(self, activation: Activation, error: PerdureError) -> None:
        """The actor is deleted: its children are parted from, its parent and whoever waits for its outcome are told."""
        standing = activation.standing
        draft = StandingDraft(activation, self._books.epoch.commit.batch)
        self.families.part(activation, draft)
        if standing.parent is not None and not activation.status.is_end:
            self.families.tell_parent(activation.actor, standing.parent, Ended(refusal(error), Status.CANCELLED))
        waiting = [] if activation.mailbox is None else [item.envelope for item in activation.mailbox.waiting()]
        for envelope in (standing.successor, *waiting):
            if envelope is not None and envelope.kind is Kind.SPAWN:
                self.families.tell_refused(activation.actor, envelope, refusal(error))
        self._tell_awaiters(activation, draft, standing.run.awaiters if standing.run is not None else [], refusal(error))

    # --- results ---

    def no_result(self, activation: Activation, envelope: Envelope) -> Outcome:
        """What is told to whoever asks for the result of what has not begun, or is gone."""
        if envelope.payload:
            return self._not_the_child(activation, envelope)
        return refusal(WorkflowNotStarted(activation.actor))

    def await_result(self, activation: Activation, item: Item, turn: Turn) -> None:
        """Tell the workflow's outcome to whoever asks for it, now or once it has ended."""
        standing, envelope = activation.standing, item.envelope
        run = standing.run
        if run is None or (envelope.payload and not _is_child_of(standing, envelope.payload)):
            self._books.skip(activation, item, turn)
            self._books.telling.conclude(activation, item.seq, envelope, self.no_result(activation, envelope))
            return
        if run.outcome is not None and not standing.is_waiting:
            self._books.skip(activation, item, turn)
            told = outcome_for(activation.actor, standing.parent, envelope.asker, run.outcome)
            self._books.telling.conclude(activation, item.seq, envelope, told)
            return
        if envelope.asker is not None or envelope.reply_to is not None:
            awaiters = [*run.awaiters, Awaiter(envelope.reply_to, envelope.asker, envelope.payload)]
            if envelope.asker is not None:
                self._books.epoch.suspect(ActorId(*envelope.asker[:2]))
            standing = msgspec.structs.replace(standing, run=msgspec.structs.replace(run, awaiters=awaiters))
        self._books.stay(activation, item, turn, standing)
        deliveries = (activation.asked or {}).pop(item.seq, ())
        activation.asked = activation.asked or None
        for delivery in deliveries:
            if delivery.answered is not None:
                waiting = [future for future in self._books.epoch.awaiting.get(activation.actor, ()) if not future.done()]
                self._books.epoch.awaiting[activation.actor] = [*waiting, delivery.answered]


def _taken(activation: Activation, *, differs: bool = False) -> WorkflowAlreadyStarted:
    return WorkflowAlreadyStarted(activation.actor, activation.status.name.lower(), differs)


def _is_child_of(standing: Standing, spawned: bytes) -> bool:
    """Whether the actor is, or is about to be, the child that a request of that id has made."""
    following = None if standing.successor is None else standing.successor.parent
    return any(parent is not None and parent.id == spawned for parent in (standing.parent, following))


def _is_for_successor(awaiter: Awaiter, successor: Envelope | None) -> bool:
    """Whether a result was asked for of the child that is to follow; or by its parent, of whichever, after that spawned this one."""
    parent = None if successor is None else successor.parent
    if parent is None or awaiter.asker is None or awaiter.asker[:2] != (parent.type, parent.key):
        return False
    if awaiter.spawned:
        return awaiter.spawned == parent.id
    asked = MessageId(awaiter.asker[2])
    return life_of(asked) == life_of(parent.id) and asked > parent.id


def arguments_digest(definition: Definition, envelope: Envelope) -> bytes:
    """What a workflow's arguments are known by: the same for equal ones; of what cannot be taken apart, its bytes."""
    run = definition.require_workflow()
    arguments = run.decode(envelope.payload, envelope.form)
    try:
        return digest(arguments)
    except (RecursionError, TypeError):
        return digest(envelope.payload)
