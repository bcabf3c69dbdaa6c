"""The incident report: one HTML file that needs no network, no scripts and no capture.

Every text of the result counts as captured, so as hostile. Three walls stand before the browser:
each value is made printable and bounded where it is put out, Jinja2 escapes it, and the content
security policy admits nothing but this package's own style and script, by their hashes.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import sys
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FileSystemBytecodeCache, PackageLoader, StrictUndefined
from markupsafe import Markup

from pcapdiag.report import (
    figure_captures,
    figure_cluster,
    figure_ladder,
    instants,
    plain,
    story,
    wording,
)
from pcapdiag.report.finding_page import FindingPage, Limits, finding_pages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jinja2.bccache import Bucket

    from pcapdiag.result import Finding, Result

MAX_BYTES: Final = 2_000_000
"""Of the whole file: what ticket systems and mail still take as an attachment."""

LIMITS: Final = (
    Limits(findings=100, evidence=60, flows=40, rows=200, few=20, text=2000, command=2000),
    Limits(findings=60, evidence=25, flows=15, rows=60, few=8, text=800, command=1000),
    Limits(findings=30, evidence=10, flows=5, rows=25, few=4, text=300, command=500),
    Limits(findings=5, evidence=4, flows=2, rows=6, few=2, text=120, command=250),
)
"""From ordinary to hostile; the last keeps below MAX_BYTES whatever the result holds."""


def render(result: Result) -> str:
    """Return the report as HTML of at most MAX_BYTES in UTF-8; equal results give equal bytes."""
    for limits in LIMITS[:-1]:
        page = _within(MAX_BYTES, _parts(result, limits))
        if page is not None:
            return page
    return "".join(_parts(result, LIMITS[-1]))


def _within(size: int, parts: Iterator[str]) -> str | None:
    """Return the joined parts, or None as soon as they have more than `size` bytes."""
    kept = []
    for part in parts:
        kept.append(part)
        size -= len(part.encode())
        if size < 0:
            return None
    return "".join(kept)


def _parts(result: Result, limits: Limits) -> Iterator[str]:
    pages = finding_pages(story.worst_first(result.findings), limits)
    step = story.next_step(result)
    style, script = _asset("style.css"), _asset("copy.js")
    anchors = plain.anchors([point.name for point in result.vantages])
    cluster = result.cluster
    groups = (
        ("director", cluster.directors),
        ("realserver", cluster.realservers),
        ("router", cluster.routers),
    )
    return (
        _environment(limits)
        .get_template("report.html.j2")
        .generate(
            result=result,
            policy=_policy(style, script),
            style=Markup(style),  # noqa: S704 - the package's own file
            script=Markup(script),  # noqa: S704 - likewise
            verdict=story.verdict(result),
            worst=pages[0].finding if pages else None,
            worst_reach=pages[0].reach if pages else "",
            captured=story.captured_text(result.vantages),
            weaknesses=story.weaknesses(result.vantages),
            step=step,
            step_anchor=_anchor_of(step.finding, pages),
            pages=pages,
            gaps=story.gaps(result.not_examined),
            vantages=list(zip(anchors, result.vantages, strict=True)),
            vantage_anchors={
                point.name: anchor for anchor, point in zip(anchors, result.vantages, strict=True)
            },
            files=[(point, file) for point in result.vantages for file in point.files],
            captures_figure=figure_captures.lay_out(result.vantages),
            cluster_figure=figure_cluster.lay_out(
                cluster, [point.name for point in result.vantages]
            ),
            hosts=[(role, host) for role, group in groups for host in group],
            shortened=limits is not LIMITS[0],
        )
    )


_CACHE_NAME: Final = f"%s.{sys.implementation.cache_tag}.jinja"


class _Compiled(FileSystemBytecodeCache):
    """Compiled templates kept where Python keeps this module's bytecode, under the same terms.

    Compiling them takes longer than all else that a short report does.
    """

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep a template where that is wanted and can be done."""
        if not sys.dont_write_bytecode:
            with contextlib.suppress(OSError):
                super().dump_bytecode(bucket)


@cache
def _environment(limits: Limits) -> Environment:
    """Return the templates, with what every text passes through on its way out."""

    def put_out(value: Any) -> Any:
        if isinstance(value, str) and not isinstance(value, Markup | _Verbatim):
            return plain.line(value, limits.text)
        return value

    def commands(lines: Sequence[str]) -> _Verbatim:
        rows = (row for item in lines for row in plain.command(item, limits.command))
        return _Verbatim("\n".join(rows))

    def verbatim(lines: Sequence[str]) -> _Verbatim:
        return _Verbatim("\n".join(plain.row(item, limits.text) for item in lines))

    environment = Environment(
        loader=PackageLoader("pcapdiag.report"),
        bytecode_cache=_Compiled(str(Path(__file__).with_name("__pycache__")), _CACHE_NAME),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=put_out,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["limits"] = limits
    environment.filters.update(
        commands=commands,
        verbatim=verbatim,
        number=plain.number,
        counted=plain.counted,
        link=plain.link,
        utc=wording.utc,
        seconds=instants.seconds,
        packet=figure_ladder.words,
        scope_text=story.scope_text,
        examined=wording.examined,
        clock_offset=wording.clock_offset,
        file_span=wording.file_span,
        service=wording.service,
        method=wording.method,
    )
    return environment


class _Verbatim(str):
    """Text whose white space counts and that has been made printable already; still escaped."""

    __slots__ = ()


def _anchor_of(finding: Finding | None, pages: tuple[FindingPage, ...]) -> str:
    return next((page.anchor for page in pages if page.finding is finding), "")


@cache
def _asset(name: str) -> str:
    return (resources.files("pcapdiag.report") / "templates" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Return the content security policy that admits exactly `style` and `script`."""
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    ]
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[1]}'; style-src 'sha256-{hashes[0]}'; "
        "img-src data:"
    )
