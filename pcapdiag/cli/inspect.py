"""`pcapdiag inspect`: what is in captures, no verdict."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from pcapdiag.cli import output, streams
from pcapdiag.cli.options import NAMING, debug_option, resolve_inputs
from pcapdiag.cli.output import Target
from pcapdiag.cli.program import Exit
from pcapdiag.cli.progress import reading
from pcapdiag.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from pcapdiag.capture.frames import CaptureInfo
    from pcapdiag.cli.inspection import Count, IcmpErrors, Inspection, VantageSummary


@click.command(
    short_help="Say what is in captures, without a verdict.",
    epilog=NAMING
    + """
\b
Examples:
  pcapdiag inspect director.pcap
  pcapdiag inspect captures/ --write-site site.toml
""",
)
@click.argument("captures", metavar="[NAME=]CAPTURE...", nargs=-1, required=True)
@click.option(
    "--write-site",
    metavar="FILE",
    help="Write the services and hosts that were inferred, as a start for 'analyze --site'. "
    "A file that exists is left alone.",
)
@debug_option
def command(captures: tuple[str, ...], write_site: str | None) -> int:
    """Say what is in captures, without a verdict.

    Link types, time span, packets, drops, protocols; the services and roles that the traffic
    shows, with the reason for each; ICMP errors by message and sender.
    """
    target = None if write_site is None else Target("--write-site", write_site)
    inputs, failures = resolve_inputs(captures)
    if target is not None:
        read = [path for item in inputs for path in item.paths]
        output.check([target], [*read, *captures])
        if os.path.isfile(target.path) and os.path.getsize(target.path):  # noqa: PTH113, PTH202
            raise UsageError(
                f"{target} exists: it may have been corrected by hand; remove it first"
            )
    for failure in failures:
        streams.error(str(failure))
    from pcapdiag import engine
    from pcapdiag.cli.inspection import inspect, site_comments, site_of

    with reading() as progress:
        loaded = engine.load(inputs, progress=progress)
    for failure in loaded.failures:
        streams.error(str(failure))
    if not loaded.case.vantages:
        return Exit.UNREADABLE
    console = streams.page(streams.TABLE_WIDTH)
    _print(console, inspect(loaded.case))
    if target is not None:
        from pcapdiag.site import dump

        topology = loaded.case.topology
        output.write(target, site_comments(topology) + dump(site_of(topology)))
    streams.show(console)
    return Exit.UNREADABLE if failures or loaded.failures else Exit.OK


def _print(console: Console, found: Inspection) -> None:
    for number, vantage in enumerate(found.vantages):
        if number:
            console.print()
        _print_vantage(console, vantage)
    if found.services:
        rows = [
            (each.name, each.method, ", ".join(each.realservers) or "none seen", each.reason)
            for each in found.services
        ]
        _print_table(console, "Services", ("service", "method", "realservers", "because"), rows)
    else:
        _heading(console, "Services")
        console.print("  none recognized")
    if found.hosts:
        rows = [
            (each.name, each.role, "\n".join((*each.addresses, *each.macs)), each.reason)
            for each in found.hosts
        ]
        _print_table(console, "Hosts", ("host", "role", "addresses", "because"), rows)
    if found.notes:
        _heading(console, "Notes")
        for note in found.notes:
            console.print(f"  {note}")


def _print_vantage(console: Console, vantage: VantageSummary) -> None:
    from rich.text import Text

    source = "" if vantage.role_source == vantage.role else f" ({vantage.role_source})"
    console.print(Text.assemble((vantage.name, "bold"), f"  {vantage.role}{source}"))
    if vantage.role_reason:
        console.print(Text(f"  because: {vantage.role_reason}"))
    for info in vantage.captures:
        _print_capture(console, info)
    copies = f", {vantage.copies:,} of them second sights" if vantage.copies else ""
    line = f"  packets    {vantage.packets:,}{copies}, in {vantage.flows:,} flows"
    console.print(Text(line))
    for title, counts in (
        ("protocols", vantage.protocols),
        ("tunnels", vantage.tunnels),
        ("decoding", vantage.decode_notes),
    ):
        if counts:
            console.print(Text(f"  {title:<10} {_listed(counts)}"))
    if vantage.icmp_errors:
        _print_table(
            console,
            f"ICMP errors at {vantage.name}",
            ("message", "sender", "messages", "first", "last", "remarks"),
            [_error_row(each) for each in vantage.icmp_errors],
        )
        if vantage.icmp_errors_left_out:
            console.print(Text(f"  and {vantage.icmp_errors_left_out:,} more"))
    else:
        console.print(Text("  ICMP errors none"))


def _print_capture(console: Console, info: CaptureInfo) -> None:
    from rich.text import Text

    from pcapdiag.capture import linktype
    from pcapdiag.report.instants import duration, span
    from pcapdiag.text import clean

    links = ", ".join(map(linktype.name, info.link_types)) or "no frames"
    facts = [info.format, links, f"{info.packets:,} packets", span(info.first_ns, info.last_ns)]
    if info.first_ns is not None and info.last_ns is not None:
        facts[-1] += f" ({duration(info.last_ns - info.first_ns)})"
    facts += [f"snaplen {info.snaplen:,}"] if info.snaplen is not None else []
    facts += [f"{info.dropped:,} dropped"] if info.dropped is not None else []
    facts += ["cut short"] if info.cut_short else []
    console.print(Text(f"  {clean(info.path)}: {'; '.join(facts)}"))
    named = [each for each in info.interfaces if each.name or each.filter or each.description]
    for each in named:
        words = [f"interface {each.index}", each.name, each.description]
        words += [f"filter {each.filter!r}"] if each.filter else []
        words += [f"{each.dropped:,} dropped"] if each.dropped else []
        console.print(Text(f"    {', '.join(filter(None, words))}"))
    for note in info.notes:
        console.print(Text(f"    {note}", "yellow"))


def _listed(counts: Sequence[Count]) -> str:
    return ", ".join(f"{each.name} {each.packets:,}" for each in counts)


def _error_row(errors: IcmpErrors) -> tuple[str, ...]:
    from pcapdiag.report.instants import readable

    remarks = []
    if errors.mtus:
        remarks.append(f"next-hop MTU {', '.join(map(str, errors.mtus))}")
    if errors.bad_checksums:
        remarks.append(f"{errors.bad_checksums:,} with a bad checksum")
    return (
        errors.message,
        errors.sender,
        f"{errors.messages:,}",
        "" if errors.first_ns is None else readable(errors.first_ns),
        "" if errors.last_ns is None else readable(errors.last_ns),
        "; ".join(remarks),
    )


def _heading(console: Console, title: str) -> None:
    from rich.text import Text

    console.print()
    console.print(Text(title, "bold"))


def _print_table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    _heading(console, title)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=True, show_edge=False)
    for column in columns:
        right = column == "messages"
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
