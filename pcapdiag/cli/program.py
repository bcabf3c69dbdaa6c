"""The program itself: its list of commands, and what becomes of an error.

The list stands here in words, so that `--help` need not import a single command.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import click

from pcapdiag.cli import signals, streams
from pcapdiag.errors import CaptureError, PcapdiagError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NAME: Final = "pcapdiag"

COMMANDS: Final = {
    "analyze": "Find faults in captures, and write the incident report.",
    "inspect": "Say what is in captures, without a verdict.",
    "packets": "Write the decoded packets of a capture as a table.",
    "index": "Decode captures once, into a small file to analyse again.",
    "rules": "List the faults that are looked for.",
    "explain": "Explain one of them: symptom, mechanism, evidence, remedy.",
    "render": "Write a report again from a saved result.",
}
"""Command -> its line in `pcapdiag --help`, in the order shown; the first line of its own help."""

_BLAS_THREADS: Final = "OPENBLAS_NUM_THREADS"
"""No matrix is multiplied here, but numpy's threads for it spin for a tenth of a second when they
start, and --jobs does not count them."""

_OBJECTS_BETWEEN_COLLECTIONS: Final = 200_000
"""Imports make some 150,000 objects that stay: looking among them for garbage as often as Python
does by itself (each 700) costs a tenth of a short run, and once through all of them 15 ms."""


HELP: Final = """\
Read captures of a Linux Virtual Server (LVS/IPVS) cluster offline and name the fault.

Captures taken at several hosts at the same time are joined connection by connection. Each
finding cites frames by Wireshark's numbers, says what to type where, and how to verify it.
What the captures cannot answer is said, with the tcpdump command that would answer it.

\b
Examples:
  pcapdiag analyze director=director.pcap rs1=rs1.pcap rs2=rs2.pcap
  pcapdiag inspect director.pcap
  pcapdiag explain pmtud-blackhole

\b
Exit codes:
  0    done, and nothing found at or above --fail-on
  1    something found at or above --fail-on
  2    wrong usage, or an output that cannot be written
  3    an input that cannot be read (the others are still analysed)
  130  interrupted (143: terminated)
  70   a defect in pcapdiag itself

Nothing is sent anywhere and no name is looked up. NO_COLOR=1 turns colours off.
"""
"""What `pcapdiag --help` says; \\b keeps click from folding the lines below it."""


class Exit(IntEnum):
    """What the program's end tells a script."""

    OK = 0
    FINDINGS = 1  # something at or above --fail-on
    USAGE = 2
    UNREADABLE = 3
    INTERNAL = 70  # EX_SOFTWARE of sysexits.h: a defect of pcapdiag, none of the captures
    HUNG_UP = 129  # 128 + SIGHUP, as a shell reports it
    INTERRUPTED = 130  # likewise
    TERMINATED = 143  # likewise


@dataclass(slots=True)
class Session:
    """What all of one run shares; click hands it down as the context's object."""

    debug: bool = False


class Program(click.Group):
    """A group that imports a command when it is run, and ends in a code, never in a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a command; None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"pcapdiag.cli.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"pcapdiag.cli.{cmd_name}.command is no command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is meant, and where there is none, suggest a close one."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            close = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(COMMANDS)}"
            ctx.fail(f"no command {args[0]!r}: {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Show the help, as an error, where nothing at all was asked for."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(Exit.USAGE)
        return super().parse_args(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Do as click does, but end quietly where the reader of a help page goes away."""
        with _quiet_pipe():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Do as click does, but end quietly where the reader of a help page goes away."""
        with _quiet_pipe():
            return super().invoke(ctx)

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> int:
        """Run; exit with the code, or return it where `standalone_mode` is off."""
        session = extra.setdefault("obj", Session())
        _collect_seldom()
        os.environ.setdefault(_BLAS_THREADS, "1")
        streams.prepare()

        def run() -> int:
            inner = super(Program, self).main
            value = inner(args, prog_name or NAME, complete_var, standalone_mode=False, **extra)
            return int(value or 0)

        if not standalone_mode:
            return settle(run, session)
        with signals.ending_tidily():
            code = settle(run, session)
        sys.exit(code)


def _collect_seldom() -> None:
    """Look for garbage seldom, and not at the end: it goes with the process, 0.1 s sooner."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    atexit.unregister(gc.freeze)  # of an earlier run in this process
    atexit.register(gc.freeze)


@contextlib.contextmanager
def _quiet_pipe() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        streams.silence()
        raise click.exceptions.Exit(Exit.OK) from None


def settle(run: Callable[[], int], session: Session) -> int:
    """Return the exit code of `run`, its errors told on standard error in one line each."""
    code: int
    try:
        code = run()
        streams.finish()
    except (KeyboardInterrupt, click.Abort):
        signals.heard()
        streams.error("interrupted")
        code = Exit.INTERRUPTED
    except signals.Ended as ended:
        signals.heard()
        hung_up = ended.signal == signal.SIGHUP
        streams.error("hung up" if hung_up else "terminated")
        code = Exit.HUNG_UP if hung_up else Exit.TERMINATED
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else NAME
        streams.error(f"{_sentence(error.format_message())} (see '{where} --help')")
        code = Exit.USAGE
    except click.ClickException as error:
        streams.error(error.format_message())
        code = Exit.USAGE
    except PcapdiagError as error:
        _show_traceback(session)
        streams.error(str(error))
        code = Exit.UNREADABLE if isinstance(error, CaptureError) else Exit.USAGE
    except MemoryError:
        _show_traceback(session)
        streams.error("out of memory: analyse less at once, with --since and --until")
        code = Exit.INTERNAL
    except OSError as error:
        _show_traceback(session)
        where = f"{error.filename}: " if error.filename else ""
        streams.error(f"{where}{error.strerror or error}")
        with contextlib.suppress(PcapdiagError):  # where that was standard output: give it up
            streams.finish()
        code = Exit.USAGE
    except Exception as error:  # noqa: BLE001 - the last stop: a user is shown a line
        _show_traceback(session)
        hint = "" if session.debug else "; --debug shows where, please report it"
        streams.error(f"internal error: {type(error).__name__}: {error}{hint}")
        code = Exit.INTERNAL
    return code


def _show_traceback(session: Session) -> None:
    if session.debug:
        traceback.print_exc()


def _sentence(message: str) -> str:
    """Return a message of click's in our form: lower case first, no full stop at the end."""
    message = " ".join(message.split()).removesuffix(".")
    return message[:1].lower() + message[1:]


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from pcapdiag import __version__

        click.echo(f"{NAME} {__version__}")
        ctx.exit()


@click.group(
    name=NAME,
    cls=Program,
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Show the help, or run a command."""
