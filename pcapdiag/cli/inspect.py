"""`pcapdiag inspect`: what is in captures, no verdict."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from pcapdiag.cli import cores, output, streams
from pcapdiag.cli.options import NAMING, debug_option, resolve_inputs, work_dir_option
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
@work_dir_option
@debug_option
def command(captures: tuple[str, ...], write_site: str | None, work_dir: str | None) -> int:
    """Say what is in captures, without a verdict.

    Link types, time span, packets, drops, protocols; the services and roles that the traffic
    shows, with the reason for each and how sure it is; ICMP errors by message and sender.
    """
    target = None if write_site is None else Target("--write-site", write_site)
    inputs, failures = resolve_inputs(captures)
    cores.bound(inputs)
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
    from pcapdiag.spool import WorkDirectory

    with WorkDirectory(work_dir) as work:
        with reading() as progress:
            loaded = engine.load(inputs, progress=progress, work=work)
        for failure in loaded.failures:
            streams.error(str(failure))
        if not loaded.case.vantages:
            return Exit.UNREADABLE
        console = streams.page(streams.UNFOLDED)
        _print(console, inspect(loaded.case, [note for item in inputs for note in item.notes]))
        if target is not None:
            from pcapdiag.site import dump

            topology = loaded.case.topology
            output.write(target, site_comments(topology) + dump(site_of(topology)))
        streams.show(console)
        return Exit.UNREADABLE if failures or loaded.failures else Exit.OK


def _print(console: Console, found: Inspection) -> None:
    for vantage in found.vantages:
        _print_vantage(console, vantage)
    _heading(console, "Services")
    if not found.services:
        console.print("  none recognized")
    for service in found.services:
        realservers = ", ".join(service.realservers) or "none seen"
        facts = [("method", service.method), ("realservers", realservers)]
        _entry(console, service.name, [*facts, _because(service.reason, service.confidence)])
    if found.hosts:
        _heading(console, "Hosts")
    for host in found.hosts:
        facts = [("role", host.role), ("addresses", ", ".join(host.addresses))]
        facts += [("macs", ", ".join(host.macs)), _because(host.reason, host.confidence)]
        _entry(console, host.name, facts)
    if found.notes:
        _heading(console, "Notes")
    for note in found.notes:
        _fact(console, "", note)


def _print_vantage(console: Console, vantage: VantageSummary) -> None:
    _heading(console, f"Captured at {vantage.name}")
    source = "" if vantage.role_source == vantage.role else f" ({vantage.role_source})"
    _fact(console, "role", f"{vantage.role}{source}")
    _fact(console, *_because(vantage.role_reason, vantage.role_confidence))
    for info in vantage.captures:
        _print_capture(console, info)
    copies = f", {vantage.copies:,} of them second sights" if vantage.copies else ""
    _fact(console, "packets", f"{vantage.packets:,}{copies}, in {vantage.flows:,} flows")
    _fact(console, "protocols", _listed(vantage.protocols))
    _fact(console, "tunnels", _listed(vantage.tunnels))
    _fact(console, "decoding", _listed(vantage.decode_notes))
    _fact(console, "errors", "" if vantage.icmp_errors else "no ICMP errors")
    if vantage.icmp_errors:
        _print_errors(console, vantage)


def _because(reason: str, confidence: str) -> tuple[str, str]:
    """Return the reason for an inference as a fact, with how sure it is."""
    return "because", f"{reason} ({confidence} confidence)" if reason else ""


def _print_capture(console: Console, info: CaptureInfo) -> None:
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
    _fact(console, "file", f"{clean(info.path)}: {'; '.join(facts)}")
    for each in info.interfaces:
        words = [each.name, each.description]
        words += [f"filter {each.filter!r}"] if each.filter else []
        words += [f"{each.dropped:,} dropped"] if each.dropped else []
        if any(words):
            _fact(console, "interface", ", ".join([str(each.index), *filter(None, words)]))
    for note in info.notes:
        _fact(console, "note", note, "yellow")


def _listed(counts: Sequence[Count]) -> str:
    return ", ".join(f"{each.name} {each.packets:,}" for each in counts)


def _print_errors(console: Console, vantage: VantageSummary) -> None:
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for column in ("ICMP error", "sender", "messages", "when", "remarks"):
        right = column == "messages"
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for errors in vantage.icmp_errors:
        table.add_row(*map(Text, _error_row(errors)))
    console.print(Padding(table, (1, 0, 0, 2)))
    if vantage.icmp_errors_left_out:
        _fact(console, "", f"and {vantage.icmp_errors_left_out:,} more")


def _error_row(errors: IcmpErrors) -> tuple[str, ...]:
    from pcapdiag.report.instants import span

    remarks = []
    if errors.mtus:
        remarks.append(f"next-hop MTU {', '.join(map(str, errors.mtus))}")
    if errors.bad_checksums:
        remarks.append(f"{errors.bad_checksums:,} with a bad checksum")
    return (
        errors.message,
        errors.sender,
        f"{errors.messages:,}",
        span(errors.first_ns, errors.last_ns),
        "; ".join(remarks),
    )


def _heading(console: Console, title: str) -> None:
    from rich.text import Text

    if console.file.tell():
        console.print()
    console.print(Text(title, "bold"))


def _entry(console: Console, name: str, facts: Sequence[tuple[str, str]]) -> None:
    from rich.text import Text

    console.print(Text(f"  {name}"))
    for title, text in facts:
        _fact(console, f"  {title}", text)


def _fact(console: Console, title: str, text: str, style: str = "") -> None:
    """Print a line with a title, and nothing where there is nothing to say."""
    from rich.table import Table
    from rich.text import Text

    if not text:
        return
    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_column(no_wrap=True, min_width=15 if title.startswith(" ") else 11)
    line.add_column()
    line.add_row(Text(f"  {title}", "dim"), Text(text, style))
    console.print(line)
