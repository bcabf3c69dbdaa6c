"""Evidence with the frames themselves beside it, as a dissector reads them.

Verdicts never depend on it: the frames are read again after everything is judged.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from pcapdiag.addresses import endpoint_text
from pcapdiag.export import pcapng
from pcapdiag.result import Dissection
from pcapdiag.text import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.dissect import Frame
    from pcapdiag.export.evidence import Exhibit, Exhibits
    from pcapdiag.flows.vantage import VantageTables
    from pcapdiag.result import Evidence, Finding, Result

MAX_FRAMES: Final = 200
"""Dissected in all, the worst findings' first: as many as one finding may cite."""

_RAW_IPV4, _RAW_IPV6 = 228, 229
_MAX_LINE: Final = 160


def dissected(result: Result, vantages: Sequence[VantageTables], exhibits: Exhibits) -> Result:
    """Return `result` with dissections beside its evidence; what went wrong is a note."""
    from pcapdiag import dissect

    cited = _worst_first(exhibits, result)[:MAX_FRAMES]
    notes = list(exhibits.notes)
    found: dict[tuple[str, str, int], Dissection] = {}
    if cited:
        gue = _in_gue(vantages, cited)
        frames, leads = zip(
            *(_opened(item, gue.get((item.vantage, item.row))) for item in cited), strict=True
        )
        with TemporaryDirectory(prefix="pcapdiag-", ignore_cleanup_errors=True) as folder:
            slice_path = Path(folder) / "cited.pcapng"
            _write_slice(slice_path, frames)
            words = dissect.by_wireshark(slice_path, Path(folder), len(frames))
        told = {} if words is None else words.lines
        failure = "tshark is not installed" if words is None else words.note
        if failure is not None:
            notes.append(f"{failure}: scapy dissected the frames that it did not")
        for number, item in enumerate(cited):
            tool, lines = "Wireshark", told.get(number + 1, [])
            if not lines:
                tool, lines = "scapy", dissect.by_scapy(frames[number])
            if lines:
                rows = tuple(_line(line) for line in (*leads[number], *lines))
                found[_key(item)] = Dissection(tool=tool, lines=rows)
    return replace(
        result,
        findings=tuple(_with(finding, found) for finding in result.findings),
        notes=tuple(dict.fromkeys((*result.notes, *notes))),
    )


def _worst_first(exhibits: Exhibits, result: Result) -> list[Exhibit]:
    """Return the cited frames in the order in which the findings cite them."""
    order: dict[tuple[str, str, int], int] = {}
    for finding in result.findings:
        for item in finding.evidence:
            order.setdefault((item.vantage, item.file, item.frame), len(order))
    cited = [item for item in exhibits.frames if item.comments]
    return sorted(cited, key=lambda item: order.get(_key(item), 0))


def _in_gue(
    vantages: Sequence[VantageTables], cited: Sequence[Exhibit]
) -> dict[tuple[int, int], dict[str, Any]]:
    """Return, by vantage and row, what is known of the GUE around those that are in any."""
    rows: dict[int, list[int]] = {}
    for item in cited:
        rows.setdefault(item.vantage, []).append(item.row)
    return {
        (vantage, outer["row"]): outer
        for vantage, wanted in rows.items()
        for outer in vantages[vantage]
        .tunnels.lazy()
        .filter(pl.col("row").is_in(wanted), pl.col("kind") == "gue")
        .collect()
        .iter_rows(named=True)
    }


def _opened(item: Exhibit, outer: dict[str, Any] | None) -> tuple[Frame, tuple[str, ...]]:
    """Return a frame without payload, and without the headers of GUE, which tshark 4.0 lacks."""
    from pcapdiag.dissect import Frame

    data = item.raw.data[: item.headers]
    if outer is None or not item.version:
        return Frame(data, item.raw.linktype, item.raw.wire_len), ()
    source = endpoint_text(outer["outer_src_hi"], outer["outer_src_lo"], outer["outer_src_port"])
    target = endpoint_text(outer["outer_dst_hi"], outer["outer_dst_lo"], outer["outer_dst_port"])
    length = outer["outer_ip_len"]
    lead = f"Generic UDP Encapsulation: {source} > {target}, outer IP length {length}"
    linktype = _RAW_IPV6 if item.version == 6 else _RAW_IPV4
    inside = Frame(data[item.inner :], linktype, item.raw.wire_len - item.inner)
    return inside, (f"{lead} (left out of what follows)",)


def _write_slice(path: Path, frames: Sequence[Frame]) -> None:
    """Write frames without comments and with made-up times, as dissect.by_wireshark needs them."""
    linktypes = sorted({frame.linktype for frame in frames})
    interfaces = [pcapng.OutInterface("cited", "", linktype) for linktype in linktypes]
    with path.open("wb") as file:
        pcapng.write(
            file,
            interfaces,
            (
                pcapng.OutFrame(
                    interface=linktypes.index(frame.linktype),
                    time_ns=number * 1_000_000_000,
                    data=frame.data,
                    wire_len=max(frame.wire_len, len(frame.data)),
                )
                for number, frame in enumerate(frames, 1)
            ),
            application="pcapdiag",
        )


def _key(item: Exhibit) -> tuple[str, str, int]:
    return (item.name, item.file, item.raw.frame)


def _line(text: str) -> str:
    """Return a line made harmless, with the indentation that shows what belongs to what."""
    return " " * (len(text) - len(text.lstrip(" "))) + clean(text, _MAX_LINE)


def _with(finding: Finding, found: dict[tuple[str, str, int], Dissection]) -> Finding:
    def seen(item: Evidence) -> Evidence:
        words = found.get((item.vantage, item.file, item.frame))
        return item if words is None else replace(item, dissection=words)

    return replace(finding, evidence=tuple(seen(item) for item in finding.evidence))
