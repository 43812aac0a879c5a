"""How calls end early: not after a deadline, and not where another thread has failed or met Ctrl-C."""

from __future__ import annotations

import math
import threading
from time import monotonic


class Cancelled(BaseException):
    """Ends what a helper does for a call that has failed elsewhere; the caller sees that failure."""


class Call:
    """What may end a call early: its deadline, or that it, or one around it, was stopped."""

    __slots__ = ("deadline", "outer", "stopped", "timeout")

    def __init__(self, outer: Call | None, timeout: float = math.inf) -> None:
        self.outer, self.stopped = outer, False
        self.timeout, self.deadline = timeout, monotonic() + timeout
        if outer is not None and outer.deadline < self.deadline:
            self.timeout, self.deadline = outer.timeout, outer.deadline

    def check(self) -> None:
        """Raise what ends the call, if anything does."""
        call: Call | None = self
        while call is not None:
            if call.stopped:
                raise Cancelled
            call = call.outer
        if monotonic() > self.deadline:
            raise TimeoutError(
                f"no answer within timeout={self.timeout:g} seconds; nothing was changed. Give it a larger timeout, "
                "fewer queries, rows or dims, or a plan"
            )


class _Active(threading.local):
    call: Call | None = None


active = _Active()  # of each thread


def check() -> None:
    """Raise TimeoutError after the deadline of the call this thread works for, Cancelled if it was stopped."""
    call = active.call
    if call is not None:
        call.check()
