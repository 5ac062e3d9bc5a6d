"""The demo: a feed of events goes to actors whose host is killed again and again, and then everything is counted."""

from ._actors import Case, Order

__all__ = ["Case", "Order"]
