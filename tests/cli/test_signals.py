"""What ends a run from outside: no file made for the while stays, and no process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from pcapdiag.cli import cores, program, signals

PROGRAM = """
import threading
from pcapdiag import spool, workers
from pcapdiag.capture.reader import CaptureReader
from pcapdiag.cli import cores, main

told = threading.Lock()

def written(frame, folder, write=spool.written):
    path = write(frame, folder)
    if told.acquire(blocking=False):  # once: nobody reads on
        print("spooled", flush=True)
    return path

if __name__ == "__main__":
    spool.IN_MEMORY_ROWS = 0
    spool.CHUNK_ROWS = 1
    spool.written = written
    workers.open_capture = lambda path, *, ahead: CaptureReader(path, 1 << 12, ahead=ahead)
    cores.LARGE_BYTES = 0  # a pipe's size: several are read in processes of their own
    main()
"""
"""pcapdiag with bounds so low that some frames are spooled; it says when it has written one."""

WAITS = """
import _thread, signal, sys, threading
from pcapdiag.capture.source import FileSource
from pcapdiag.cli import main

HOW = {
    "while it waits": lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT),
    "just before": _thread.interrupt_main,  # notes the signal, and wakes nobody
}
interrupt = HOW[sys.argv.pop(1)]

def end():
    while "poll" not in open("/proc/self/wchan").read():  # what the main thread sleeps in
        ...
    interrupt()

def readinto(*given, readinto=FileSource.readinto):
    threading.Thread(target=end, daemon=True).start()
    return readinto(*given)

FileSource.readinto = readinto
main()
"""
"""pcapdiag, interrupted as soon as it waits for bytes from a pipe."""

LONG_S = 60
"""For the failing case only: what an unheard signal should end would go on for ever."""


@pytest.fixture(autouse=True)
def heard():
    """Let signals reach what a test starts, though the tests may run in the background."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        **{number: signal.signal(number, signal.SIG_DFL) for number in signals.ENDING},
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def started(place):
    """Start the program on what a test gives; end it whatever the test does."""
    (place / "program.py").write_text(PROGRAM)
    (place / "work").mkdir()
    begun = []

    def start(*arguments):
        command = [sys.executable, "-P", "program.py", "analyze", *arguments, "--no-html"]
        process = subprocess.Popen(
            [*command, "--work-dir", "work"],
            cwd=place,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()


def _pipe(place, name):
    os.mkfifo(place / name)
    return place / name


def _read_when_over(process, pipes):
    """Open what waits for readers, once the program that should have been them has ended."""

    def end():
        process.wait()
        for pipe in pipes:
            os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))

    threading.Thread(target=end, daemon=True).start()


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "hung up"),
    ],
)
def test_a_spooled_run_is_ended(started, place, captures, number, code, said):
    """The work directory goes with what is in it, and one line says why."""
    process = started("director=-")
    process.stdin.write(captures.pcap + captures.pcap[24:] * 400)
    process.stdin.flush()
    assert process.stdout.readline() == b"spooled\n"
    assert list((place / "work").rglob("*.arrow"))
    process.send_signal(number)
    assert process.wait(LONG_S) == code
    assert process.stderr.read().strip().decode() == f"pcapdiag: error: {said}"
    assert not list((place / "work").iterdir())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_no_process_outlives_the_run(started, place, number, code):
    """Those that read captures end with the run, though they wait for their captures' bytes."""
    pipes = [_pipe(place, name) for name in ("director.pipe", "rs1.pipe")]
    process = started("director=director.pipe", "rs1=rs1.pipe", "--jobs", "2")
    _read_when_over(process, pipes)  # or the next line would wait for ever, had the start failed
    with pipes[0].open("wb") as one, pipes[1].open("wb") as other:  # once both are being read
        process.send_signal(number)
        assert process.wait(LONG_S) == code
        for file in (one, other):
            unread = select.poll()
            unread.register(file, 0)
            assert (
                unread.poll(LONG_S * 1000)[0][1] & select.POLLERR
            )  # comes when nobody can read it any more
    assert number == signal.SIGKILL or not list((place / "work").iterdir())


@pytest.mark.parametrize("when", ["while it waits", "just before"])
@pytest.mark.parametrize("command", [("analyze", "-"), ("packets", "-", "--csv", "packets.csv")])
def test_an_interrupt_reaches_a_run_that_waits(place, command, when):
    """Control-C ends what waits for bytes that do not come, though polars would have it wait on."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", WAITS, when, *command],
        cwd=place,
        env=os.environ | {cores.VARIABLE: "2"},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.wait(LONG_S) == 130


@pytest.mark.parametrize(
    ("number", "raised"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, signals.Ended)],
)
def test_what_is_swallowed_is_raised_again(number, raised):
    """Numpy, looking for an attribute, takes whatever is raised for "there is none"."""
    signalled, tidied = [], []

    class Operand:
        def __getattr__(self, name):
            if not signalled:
                signalled.append(name)
                signal.raise_signal(number)
            raise AttributeError(name)

        def __eq__(self, _other):
            return True

        __hash__ = None

    def wait():
        assert np.zeros(1, np.uint8) == Operand()
        assert signalled  # and nothing was raised
        try:
            select.select([], [], [], LONG_S)
        finally:
            signal.raise_signal(number)  # a second one, which does not end the tidying
            tidied.append(True)

    with pytest.raises(raised), signals.ending_tidily():
        wait()
    assert tidied


@pytest.mark.parametrize("ends", [True, False])
def test_the_timer_of_who_embeds_the_command_goes_on(ends):
    """Neither a run that comes to its end nor one that is ended takes another's alarm away."""

    def ring(*_):
        """Take the embedding program's alarm."""

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 2 * LONG_S, LONG_S)
    try:
        with contextlib.suppress(signals.Ended), signals.ending_tidily():
            if ends:
                signal.raise_signal(signal.SIGTERM)
        left_s, interval_s = signal.getitimer(signal.ITIMER_REAL)
        assert signal.getsignal(signal.SIGALRM) is ring
        assert LONG_S < left_s < 2 * LONG_S
        assert interval_s == LONG_S
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_ignored_hang_up_stays_ignored(monkeypatch):
    """`nohup pcapdiag analyze` goes on when its terminal is closed."""
    numbers = (signal.SIGHUP, signal.SIGTERM)
    before = [
        signal.signal(number, action)
        for number, action in zip(numbers, (signal.SIG_IGN, signal.SIG_DFL), strict=True)
    ]
    during = []
    monkeypatch.setattr(
        program, "settle", lambda *_: during.extend(map(signal.getsignal, numbers)) or 0
    )
    with pytest.raises(SystemExit):
        program.main([])
    after = [signal.signal(*given) for given in zip(numbers, before, strict=True)]
    assert during[0] is signal.SIG_IGN
    assert during[1] is not signal.SIG_DFL
    assert after == [signal.SIG_IGN, signal.SIG_DFL]
