"""What must be true at the end of every simulation, whatever has befallen it."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from perdure.actors import DeadLetterInfo, Runtime
from perdure.actors._persistence import PREFIX, Table
from perdure.actors._telling import IN_NO_MAILBOX

from .cast import ATTEMPTS, Account, Note, Player, Tally, player_of
from .model import Expected, Model
from .plot import ACCOUNTS

if TYPE_CHECKING:
    from .stage import Stage

GIVES_UP_AFTER: Final = 3  # crashes of a host while a step runs: then it is asked for anew
TRANSIENT: Final = [Table.MAILBOX, Table.ARRIVAL, Table.SIGNALS, Table.CHECKPOINT, Table.LOG, Table.REQUEST, Table.WAKE, Table.CHILD]


class Diary(NamedTuple):
    """What a player has written down."""

    status: str
    facts: list[str]
    heard: list[int]
    pokes: list[int]
    exits: list[str]


class Collected(NamedTuple):
    """All that can be known at the end."""

    accounts: dict[str, tuple[int, list[Note], list[Note]]]
    players: dict[str, Diary]
    lives: dict[str, int]
    letters: list[tuple[str, str, str]]
    items: dict[str, list[tuple[int, str, Any]]]
    infos: list[tuple[str, str, int, float]]


@final
class Verdict:
    """The comparison of what has come of a simulation with its model."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.wrong = stage.wrong
        self.model = Model()
        for key, programs in stage.plot.players.items():
            self.model.play(key, programs)
        for key, programs in stage.plot.workers.items():
            self.model.perform(key, programs)

    # --- looking ---

    async def collect(self, runtime: Runtime) -> Collected:
        """Ask everybody."""
        infos = [info async for info in runtime.actors()]
        accounts, players, lives, items = {}, {}, {}, {}
        for info in infos:
            key = info.id.key
            match info.id.type:
                case "Account":
                    accounts[key] = await runtime.ref(Account, key).query(Account.everything)
                case "Player":
                    players[key] = Diary(info.status, *await player_of(runtime, key).query(Player.diary))
                    items[key] = await self._items(runtime, key, info.emitted)
                case "Tally":
                    lives[key] = await runtime.ref(Tally, key).query(Tally.so_far)
                case _:
                    pass
            if info.status == "quarantined":
                self.wrong(f"{info.id} is quarantined: {info.error}")
        letters = {_in_its_place(each): (str(each.actor), each.handler, each.error) async for each in runtime.dead_letters()}
        stood = [(str(info.id), info.status, info.turn, info.updated) for info in infos]
        return Collected(accounts, players, lives, sorted(letters.values()), items, stood)

    @staticmethod
    async def _items(runtime: Runtime, key: str, count: int) -> list[tuple[int, str, Any]]:
        items: list[tuple[int, str, Any]] = []
        if count:
            async with aclosing(player_of(runtime, key).stream()) as stream:  # type: ignore[type-var]
                async for each in stream:
                    items.append((each.position, each.name, each.payload))
                    if len(items) == count:
                        break
        return items

    # --- judging ---

    def judge(self, found: Collected) -> None:
        """Find whatever is not as it must be."""
        self._stage.played = sum(len(diary.facts) for diary in found.players.values())
        self._stage.played += sum(len(events) + len(signals) for _, events, signals in found.accounts.values())
        self._judge_accounts(found)
        self._judge_money(found)
        self._judge_streams(found)
        for key in sorted(self.model.players):
            self._judge_player(key, self.model.players[key], found)
        early = [entry for entry in self._stage.ledger.entries if not entry.is_durable]
        if early:
            self.wrong(f"{len(early)} steps began before it was durable that they were asked for: {early[0]}")
        self._judge_lives(found)
        self._judge_letters(found)
        self._judge_leftovers()

    def _is_cut(self, key: str) -> bool:
        top = key.partition(".")[0]
        known = self.model.players.get(key) or self.model.players[key.rpartition(".")[0]]
        return known.is_cut or any(
            verb.key == top and verb.kind in {"cancel", "terminate"} for verbs in self._stage.plot.clients for verb in verbs
        )

    def _judge_accounts(self, found: Collected) -> None:
        """Each message that was acknowledged is applied once, in its sender's order; none is that was not sent."""
        for key in ACCOUNTS:
            _, events, signals = found.accounts.get(key, (0, [], []))
            seen: dict[str, list[int]] = defaultdict(list)
            for note in (*events, *signals):
                seen[note.sender].append(note.number)
            expected = self._expected_notes(key, found)
            for sender in sorted({*seen, *expected}):
                if seen[sender] not in expected.get(sender, [[]]):
                    self.wrong(f"account {key} has of {sender} {seen[sender]} instead of {expected.get(sender)}")

    def _expected_notes(self, key: str, found: Collected) -> dict[str, list[list[int]]]:
        """By sender: the lists of numbers that are right."""
        expected: dict[str, list[list[int]]] = {}
        for note, done in self._stage.verbs.items():
            if done.verb.key != key:
                continue
            if not done.is_known:
                expected[note.sender] = [[], [1]]
            elif self._is_applied(note):
                expected.setdefault(note.sender, [[]])[0].append(note.number)
        for other, (_, events, signals) in found.accounts.items():
            count = sum(self._pays(note, other) == key for note in (*events, *signals))
            expected[f"account {other}"] = [list(range(1, count + 1))]
        for name, player in self.model.players.items():
            sent = player.sent[key]
            least = 0 if self._is_cut(name) else sent
            expected[f"player {name}"] = [list(range(1, count + 1)) for count in range(least, sent + 1)]
        return expected

    def _is_applied(self, note: Note) -> bool:
        verb = self._stage.verbs[note].verb
        if verb.kind == "fail_asked":
            return verb.n == 0
        return verb.kind != "fail_sent" or verb.n < ATTEMPTS

    def _pays(self, note: Note, key: str) -> str:
        """To whom an account pays something because of a note that it has."""
        done = self._stage.verbs.get(note)
        return done.verb.other if done is not None and done.verb.kind not in {"add_asked", "add_sent", "loose"} else ""

    def _judge_money(self, found: Collected) -> None:
        """Nothing is made but by those who pay in."""
        total = sum(balance for balance, _, _ in found.accounts.values())
        paid_in = 0
        for _, events, _ in found.accounts.values():
            for note in events:
                done = self._stage.verbs.get(note)
                if done is not None and done.verb.kind in {"add_asked", "add_sent", "loose"}:
                    paid_in += done.verb.n
        if any(self._is_cut(name) for name in self.model.players):
            return  # some pay less
        paid_in += sum(sum(player.paid.values()) for player in self.model.players.values())
        if total != paid_in:
            self.wrong(f"{paid_in} were paid in, and the accounts hold {total}")

    def _judge_streams(self, found: Collected) -> None:
        """Readers have had each item once, in order, and none that did not stay."""
        for key, (_, events, _) in found.accounts.items():
            heard = self._stage.streams[key]
            if heard != [(place, note) for place, note in enumerate(events, 1)]:
                self.wrong(f"the reader of account {key} has had {heard} instead of {events}")

    def _judge_player(self, key: str, expected: Expected, found: Collected) -> None:
        is_cut = self._is_cut(key)
        diary = found.players.get(key)
        if diary is None:
            if not is_cut:
                self.wrong(f"player {key} was never there")
            return
        facts = Counter(fact for fact in diary.facts if not fact.startswith(("outcome ", "drawn ")))
        if facts - expected.facts or (not is_cut and facts != expected.facts):
            self.wrong(f"player {key}: too much is {facts - expected.facts}, too little {expected.facts - facts}")
        self._judge_result(key, expected, diary, is_cut=is_cut)
        self._judge_steps(key, expected, diary, is_cut=is_cut)
        self._judge_sagas(key, expected, diary, is_cut=is_cut)
        items = Counter(payload for _, name, payload in found.items[key] if name == "item")
        if items - expected.items or (not is_cut and items != expected.items):
            self.wrong(f"player {key} has emitted {items} instead of {expected.items}")
        if [position for position, _, _ in found.items[key]] != [*range(1, len(found.items[key]) + 1)]:
            self.wrong(f"the stream of player {key} has a gap: {found.items[key]}")
        for line, count in Counter(diary.exits).items():
            child, _, status = line.partition(" ")
            is_known = child in expected.exits and (status == expected.exits[child] or self._is_cut(child))
            if count > 1 or not is_known:
                self.wrong(f"player {key} was told {count} times of {line}, expected was {expected.exits.get(child)}")

    def _judge_result(self, key: str, expected: Expected, diary: Diary, *, is_cut: bool) -> None:
        if key in self._stage.plot.workers:
            for place, answer in enumerate(expected.answers):
                if self._stage.answers.get((key, place), answer) != answer:
                    self.wrong(f"program {place} of worker {key} came to {self._stage.answers[key, place]!r} instead of {answer!r}")
            return
        status = "failed" if expected.has_failed else "completed"
        if diary.status != status and not (is_cut and diary.status in {"cancelled", "completed", "failed"}):
            self.wrong(f"player {key} is {diary.status} instead of {status}")
        result = f"failed by {expected.result}" if expected.has_failed else expected.result
        told = self._stage.results.get(key, result)
        if told != result and not (is_cut and told in {"cancelled: enough", "cancelled: terminated: enough"}):
            self.wrong(f"the result of player {key} is {told!r} instead of {result!r}")

    def _judge_steps(self, key: str, expected: Expected, diary: Diary, *, is_cut: bool) -> None:
        """What was recorded of a step is what its last call did, and calls share a key unless their asking was given up."""
        ledger = self._stage.ledger.entries
        for fact in diary.facts:
            if fact.startswith("outcome "):
                number, place = map(int, fact.split()[1:])
                entry = ledger[place]
                later = [after for after in ledger[place + 1 :] if after.key == entry.key]
                if (entry.number, entry.actor) != (number, f"Player/{key}") or later:
                    self.wrong(f"player {key}, operation {number}: recorded is call {place}, {entry}, later is {later}")
        self._judge_calls(key, expected, is_cut=is_cut)

    def _judge_calls(self, key: str, expected: Expected, *, is_cut: bool) -> None:
        """A step is called once more for each crash, at most."""
        calls: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
        for entry in self._stage.ledger.entries:
            if entry.actor == f"Player/{key}" and not entry.what.startswith(("book", "unbook")):
                calls[entry.number, entry.what][entry.key] += 1
        crashes = self._stage.disk.recoveries - 2  # the first is none, and the last was when all was done
        for asked, used in calls.items():
            if len(used) > 1 and crashes < GIVES_UP_AFTER:
                self.wrong(f"player {key}: {asked} was called under {len(used)} keys")
            most = expected.steps.get(asked, 0)
            if not most or max(used.values()) > most + crashes:
                self.wrong(f"player {key}: {asked} was called {used}, expected were {most}, and one more for each of {crashes} crashes")
        missing = [asked for asked in expected.steps if asked not in calls]
        if missing and not is_cut:
            self.wrong(f"player {key}: {missing} were never called")

    def _judge_sagas(self, key: str, expected: Expected, diary: Diary, *, is_cut: bool) -> None:
        """What was booked is undone, once, in reverse, or stays, as the saga has ended."""
        entries = [entry for entry in self._stage.ledger.entries if entry.actor == f"Player/{key}"]
        ended = {int(fact.split()[0]): fact.split()[2] for fact in diary.facts if fact.split()[1] == "undo"}
        for number, (first, second, is_undone) in expected.booked.items():
            done = [entry.what for entry in entries if entry.number == number]
            booked, unbooked = ({what.split()[1] for what in done if what.startswith(verb)} for verb in ("book", "unbook"))
            if is_cut:
                if ended.get(number) == "booked" and unbooked and number not in expected.nested:
                    self.wrong(f"player {key}: saga {number} ended well, and was undone: {done}")
                continue
            right = {place for place, is_booked in (("1", first), ("2", second)) if is_booked}
            if booked != right or unbooked != (right if is_undone else set()):
                self.wrong(f"player {key}: saga {number} did {done}, expected were {right} and undone {is_undone}")

    def _judge_lives(self, found: Collected) -> None:
        for key, lives in self.model.lives.items():
            if found.lives.get(key, 0) != lives and not (self._is_cut(key) and found.lives.get(key, 0) <= lives):
                self.wrong(f"clumsy {key} had {found.lives.get(key)} lives instead of {lives}")

    def _judge_letters(self, found: Collected) -> None:
        """What was not applied is in the dead letters, and nothing else."""
        expected: Counter[tuple[str, str]] = Counter()
        for note, done in self._stage.verbs.items():
            if done.verb.kind == "fail_sent" and not self._is_applied(note):
                expected[f"Account/{done.verb.key}", "fail"] += 1
        for verb in (verb for verbs in self._stage.plot.clients for verb in verbs if verb.kind == "perform" and verb.number % 2):
            expected[f"Player/{verb.key}", "perform"] += self.model.players[verb.key].answers[verb.n].startswith("raises ")
        for key, expectation in self.model.players.items():
            diary = found.players.get(key, Diary("", [], [], [], []))
            sent = Counter(verb.kind for verbs in self._stage.plot.clients for verb in verbs if verb.key == key)
            pokes = sent["poke"] + sum(fact.split()[1] == "poke_oneself" for fact in diary.facts)
            expected[f"Player/{key}", "word"] = sent["word"] - len(diary.heard)
            expected[f"Player/{key}", "poke"] = pokes - len(diary.pokes)
            if len({*diary.heard}) < len(diary.heard) or len({*diary.pokes}) < len(diary.pokes):
                self.wrong(f"player {key} has heard something twice: {diary.heard} {diary.pokes}")
            if not self._is_cut(key) and len(diary.heard) != expectation.hears:
                self.wrong(f"player {key} has heard {diary.heard} instead of {expectation.hears}")
        letters = Counter((actor, handler) for actor, handler, _ in found.letters)
        refused = Counter({(f"Player/{key}", kind): count for (key, kind), count in self._stage.refused.items()})
        if letters - expected or (expected - refused) - letters:  # whoever is refused what he has sent before may be so for both
            self.wrong(f"dead letters are {letters} instead of {+expected}, or less by some of {refused}")

    def _judge_leftovers(self) -> None:
        """Nobody waits, so nothing that is kept for those who wait is left."""
        rows = self._stage.disk.index.keys
        for table in TRANSIENT:
            left = [row for row in rows if row.startswith(PREFIX[table])]
            if left:
                self.wrong(f"{len(left)} rows of {table.name} are left: {left[:3]}")

    # --- what was put aside ---

    async def redrive(self, runtime: Runtime) -> None:
        """Put what has failed back, once the cause is mended: it is applied."""
        for key in ACCOUNTS:
            with_letters = [each async for each in runtime.dead_letters(Account, key)]
            if with_letters:
                await runtime.ref(Account, key).redrive()
        await runtime.settled()
        left = [each async for each in runtime.dead_letters(Account)]
        if left:
            self.wrong(f"after a redrive there are {len(left)} dead letters")
        for note, done in self._stage.verbs.items():
            if done.verb.kind == "fail_sent" and not self._is_applied(note):
                _, events, _ = await runtime.ref(Account, done.verb.key).query(Account.everything)
                if events.count(note) != 1:
                    self.wrong(f"{note} was redriven, and is there {events.count(note)} times")


def _in_its_place(letter: DeadLetterInfo) -> tuple[str, str, bytes, int]:
    """What tells letters apart: one that came too late for any mailbox, and was sent again by whoever was not told, is redriven once."""
    return str(letter.actor), letter.handler, letter.payload, letter.seq if letter.seq < IN_NO_MAILBOX else 0
