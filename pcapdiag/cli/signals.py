"""Signals that end a run, and leave nothing behind of what it made for the while."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
"""What ends a run beside Control-C."""

AGAIN_S: Final = 0.2
"""How long after it was raised in vain an exception is raised again; nobody who presses Control-C
notices."""

SOON_S: Final = 1e-6
"""A timer's shortest time: 0 would stop it."""


class Ended(BaseException):
    """A signal ends the program: as an interrupt, no `except Exception` holds it up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextlib.contextmanager
def ending_tidily() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Control-C would, all of them surely.

    One that is ignored (nohup) stays so.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        handler = _Handler()
        for number in (signal.SIGINT, *ENDING):
            known = signal.getsignal(number)
            if known in {signal.SIG_DFL, signal.default_int_handler}:
                before[number] = known
                signal.signal(number, handler)
    try:
        yield
    finally:
        heard()
        for number, known in before.items():
            signal.signal(number, known)


class _Handler:
    """Raises what ends the block, again and again until it takes.

    An exception goes lost that is raised while numpy, written in C, looks for an attribute that may
    be missing: it takes any for "there is none".
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._alarm: _Alarm | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if _is_being_handled():  # another one would end the tidying
            return
        if self._number is None:
            self._number = number
            self._alarm = _Alarm(self)
        raise KeyboardInterrupt if self._number == signal.SIGINT else Ended(self._number)

    def rest(self) -> None:
        """Raise nothing any more."""
        if self._alarm is not None:
            self._alarm.give_back()
            self._alarm = None


class _Alarm:
    """The timer and its signal, which may be those of a program that embeds the command."""

    def __init__(self, handler: _Handler) -> None:
        """Take both, to call `handler` again and again."""
        self._since_s = time.monotonic()
        self._timer_before = signal.setitimer(signal.ITIMER_REAL, 0)
        self._handler_before = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S, AGAIN_S)

    def give_back(self) -> None:
        """Let the timer go on as if it had not been taken; what fell due meanwhile comes now."""
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # what comes while this is done
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._handler_before is not None:  # None: not Python's, so not to be had again
            signal.signal(signal.SIGALRM, self._handler_before)
        left_s, interval_s = self._timer_before
        if left_s:
            left_s = max(left_s - (time.monotonic() - self._since_s), SOON_S)
        signal.setitimer(signal.ITIMER_REAL, left_s, interval_s)


def heard() -> None:
    """Raise nothing any more: what ends the run has arrived where that is told."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *ENDING):
            handler = signal.getsignal(number)
            if isinstance(handler, _Handler):
                signal.signal(number, signal.SIG_IGN)
                handler.rest()


def _is_being_handled() -> bool:
    """Whether what is running runs because of an exception of this kind."""
    error = sys.exception()
    while error is not None and not isinstance(error, (Ended, KeyboardInterrupt)):
        error = error.__context__
    return error is not None
