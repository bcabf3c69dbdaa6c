"""`pcapdiag analyze`: captures in, verdicts out."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import click

from pcapdiag.cli import cores, documents, instant, output, streams
from pcapdiag.cli.options import (
    NAMING,
    debug_option,
    require_rules,
    resolve_inputs,
    rules_dir_option,
    split_list,
    work_dir_option,
)
from pcapdiag.cli.output import Target
from pcapdiag.cli.program import Exit
from pcapdiag.cli.progress import reading
from pcapdiag.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.capture.vantages import VantageInput
    from pcapdiag.engine import Loaded
    from pcapdiag.errors import CaptureError
    from pcapdiag.export.evidence import Exhibits
    from pcapdiag.result import Result
    from pcapdiag.spool import WorkDirectory

EVIDENCE: Final = "--evidence"

REPORT: Final = "pcapdiag-report.html"
"""Where the HTML report goes unless told otherwise, in the working directory."""

SEVERITIES: Final = ("critical", "high", "medium", "low", "info")
"""As in result.Severity, which is not imported for the sake of --help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked for, each option as given."""

    captures: tuple[str, ...]
    html: str | None
    no_html: bool
    json: str | None
    markdown: str | None
    evidence: str | None
    evidence_payload: bool
    dissect: bool
    site: str | None
    facts: tuple[str, ...]
    select: tuple[str, ...]
    ignore: tuple[str, ...]
    rules_dirs: tuple[str, ...]
    since: instant.Moment | None
    until: instant.Moment | None
    fail_on: str | None
    fail_on_not_examined: bool
    digest: bool
    redact: bool
    jobs: int | None
    scheduler: str | None
    work_dir: str | None
    quiet: bool
    verbose: bool

    @property
    def html_path(self) -> str | None:
        """Return where the HTML report goes."""
        if self.no_html:
            return None
        return REPORT if self.html is None else self.html

    @property
    def targets(self) -> tuple[Target, ...]:
        """Return what is to be written where."""
        named = (
            ("--html", self.html_path, False),
            ("--json", self.json, True),
            ("--markdown", self.markdown, True),
            (EVIDENCE, self.evidence, False),
        )
        return tuple(
            Target(option, path, may_be_stdout=stdout)
            for option, path, stdout in named
            if path is not None
        )

    @property
    def documents(self) -> tuple[Target, ...]:
        """Return the targets that are made of the result alone."""
        return tuple(target for target in self.targets if target.option != EVIDENCE)


def _moment(
    _ctx: click.Context, param: click.Parameter, value: str | None
) -> instant.Moment | None:
    if value is None:
        return None
    try:
        return instant.parse(value)
    except ValueError as error:
        raise UsageError(f"--{param.name}: {error}") from error


@click.command(
    short_help="Find faults in captures, and write the incident report.",
    epilog="\b\n"
    + NAMING.removeprefix("\b\n")
    + """
\b
Examples:
  pcapdiag analyze director=director.pcap rs1=rs1.pcap rs2=rs2.pcap
  pcapdiag analyze director=eth0.pcap director=eth1.pcap rs1=rs1.pcap.gz
  pcapdiag analyze captures/ --site site.toml --html incident.html
  pcapdiag analyze director.pcap --since +60 --until 2024-05-01T10:15:00Z
  tcpdump -r big.pcap -w - icmp | pcapdiag analyze director=- --json -
  pcapdiag analyze *.pcap --fail-on high --no-html --quiet || echo broken

\b
Exit codes:
  0    analysed, and nothing found at or above --fail-on
  1    something found at or above --fail-on, or left unexamined with
       --fail-on-not-examined
  2    wrong usage, or an output that cannot be written
  3    an input that cannot be read (the others are analysed and reported)
  130  interrupted (143: terminated)
