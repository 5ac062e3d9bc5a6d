"""What a user may choose of tracing, as values; whether anything is traced at all is found out where it begins."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from ._names import SCOPE

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import TracerProvider

    from ._spans import Spans

Capture: TypeAlias = Callable[[str, tuple[Any, ...], dict[str, Any]], object]

logger = logging.getLogger("perdure.tracing")

LINK_AFTER: Final = timedelta(hours=1)  # back-ends look for a trace within hours: one of three weeks they show in parts, if at all


@final
@dataclass(frozen=True, slots=True)
class Tracing:
    """How a runtime or a client traces. Without an OpenTelemetry SDK, or with a provider that does nothing, nothing is made.

    `tracer_provider`, `meter_provider`: whose spans and instruments they are; the program's own by default, as they are set when the
    runtime begins. `link_after`: what goes on so long after its trace began begins another one, with a link to that; None: never.
    `capture_payloads`: nothing of what messages and steps are called with, and no text of an error, leaves the process by default; with
    True it does, as `repr`; or as what a function makes of (the name of the handler or step, args, kwargs): None for nothing.
    """

    __module__ = "perdure.tracing"

    tracer_provider: TracerProvider | None = None
    meter_provider: MeterProvider | None = None
    link_after: timedelta | None = LINK_AFTER
    capture_payloads: Capture | bool = False

    def spans(self) -> Spans | None:
        """What makes spans; None if nobody would see them."""
        provider = self.tracer_provider
        if provider is None:
            if "opentelemetry.trace" not in sys.modules:  # whoever has set a provider has imported it
                return None
            from opentelemetry import trace

            provider = trace.get_tracer_provider()
        if type(provider).__module__.startswith("opentelemetry.trace"):  # the API's own do nothing, or pass on to what is set later
            return None
        from ._spans import Spans

        return Spans(provider.get_tracer(SCOPE))

    def meter(self) -> Meter | None:
        """What makes instruments; None if nobody would read them."""
        provider = self.meter_provider
        if provider is None:
            if "opentelemetry.metrics" not in sys.modules:
                return None
            from opentelemetry import metrics

            provider = metrics.get_meter_provider()
        if type(provider).__module__.startswith("opentelemetry.metrics"):
            return None
        return provider.get_meter(SCOPE)

    def payload(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """What is told of a call's arguments; None for nothing, and where what is to say it fails."""
        try:
            return self._payload(name, args, kwargs)
        except Exception:  # the hook's, or of some `__repr__`
            logger.exception("the payload of %s is not told", name)
            return None

    def _payload(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        capture = self.capture_payloads
        if capture is True:
            given = [*(repr(each) for each in args), *(f"{key}={value!r}" for key, value in kwargs.items())]
            return f"({', '.join(given)})"
        told = None if capture is False else capture(name, args, kwargs)
        return None if told is None else str(told)
