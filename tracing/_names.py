"""Names that leave the process: of spans, attributes, instruments. Traces and dashboards outlive releases, so none is ever changed.

They follow OpenTelemetry's semantic conventions for messaging (1.27) where these have a word: an actor type is a destination, its messages
are produced and processed. What is the actors' own begins with `perdure.`.
"""

from typing import Final

SCOPE: Final = "perdure"  # the instrumentation scope of all spans and instruments
SYSTEM: Final = "perdure"

# --- attributes by the conventions ---

MESSAGING_SYSTEM: Final = "messaging.system"
OPERATION_TYPE: Final = "messaging.operation.type"  # "send", "process"
OPERATION_NAME: Final = "messaging.operation.name"  # "ask", "send", "signal", "start", "spawn", …; "handle", "resume", "timer"
DESTINATION: Final = "messaging.destination.name"  # the actor type: its keys are too many
MESSAGE_ID: Final = "messaging.message.id"  # in hexadecimal
ERROR_TYPE: Final = "error.type"  # the class of what was raised; its text may hold payload

# --- attributes of the actors' own ---

ACTOR_TYPE: Final = "perdure.actor.type"
ACTOR_KEY: Final = "perdure.actor.key"
MESSAGE_KIND: Final = "perdure.message.kind"  # "event", "signal", "outcome", …: as in `Kind`
MESSAGE_SEQ: Final = "perdure.message.seq"  # its number in the mailbox
TURN: Final = "perdure.turn"  # the number of the turn, over the actor's lives
STEP: Final = "perdure.step"  # the step's name
STEP_KEY: Final = "perdure.step.idempotency_key"
TIMER_DUE: Final = "perdure.timer.due"  # seconds since the epoch
TIMER_LATE: Final = "perdure.timer.late"  # seconds
STATUS: Final = "perdure.actor.status"  # after the turn
HANDLER: Final = "perdure.handler"  # its name; of what is for no handler by name, the kind of the message
OUTCOME: Final = "perdure.outcome"  # "completed", "failed", of a step "cancelled", too
EPOCH: Final = "perdure.host.epoch"  # which of the store's hosts did it, counted from 1
BATCH: Final = "perdure.batch"  # with which of the epoch's commits it became durable
BATCH_CHANGES: Final = "perdure.batch.changes"  # of actors: a turn is one or more
BATCH_BYTES: Final = "perdure.batch.bytes"
PAYLOAD: Final = "perdure.payload"  # only where `capture_payloads` is given

# --- marks: only where they apply ---

ATTEMPT: Final = "perdure.attempt"  # from 2 up: what came before has failed, or died with its host
INTERRUPTED: Final = "perdure.interrupted"  # how many attempts before this one died with their host
RECOVERED: Final = "perdure.recovered"  # True: taken up by another host than the one that it was sent to
KEPT: Final = "perdure.kept"  # True: a signal that nobody waited for yet
DEAD_LETTER: Final = "perdure.dead_letter"  # True: put aside with this attempt

# --- types of operations, and the operations in the names of spans: "handle Order.add_line" ---

SEND: Final = "send"
PROCESS: Final = "process"
HANDLE: Final = "handle"
RESUME: Final = "resume"
TIMER: Final = "timer"
ATTEMPT_AT: Final = "step"
COMPENSATE: Final = "compensate"
COMMIT: Final = "commit"
RECOVER: Final = "recover"
UNKNOWN: Final = "(unknown)"  # in the place of a handler that is none: "handle Order.(unknown)"
OTHER: Final = "_OTHER"  # of a figure's attribute, as the conventions write it: what a caller made up

# --- outcomes ---

COMPLETED: Final = "completed"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"

# --- instruments ---

TURNS: Final = "perdure.turns"
TURNS_FAILED: Final = "perdure.turns.failed"
TURN_DURATION: Final = "perdure.turn.duration"
MAILBOX_DEPTH: Final = "perdure.mailbox.depth"
MAILBOX_HEAD_AGE: Final = "perdure.mailbox.head.age"
COMMIT_DURATION: Final = "perdure.commit.duration"
COMMIT_TURNS: Final = "perdure.commit.batch.turns"
COMMIT_SIZE: Final = "perdure.commit.batch.size"
STEPS_RUNNING: Final = "perdure.steps.running"
STEPS_WAITING: Final = "perdure.steps.waiting"
STEPS_FAILED: Final = "perdure.steps.failed"
STEP_DURATION: Final = "perdure.step.duration"
TIMERS_FIRED: Final = "perdure.timers.fired"
TIMER_LATENESS: Final = "perdure.timer.lateness"
ACTIVATIONS: Final = "perdure.activations"
PASSIVATIONS: Final = "perdure.passivations"
REPLAYS: Final = "perdure.replays"
REPLAY_LENGTH: Final = "perdure.replay.length"
DEAD_LETTERS: Final = "perdure.dead_letters"
ACTORS_ACTIVE: Final = "perdure.actors.active"
ACTORS_READY: Final = "perdure.actors.ready"
ACTORS_BACKLOG: Final = "perdure.actors.backlog"
ACTORS_QUARANTINED: Final = "perdure.actors.quarantined"
STORE_SIZE: Final = "perdure.store.size"