Where several apply: 2 before 3 before 1.
""",
)
@click.argument("captures", metavar="[NAME=]CAPTURE...", nargs=-1, required=True)
@click.option("--html", metavar="FILE", help=f"Write the HTML report here.  [default: {REPORT}]")
@click.option("--no-html", is_flag=True, help="Write no HTML report.")
@click.option("--json", metavar="FILE|-", help="Write the result as JSON; - is standard output.")
@click.option("--markdown", metavar="FILE|-", help="Write the report as Markdown.")
@click.option(
    "--evidence",
    metavar="FILE.pcapng",
    help="Write the cited frames and what is around them, commented, for Wireshark. What TCP, UDP "
    "and SCTP carry is cut off.",
)
@click.option("--evidence-payload", is_flag=True, help="Keep whole packets in --evidence.")
@click.option(
    "--dissect",
    is_flag=True,
    help="Show each cited frame in the reports as Wireshark reads it, or scapy where tshark is not "
    "installed. Takes a second or two.",
)
@click.option(
    "--site",
    metavar="FILE",
    help="What is known of the cluster: services, hosts, roles (TOML). "
    "'pcapdiag inspect --write-site' makes one to start from.",
)
@click.option(
    "--facts",
    metavar="[NAME=]FILE",
    multiple=True,
    help="What a host says itself (repeatable): kernel logs (dmesg, syslog, journalctl -k), "
    "'ipvsadm -l --timeout' or 'ipvsadm -lnc', plain or gzip, or a directory of them.",
)
@click.option(
    "--select",
    metavar="RULE",
    multiple=True,
    callback=split_list,
    help="Run only these rules (repeatable, or a list with commas).",
)
@click.option(
    "--ignore", metavar="RULE", multiple=True, callback=split_list, help="Leave these rules out."
)
@rules_dir_option
@click.option(
    "--since",
    metavar="T",
    callback=_moment,
    help="Leave out what is earlier: a time with its zone (2024-05-01T10:00:00Z) or seconds from "
    "the first packet (+90).",
)
@click.option("--until", metavar="T", callback=_moment, help="Leave out what is later.")
@click.option(
    "--fail-on",
    type=click.Choice(SEVERITIES, case_sensitive=False),
    help="End with 1 where a finding has this severity or a worse one.",
)
@click.option(
    "--fail-on-not-examined",
    is_flag=True,
    help="End with 1 where a question stayed open or a rule failed.",
)
@click.option("--digest", is_flag=True, help="Note the SHA-256 of each capture.")
@click.option(
    "--redact",
    is_flag=True,
    help="Replace IP and MAC addresses by ip-1, mac-1, ..., the same everywhere, and leave out "
    "dissected frames. Names of places and files stay.",
)
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(1),
    help="Use N cores at most.  [default: all, one for small captures]",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Read the captures on a running Dask cluster (tcp://HOST:PORT), whose workers see them "
    "under the same paths; only tables travel.",
)
@work_dir_option
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Say what is being done, and how long it took.")
@debug_option
def command(**options: Any) -> int:
    """Find faults in captures, and write the incident report.

    Takes captures (pcap or pcapng, also compressed with gzip, zstd, lz4 or xz) of one or several
    hosts of a Linux Virtual Server cluster, taken at the same time. Prints a summary and writes
    the HTML report. The more places, the more can be proven: director and realservers is best.
    """
    return run(Request(**options))


def run(request: Request) -> int:
    """Do what was asked, and return the exit code."""
    _reject_contradictions(request)
    inputs, unresolved = resolve_inputs(request.captures)
    cores.bound(inputs, request.jobs)
    from pcapdiag.spool import WorkDirectory

    with WorkDirectory(request.work_dir) as work:
        return _run(request, inputs, unresolved, work)


def _run(
    request: Request,
    inputs: Sequence[VantageInput],
    unresolved: Sequence[CaptureError],
    work: WorkDirectory,
) -> int:
    from pcapdiag import engine, registry
    from pcapdiag.decode import alike_errors
    from pcapdiag.facts import load as load_facts
    from pcapdiag.site import load as load_site

    if request.select or request.ignore or request.rules_dirs:
        _check_rules(request, registry.rules(request.rules_dirs))
    facts = load_facts(request.facts)
    site = load_site(request.site) if request.site is not None else None
    _check_targets(request, inputs)
    now_ns = _now_ns()

    for failure in unresolved:
        streams.error(str(failure))
    started = time.perf_counter()
    with (
        cores.lent(inputs, request.jobs, request.scheduler) as executor,
        reading(not request.quiet) as progress,
    ):
        loaded = engine.load(
            inputs,
            site=site,
            facts=facts,
            since=_engine_instant(request.since),
            until=_engine_instant(request.until),
            digest=request.digest,
            executor=executor,
            progress=progress,
            work=work,
            most_icmp=alike_errors.MOST,
        )
    for failure in loaded.failures:
        streams.error(str(failure))
    failures = (*unresolved, *loaded.failures)
    if not loaded.case.vantages:
        return Exit.UNREADABLE
    if request.verbose:
        _tell_loaded(loaded, time.perf_counter() - started)

    started = time.perf_counter()
    result = engine.analyze(
        loaded,
        select=request.select,
        ignore=request.ignore,
        rules_dirs=request.rules_dirs,
        now_ns=now_ns,
    )
    result = _with_notes(result, inputs, failures)
    exhibits = None
    if request.evidence is not None or request.dissect:
        from pcapdiag.export import evidence

        exhibits = evidence.gather(
            loaded.case.vantages, result.findings, context=request.evidence is not None
        )
        for note in exhibits.notes:
            streams.warning(note)
        if request.dissect:
            from pcapdiag.exhibits import dissected

            result = dissected(result, loaded.case.vantages, exhibits)
    if request.redact:
        from pcapdiag.report.redact import redact

        result = redact(result)
    for failed in result.failed_rules:
        streams.warning(f"the rule {failed.rule} failed: {failed.error}")
    if request.verbose:
        streams.notice(f"judged in {time.perf_counter() - started:.2f} s")
    written = documents.write(request.documents, result, verbose=request.verbose)
    if exhibits is not None and request.evidence is not None:
        written &= _write_evidence(request, loaded, exhibits, result)
    if not request.quiet and not any(target.is_stdout for target in request.targets):
        documents.summarize(result, request.targets if written else ())
    return exit_code(request, result, bool(failures)) if written else Exit.USAGE


def _write_evidence(request: Request, loaded: Loaded, exhibits: Exhibits, result: Result) -> bool:
    from pcapdiag.export import evidence

    target = next(item for item in request.targets if item.option == EVIDENCE)
    try:
        with output.replacing(target) as temporary, temporary.open("wb") as file:
            evidence.write(
                file,
                loaded.case.vantages,
                exhibits,
                result.cluster,
                payload=request.evidence_payload,
                application=f"{result.tool.name} {result.tool.version}",
            )
    except streams.OutputError as error:
        streams.error(str(error))
        return False
    if request.verbose:
        streams.notice(f"wrote {target.path}")
    return True


def _reject_contradictions(request: Request) -> None:
    if request.evidence_payload and request.evidence is None:
        raise UsageError("--evidence-payload says what --evidence FILE holds, and that is missing")
    if request.redact and (request.evidence is not None or request.dissect):
        raise UsageError("--redact hides addresses that cited frames hold: give it alone")
    if request.no_html and request.html is not None:
        raise UsageError("--html and --no-html contradict each other")
    if request.quiet and request.verbose:
        raise UsageError("--quiet and --verbose contradict each other")
    since, until = request.since, request.until
    if since and until and since.relative == until.relative and since.ns > until.ns:
        raise UsageError("--since is later than --until: nothing would be left")


def _check_rules(request: Request, known: Any) -> None:
    require_rules((*request.select, *request.ignore), known)
    chosen = set(request.select or known) - set(request.ignore)
    if not chosen:
        raise UsageError("no rule is left: --ignore takes away all that --select names")


def _check_targets(request: Request, inputs: Sequence[VantageInput]) -> None:
    read = [path for item in inputs for path in item.paths]
    named = (*request.captures, request.site, *(each.partition("=")[2] for each in request.facts))
    read += [each for each in (*named, *request.facts) if each]
    output.check(request.targets, read)


def _engine_instant(moment: instant.Moment | None) -> Any:
    if moment is None:
        return None
    from pcapdiag.engine import Instant

    return Instant(ns=moment.ns, relative=moment.relative)


def _now_ns() -> int:
    """Return the time that the report bears; SOURCE_DATE_EPOCH makes it repeatable.

    See https://reproducible-builds.org/specs/source-date-epoch/.
    """
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not fixed:
        return time.time_ns()
    if not (fixed.isascii() and fixed.isdigit() and len(fixed) <= 9 + 2):
        raise UsageError(f"SOURCE_DATE_EPOCH must be seconds since 1970, not {fixed!r}")
    return int(fixed) * 1_000_000_000


def _with_notes(
    result: Result, inputs: Sequence[VantageInput], failures: Sequence[CaptureError]
) -> Result:
    """Note in the result what was decided about the inputs, and which could not be read.

    A report must not look complete where a capture is missing from it.
    """
    from pcapdiag.text import clean

    notes = [note for item in inputs for note in item.notes]
    notes += [
        f"{clean(failure.path)} could not be read and is missing from this analysis: "
        f"{clean(failure.message)}"
        for failure in failures
    ]
    new = (note for note in dict.fromkeys(notes) if note not in result.notes)
    return replace(result, notes=(*result.notes, *new))


def _tell_loaded(loaded: Loaded, seconds: float) -> None:
    for vantage in loaded.case.vantages:
        files = ", ".join(info.path for info in vantage.captures)
        streams.notice(f"{vantage.name}: {vantage.packets.height:,} packets of {files}")
    streams.notice(f"read in {seconds:.2f} s")


def exit_code(request: Request, result: Result, failed_inputs: bool) -> Exit:
    """Return 3 before 1 before 0; a failed rule counts as not examined."""
    if failed_inputs:
        return Exit.UNREADABLE
    if request.fail_on is not None:
        limit = SEVERITIES.index(request.fail_on)
        if any(finding.severity.rank <= limit for finding in result.findings):
            return Exit.FINDINGS
    if request.fail_on_not_examined and (result.not_examined or result.failed_rules):
        return Exit.FINDINGS
    return Exit.OK
