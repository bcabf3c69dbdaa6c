"""`pcapdiag packets`: the decoded table, as is."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from pcapdiag.cli import cores, output, streams
from pcapdiag.cli.options import debug_option, work_dir_option
from pcapdiag.cli.output import Target
from pcapdiag.cli.program import Exit
from pcapdiag.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pcapdiag.spool import WorkDirectory


@click.command(
    short_help="Write the decoded packets of a capture as a table.",
    epilog="""\b
Examples:
  pcapdiag packets director.pcap --csv packets.csv
  pcapdiag packets director.pcap --parquet packets.parquet
  pcapdiag packets director.pcap --csv - | grep 203.0.113.10
""",
)
@click.argument("capture")
@click.option("--csv", metavar="FILE|-", help="Write CSV; - is standard output.")
@click.option("--parquet", metavar="FILE", help="Write Parquet.")
@work_dir_option
@debug_option
def command(capture: str, csv: str | None, parquet: str | None, work_dir: str | None) -> int:
    """Write the decoded packets of a capture as a table.

    One row a frame, numbered as in Wireshark. Addresses are text, times nanoseconds UTC. The
    columns of IP and above are of the innermost packet, those of a tunnel begin with outer_, and
    those of the packet inside an ICMP error with quoted_.
    """
    if csv is None and parquet is None:
        raise UsageError("--csv or --parquet must say where to write")
    targets = [
        *([Target("--csv", csv, may_be_stdout=True)] if csv is not None else []),
        *([Target("--parquet", parquet)] if parquet is not None else []),
    ]
    output.check(targets, [capture])
    if capture == "-" and streams.on_keyboard():
        raise UsageError("- reads a capture from standard input, which is a terminal here")
    cores.keep_interruptible()
    from pcapdiag.spool import WorkDirectory

    with WorkDirectory(work_dir) as work:
        _write(capture, targets, work)
    return Exit.OK


def _write(capture: str, targets: Sequence[Target], work: WorkDirectory) -> None:
    """Write every form in one pass over the capture, some thousand packets at a time."""
    from pcapdiag.capture.reader import open_capture
    from pcapdiag.decode.packets import decode_parts
    from pcapdiag.export import packets

    with open_capture(capture) as reader, contextlib.ExitStack() as opened:
        frames = packets.joined(decode_parts(reader, 0, rows=packets.ROWS_AT_ONCE))
        for target in targets:
            if target.option == "--csv":
                frames = packets.through_csv(frames, opened.enter_context(_sink(target)))
            else:
                temporary = opened.enter_context(output.replacing(target))
                packets.write_parquet(frames, str(temporary), work)
        for _ in frames:
            ...
        for note in reader.info.notes:
            streams.warning(f"{capture}: {note}")


@contextlib.contextmanager
def _sink(target: Target) -> Iterator[Callable[[bytes], object]]:
    """Lend what writes to a target. Raises OutputError."""
    if target.is_stdout:
        yield streams.emit_bytes
        return

    def write(data: bytes) -> None:
        try:
            file.write(data)
        except OSError as error:  # told here: what is written beside it is not to blame
            reason = error.strerror or error
            message = f"{target}: cannot be written: {reason}; nothing was changed"
            raise streams.OutputError(message) from error

    with output.replacing(target) as temporary, temporary.open("wb", buffering=0) as file:
        yield write
