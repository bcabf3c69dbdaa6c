"""The cited frames and what went on around them, out of their captures into one pcapng file.

The file goes into tickets: what packets carry behind their transport header is cut off unless it
is asked for. Frame numbers differ there, so each cited frame's comment names its file and number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from pcapdiag import spool
from pcapdiag.capture.frames import NO_TIME, FrameBatch, RawFrame
from pcapdiag.capture.reader import read_frames
from pcapdiag.decode import extent
from pcapdiag.errors import CaptureError
from pcapdiag.export import pcapng
from pcapdiag.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import BinaryIO

    from pcapdiag.flows.vantage import VantageTables
    from pcapdiag.result import Cluster, Evidence, Finding

CONTEXT: Final = 5
"""Packets of the same flow before and after a cited one: a handshake, or a few repeats."""

AROUND: Final = 2
"""Frames before and after a cited one that belongs to no flow, whatever they are."""

Place = tuple[int, int]
"""Index of the vantage, and of the capture within the case."""


class Exhibit(NamedTuple):
    """A frame out of its capture. `headers` and `inner` are those of decode.extent."""

    vantage: int
    capture: int
    row: int
    name: str
    """Of the vantage, as evidence names it; `file` likewise."""
    file: str
    raw: RawFrame
    headers: int
    inner: int
    version: int
    comments: tuple[str, ...] = ()
    """One for each citation; empty for context."""


class Exhibits(NamedTuple):
    """Frames by vantage, capture and frame number; `notes` say what is missing and why."""

    frames: tuple[Exhibit, ...]
    notes: tuple[str, ...]


def gather(
    vantages: Sequence[VantageTables], findings: Iterable[Finding], *, context: bool = True
) -> Exhibits:
    """Read the frames that `findings` cite, and their context, from their captures again.

    A frame that is no longer what was analysed is left out. Captures that cannot be read a second
    time (standard input, a file that is gone) become notes.
    """
    cited: dict[Place, dict[int, list[str]]] = {}
    places = _places(vantages)
    notes: list[str] = []
    for finding in findings:
        for item in finding.evidence:
            known = places.get((item.vantage, item.file), [])
            if len(known) == 1:
                comments = cited.setdefault(known[0], {}).setdefault(item.frame, [])
                comments.append(_comment(finding, item))
            else:
                why = "several captures are" if known else "no capture is"
                notes.append(f"cited frames are missing: {why} named {item.file}, {item.vantage}")
    frames: list[Exhibit] = []
    for (vantage, capture), remarks in sorted(cited.items()):
        try:
            frames += _read(vantages[vantage], capture, remarks, context, notes)
        except CaptureError as error:
            notes.append(f"cited frames of {clean(error.path)} are missing: {clean(error.message)}")
    return Exhibits(tuple(frames), tuple(dict.fromkeys(notes)))


def write(
    file: BinaryIO,
    vantages: Sequence[VantageTables],
    exhibits: Exhibits,
    cluster: Cluster,
    *,
    payload: bool = False,
    application: str = "pcapdiag",
) -> None:
    """Write exhibits as pcapng: an interface per vantage, capture and its interface, by time."""
    order: dict[tuple[int, int, int, int], int] = {}
    interfaces: list[pcapng.OutInterface] = []
    frames: list[pcapng.OutFrame] = []
    for item in sorted(exhibits.frames, key=lambda each: each.raw.time_ns):
        raw = item.raw
        key = (item.vantage, item.capture, raw.interface, raw.linktype)
        if key not in order:
            order[key] = len(interfaces)
            interfaces.append(_interface(vantages[item.vantage], item))
        timeless = raw.time_ns == NO_TIME
        frames.append(
            pcapng.OutFrame(
                interface=order[key],
                time_ns=0 if timeless else raw.time_ns,
                data=raw.data if payload else raw.data[: item.headers],
                wire_len=raw.wire_len,
                comments=item.comments + (("the original has no time",) if timeless else ()),
            )
        )
    kept = "Whole packets." if payload else "What TCP, UDP and SCTP carry was cut off."
    pcapng.write(
        file,
        interfaces,
        frames,
        application=application,
        comment=f"Frames that findings cite (commented) and their context. {kept}",
        names=host_names(cluster),
    )


def host_names(cluster: Cluster) -> list[tuple[str, str]]:
    """Return (address, name) of VIPs, realservers, directors and routers, each address once."""
    names: dict[str, str] = {}
    for service in cluster.services:
        if service.vip != "any":
            names.setdefault(service.vip, "vip-" + service.vip.replace(":", "-"))
    for group in (cluster.directors, cluster.realservers, cluster.routers):
        for host in group:
            for address in host.addresses:
                names.setdefault(address, clean(host.name, 60).replace(" ", "-"))
    return list(names.items())


def _places(vantages: Sequence[VantageTables]) -> dict[tuple[str, str], list[Place]]:
    """Return where the frames are that evidence names by vantage and (cleaned) path."""
    found: dict[tuple[str, str], list[Place]] = {}
    for vantage in vantages:
        for capture, info in zip(vantage.capture_ids, vantage.captures, strict=True):
            found.setdefault((vantage.name, clean(info.path)), []).append((vantage.index, capture))
    return found


def _comment(finding: Finding, item: Evidence) -> str:
    return (
        f"{finding.rule} ({item.role} evidence): {item.note} "
        f"[{item.file}, frame {item.frame}, vantage {item.vantage}]"
    )


def _read(
    vantage: VantageTables,
    capture: int,
    comments: dict[int, list[str]],
    context: bool,
    notes: list[str],
) -> list[Exhibit]:
    """Return the cited frames of one capture and their context, in its order."""
    cited = _rows(vantage, capture, pl.col("frame").is_in(list(comments)))
    rows = cited["row"].to_list()
    if context:
        rows = sorted({*rows, *_context(vantage, capture, cited)})
    table = spool.at(vantage.packets, rows, "frame", "time_ns", "wire_len", "caplen")
    path = next(
        info.path
        for number, info in zip(vantage.capture_ids, vantage.captures, strict=True)
        if number == capture
    )
    found = read_frames(path, table["frame"].to_list())
    same: list[tuple[int, RawFrame]] = []
    for row, (frame, *told) in zip(rows, table.iter_rows(), strict=True):
        raw = found.get(frame)
        if raw is None or told != [_time(raw), raw.wire_len, len(raw.data)]:
            notes.append(f"{clean(path)} is no longer what was analysed: frames are missing")
        else:
            same.append((row, raw))
    extents = extent.of(_batch([raw for _, raw in same]))
    return [
        Exhibit(
            vantage=vantage.index,
            capture=capture,
            row=row,
            name=vantage.name,
            file=clean(path),
            raw=raw,
            headers=int(extents.headers[index]),
            inner=int(extents.inner[index]),
            version=int(extents.version[index]),
            comments=tuple(comments.get(raw.frame, ())),
        )
        for index, (row, raw) in enumerate(same)
    ]


def _time(raw: RawFrame) -> int | None:
    return None if raw.time_ns == NO_TIME else raw.time_ns


def _rows(vantage: VantageTables, capture: int, wanted: pl.Expr) -> pl.DataFrame:
    """Return row, frame and flow of some packets of one capture."""
    return (
        vantage.packets.lazy()
        .select("capture", "frame", "flow")
        .with_row_index("row")
        .filter((pl.col("capture") == capture) & wanted)
        .select("row", "frame", "flow")
        .collect(engine=spool.engine(vantage.packets))
        .sort("row")
    )


def _context(vantage: VantageTables, capture: int, cited: pl.DataFrame) -> set[int]:
    """Return rows of the capture near the cited ones: of their flow, or that they quote.

    Where it is not in this capture, of those that stand beside them in the file.
    """
    about = (
        vantage.icmp_errors.select("row", pl.col("flow").alias("quoted_flow"))
        .cast({"row": pl.UInt32})
        .join(cited.select("row"), on="row", how="semi")
    )
    asked = cited.join(about, on="row", how="left")
    asked = asked.select("row", "frame", pl.coalesce("flow", "quoted_flow").alias("flow"))
    flows = asked["flow"].drop_nulls().unique().to_list()
    of_flows = _rows(vantage, capture, pl.col("flow").is_in(flows))
    rows_of = {flow: part["row"].to_numpy() for (flow,), part in of_flows.group_by("flow")}
    near: set[int] = set()
    beside: set[int] = set()
    for row, frame, flow in asked.iter_rows():
        rows = rows_of.get(flow)
        if rows is None:
            reach = AROUND if flow is None else CONTEXT
            beside.update(range(max(1, frame - reach), frame + reach + 1))
        else:
            place = int(np.searchsorted(rows, row))
            near.update(rows[max(0, place - CONTEXT) : place + CONTEXT + 1].tolist())
    return near.union(_rows(vantage, capture, pl.col("frame").is_in(list(beside)))["row"])


def _batch(frames: Sequence[RawFrame]) -> FrameBatch:
    lengths = np.array([len(raw.data) for raw in frames], dtype=np.int64)
    nothing = np.zeros(len(frames))
    return FrameBatch(
        data=np.frombuffer(b"".join(raw.data for raw in frames), dtype=np.uint8),
        start=np.concatenate([[0], np.cumsum(lengths)])[: len(frames)].astype(np.int64),
        caplen=lengths.astype(np.uint32),
        wire_len=np.array([raw.wire_len for raw in frames], dtype=np.uint32),
        time_ns=np.array([raw.time_ns for raw in frames], dtype=np.int64),
        linktype=np.array([raw.linktype for raw in frames], dtype=np.uint16),
        fcs_len=nothing.astype(np.uint8),
        interface=nothing.astype(np.uint16),
        frame=np.array([raw.frame for raw in frames], dtype=np.uint32),
        direction=nothing.astype(np.uint8),
        note=nothing.astype(np.uint32),
    )


def _interface(vantage: VantageTables, item: Exhibit) -> pcapng.OutInterface:
    info = vantage.captures[vantage.capture_ids.index(item.capture)]
    named = {each.index: each for each in info.interfaces}
    origin = named.get(item.raw.interface)
    name = origin.name if origin is not None and origin.name else ""
    return pcapng.OutInterface(
        name=f"{vantage.name}:{name}" if name else vantage.name,
        description=f"vantage {vantage.name}, file {item.file}"
        + (f", interface {name}" if name else ""),
        linktype=item.raw.linktype,
    )
