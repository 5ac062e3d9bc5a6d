"""Retry: how often, and how long between."""

from __future__ import annotations

from datetime import timedelta

import pytest
from perdure.actors import DefinitionError, Retry

TOKENS = [number.to_bytes(4, "big") for number in range(200)]


def test_delays_grow_until_the_attempts_are_used_up() -> None:
    retry = Retry(max_attempts=4, initial=timedelta(seconds=1), factor=10, maximum=timedelta(seconds=20))

    delays = [retry.delay(attempt, b"message") for attempt in (1, 2, 3, 4)]

    assert delays[3] is None
    assert [low <= delay <= 2 * low for low, delay in zip((0.5, 5, 10), delays[:3], strict=True) if delay] == [True] * 3


def test_the_same_attempt_of_the_same_message_waits_equally_long() -> None:
    assert Retry().delay(1, b"message") == Retry().delay(1, b"message") != Retry().delay(1, b"another")


def test_what_failed_together_does_not_come_back_together() -> None:
    delays = sorted(Retry().delay(1, token) or 0 for token in TOKENS)

    assert delays[0] < 0.55
    assert delays[-1] > 0.95


def test_a_late_attempt_waits_the_maximum_and_no_longer() -> None:
    delay = Retry(max_attempts=10**9).delay(10**6, b"message")

    assert delay is not None
    assert 30 <= delay <= 60


@pytest.mark.parametrize("values", [{"max_attempts": 0}, {"factor": 0.5}, {"initial": timedelta(-1)}, {"maximum": timedelta(0)}])
def test_a_policy_that_makes_no_sense_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(DefinitionError, match="makes no sense"):
        Retry(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [{"retry_on": [OSError]}, {"retry_on": (OSError, "ValueError")}, {"give_up_on": [OSError]}])
def test_a_policy_that_cannot_tell_errors_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(DefinitionError, match="tuple of classes"):
        Retry(**values)  # type: ignore[arg-type]
