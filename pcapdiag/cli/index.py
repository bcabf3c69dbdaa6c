"""`pcapdiag index`: captures decoded once, into a small file that `analyze` takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pcapdiag.cli import cores, output
from pcapdiag.cli.options import NAMING, debug_option, resolve_inputs, work_dir_option
from pcapdiag.cli.output import Target
from pcapdiag.cli.program import Exit
from pcapdiag.cli.progress import reading
from pcapdiag.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pcapdiag.capture.vantages import VantageInput
    from pcapdiag.cli.progress import Report
    from pcapdiag.export.index import Entry
    from pcapdiag.spool import WorkDirectory


@click.command(
    short_help="Decode captures once, into a small file to analyse again.",
    epilog="\b\n"
    + NAMING.removeprefix("\b\n")
    + """
\b
Examples:
  pcapdiag index rs1.pcap -o rs1.pcapidx
  pcapdiag index director=d.pcap rs1=rs1.pcap -o case.pcapidx
  pcapdiag analyze case.pcapidx
  pcapdiag analyze director.pcap rs1.pcapidx
""",
)
@click.argument("captures", metavar="[NAME=]CAPTURE...", nargs=-1, required=True)
@click.option("-o", "--output", "path", metavar="FILE", required=True, help="Write the index here.")
@click.option(
    "--site", metavar="FILE", help="What is known of the cluster: here, which ports carry tunnels."
)
@click.option("--digest", is_flag=True, help="Note the SHA-256 of each capture.")
@work_dir_option
@debug_option
def command(
    captures: tuple[str, ...], path: str, site: str | None, digest: bool, work_dir: str | None
) -> int:
    """Decode captures once, into a small file to analyse again.

    'analyze' takes the index wherever it takes captures, with the same result: make it where the
    capture was taken and carry only the index home. It holds every header and no payload, but for
    the first 256 bytes of ICMP, ARP and VRRP frames: what only payload tells, such as checksums of
    TCP, stays unexamined without the capture. It is a zip archive of Parquet tables.

    An index whose capture is still there, and is another one by now, is refused.
    """
    inputs, failures = resolve_inputs(captures)
    if failures:  # an index that lacks a capture would pass for the whole
        raise failures[0]
    paths = [each for item in inputs for each in item.paths]
    if any(each == "-" or Path(each).is_fifo() for each in paths):
        raise UsageError("an index is made of files: it notes which, to notice that one changed")
    cores.bound(inputs)
    target = Target("--output", path)
    output.check([target], [*paths, *captures])
    from pcapdiag.export import index
    from pcapdiag.site import load
    from pcapdiag.spool import WorkDirectory

    ports = load(site).tunnel_ports if site is not None else frozenset[int]()
    with (
        WorkDirectory(work_dir) as work,
        reading() as progress,
        output.replacing(target) as temporary,
    ):
        index.write(temporary, _entries(inputs, digest, ports, progress, work))
    return Exit.OK


def _entries(
    inputs: Sequence[VantageInput],
    digest: bool,
    ports: frozenset[int],
    progress: Report | None,
    work: WorkDirectory,
) -> Iterator[Entry]:
    """Yield what is to be written of each capture, and drop it once that is done."""
    from pcapdiag import spool, workers
    from pcapdiag.capture import indexed
    from pcapdiag.export import index

    for item in inputs:
        for path in item.paths:
            if indexed.member(path):
                raise UsageError(f"{path} is in an index already; give its capture")
            read = workers.read_capture(
                path,
                0,
                digest=digest,
                tunnel_ports=ports,
                progress=progress,
                work=work,
                in_memory_rows=spool.IN_MEMORY_ROWS,
            )
            frames = index.kept_frames(path, read.decoded)
            capture = indexed.IndexedCapture(
                vantage=item.name,
                labelled=item.labelled,
                info=read.info,
                digest=indexed.sample_digest(path),
                sha256=read.sha256,
                tunnel_ports=tuple(sorted(ports)),
            )
            indexed.require_unchanged(read.info)
            yield index.Entry(capture, read.decoded, frames)
            spool.clear(spool.folders([read.decoded.packets]))
