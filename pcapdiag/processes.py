"""Processes of this host that read captures beside this one, and never outlive it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class Processes(ProcessPoolExecutor):
    """At most `count` spawned processes. An exception in the `with` block ends them at once.

    So does an interrupt, and whatever ends this process, be it SIGKILL.
    """

    def __init__(self, count: int) -> None:
        self._others = multiprocessing.active_children()
        super().__init__(count, multiprocessing.get_context("spawn"), _attach)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End them: those that are idle by themselves, the others where something was raised."""
        answers = self._result_queue
        self.shutdown(wait=False, cancel_futures=True)
        if kind is None:
            return
        ours = [each for each in multiprocessing.active_children() if each not in self._others]
        for process in ours:
            process.terminate()
        for process in ours:
            process.join()
        # A process that ended in the middle of an answer leaves a thread that awaits the rest, and
        # this process would wait for that at its end: the pipe's last writer is here.
        answers._writer.close()  # type: ignore[attr-defined]  # noqa: SLF001


def _attach() -> None:
    """Let the process end with its parent, and without a word at Control-C, which both get."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
