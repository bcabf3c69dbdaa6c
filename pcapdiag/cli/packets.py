"""`pcapdiag packets`: the decoded table, as is."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pcapdiag.cli import cores, output, streams
from pcapdiag.cli.options import debug_option
from pcapdiag.cli.output import Target
from pcapdiag.cli.program import Exit
from pcapdiag.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pcapdiag.decode.packets import Decoded


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
@debug_option
def command(capture: str, csv: str | None, parquet: str | None) -> int:
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
    from pcapdiag.export.packets import write_csv, write_parquet

    decoded = _decode(capture)
    for target in targets:
        _export(write_csv if target.option == "--csv" else write_parquet, decoded, target)
    return Exit.OK


def _decode(capture: str) -> Decoded:
    from pcapdiag.capture.reader import open_capture
    from pcapdiag.decode.packets import decode_capture

    with open_capture(capture) as reader:
        decoded = decode_capture(reader, 0)
        for note in reader.info.notes:
            streams.warning(f"{capture}: {note}")
    return decoded


def _export(export: Callable[[Decoded, str], None], decoded: Decoded, target: Target) -> None:
    if not target.is_stdout:
        with output.replacing(target) as temporary:
            export(decoded, str(temporary))
        return
    with tempfile.TemporaryDirectory(prefix="pcapdiag-") as folder:
        path = Path(folder) / "packets"
        export(decoded, str(path))
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                streams.emit_bytes(block)
