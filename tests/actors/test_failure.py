"""Exceptions that travel: the original where it survives, and its text and traceback always."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perdure import actors
from perdure.actors import (
    AskTimeout,
    CompensationFailed,
    DataLoss,
    KeyTooLong,
    MigrationFailed,
    NotSerializable,
    RemoteError,
    SignalTimeout,
    StepFailed,
    VersionMismatch,
    WrongArguments,
)
from perdure.actors._failure import MAX_FRAMES, MAX_TEXT, MAX_TRACEBACK, Failure, innermost
from perdure.storage import PerdureError


class OutOfStock(Exception):
    """Keeps its arguments, and an attribute beside them."""

    def __init__(self, sku: str, left: int) -> None:
        super().__init__(sku, left)
        self.sku = sku


class Declined(Exception):
    """Hands a text of its own to Exception, and so comes back wrong."""

    def __init__(self, code: int) -> None:
        super().__init__(f"declined with code {code}")


class Silent(Exception):
    """Has no text at all."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Mute(Silent):
    """Not even an Exception comes of asking for its text."""

    def __str__(self) -> str:
        raise SystemExit

    def __reduce__(self) -> tuple[object, ...]:
        raise SystemExit


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    """The exception after it was raised and caught."""
    try:
        raise error from cause
    except Exception as caught:  # noqa: BLE001
        return caught


def hops(error: Exception, count: int) -> Exception:
    """The exception after it has travelled through so many actors."""
    for _ in range(count):
        error = Failure.of(raised(error)).revive()
    return error


def test_an_exception_arrives_as_its_own_class() -> None:
    revived = Failure.of(raised(OutOfStock("sku-1", 3))).revive()

    assert isinstance(revived, OutOfStock)
    assert (revived.args, revived.sku) == (("sku-1", 3), "sku-1")


def test_the_remote_traceback_comes_as_a_note_with_its_causes() -> None:
    failure = Failure.of(raised(OutOfStock("sku-1", 3), cause=ZeroDivisionError("by nought")))

    (note,) = failure.revive().__notes__

    assert "in raised" in note
    assert "ZeroDivisionError: by nought" in note


@pytest.mark.parametrize("error", [Declined(3), Silent("a"), Mute("a")])
def test_an_exception_that_comes_back_wrong_becomes_a_remote_error(error: Exception) -> None:
    revived = Failure.of(raised(error)).revive()

    assert isinstance(revived, RemoteError)
    assert revived.type_name.endswith(type(error).__qualname__)


def test_of_an_endless_recursion_the_last_frames_are_kept() -> None:
    def recurse(depth: int) -> None:
        recurse(depth - 1) if depth else exec("1 / 0")

    with pytest.raises(ZeroDivisionError) as caught:
        recurse(500)

    assert [len(traceback.extract_tb(innermost(error)[2])) for error in (caught.value, raised(ValueError()))] == [MAX_FRAMES, 1]
    assert 'File "<string>", line 1' in Failure.of(caught.value).traceback


def test_an_error_that_quotes_a_big_payload_stays_small() -> None:
    failure = Failure.of(raised(ValueError("x" * MAX_TEXT * 2)))

    assert (len(failure.text), len(failure.traceback)) == (MAX_TEXT, MAX_TRACEBACK)


def test_an_exception_that_cannot_be_pickled_keeps_its_text() -> None:
    revived = Failure.of(raised(ValueError("bad", (n for n in "generator")))).revive()

    assert isinstance(revived, RemoteError)
    assert revived.type_name == "ValueError"
    assert "bad" in revived.text


def test_a_local_class_travels_by_value() -> None:
    class Local(Exception):
        pass

    assert type(Failure.of(Local(1)).revive()) is Local


def test_a_group_travels_with_its_members() -> None:
    revived = Failure.of(raised(ExceptionGroup("both", [ValueError(1), OutOfStock("a", 2)]))).revive()

    assert isinstance(revived, ExceptionGroup)
    assert [type(member) for member in revived.exceptions] == [ValueError, OutOfStock]


def test_a_long_way_adds_one_note_of_bounded_length() -> None:
    error = ValueError("bad")
    error.add_note("look at the order")

    revived = hops(error, 30)

    assert [note.partition(":")[0] for note in revived.__notes__] == ["look at the order", "Remote traceback"]
    assert len(revived.__notes__[1]) <= MAX_TRACEBACK + 20


def test_a_remote_error_stays_what_it_stood_for() -> None:
    revived = hops(Declined(3), 3)

    assert isinstance(revived, RemoteError)
    assert (revived.type_name, revived.text) == (f"{__name__}.Declined", "declined with code 3")


def test_each_revival_is_a_new_exception() -> None:
    failure = Failure.of(OutOfStock("sku-1", 3))

    assert failure.revive() is not failure.revive()


def test_a_class_that_is_gone_is_stood_for(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = Failure.of(OutOfStock("sku-1", 3))

    monkeypatch.delitem(globals(), "OutOfStock")

    assert isinstance(failure.revive(), RemoteError)


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_fits_a_record_even_half_characters(text: str) -> None:
    failure = Failure.of(ValueError(text))

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(failure), type=Failure) == failure
    assert failure.revive().args == (text,)


def own_errors() -> list[PerdureError]:
    """One of each error of the package, made from sample parts."""
    special: dict[type, Callable[[], PerdureError]] = {
        AskTimeout: lambda: AskTimeout("Order/o-1", "add_line", 2.5),
        KeyTooLong: lambda: KeyTooLong("Order", "k" * 300, 300, 200),
        RemoteError: lambda: RemoteError("shop.Declined", "with code 3", "Traceback"),
        MigrationFailed: lambda: MigrationFailed("Order/o-1", 1, 2, "KeyError"),
        VersionMismatch: lambda: VersionMismatch("Order/o-1", [2], [1]),
        DataLoss: lambda: DataLoss("Order/o-1", 3, 7),
        CompensationFailed: lambda: CompensationFailed("Order/o-1", [StepFailed("refund", "Order/o-1", "no", 3, 0, "key")]),
        SignalTimeout: lambda: SignalTimeout("Order/o-1", "approved", 2.5),
    }
    classes = [value for value in vars(actors).values() if isinstance(value, type) and issubclass(value, PerdureError)]
    return [special[cls]() if cls in special else cls(*_samples(cls)) for cls in classes]


def _samples(cls: type) -> list[str]:
    required = cls.__init__.__code__.co_argcount - 1 - len(cls.__init__.__defaults__ or ())  # type: ignore[misc]
    return [f"part-{number}" for number in range(required)]


@pytest.mark.parametrize("error", own_errors(), ids=lambda error: type(error).__name__)
def test_each_of_our_errors_survives_every_round_trip(error: PerdureError) -> None:
    again = [pickle.loads(pickle.dumps(error)), Failure.of(error).revive(), type(error)(*error.args)]

    assert [(type(each), each.args, str(each)) for each in again] == [(type(error), error.args, str(error))] * 3
    assert type(error).__module__ in {"perdure.actors", "perdure.storage"}


def test_errors_are_what_callers_already_catch() -> None:
    assert isinstance(WrongArguments("a", "()", "b"), TypeError)
    assert isinstance(NotSerializable("a", "b", "c"), TypeError)
    assert isinstance(KeyTooLong("Order", "k", 201, 200), ValueError)
    assert isinstance(AskTimeout("Order/o-1", "add_line", 1), TimeoutError)
