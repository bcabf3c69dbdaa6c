"""Packets and the other blocks that Wireshark numbers, merged into one batch of frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pcapdiag.capture.frames import NO_TIME, FrameBatch
from pcapdiag.decode_note import DecodeNote

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    from pcapdiag.capture.pcapng_packets import PacketColumns

NO_LINKTYPE: Final = 0xFFFF
"""`linktype` of a frame that holds no packet."""


def merge(
    data: NDArray[np.uint8],
    packets: PacketColumns,
    rows: NDArray[np.int64],
    others: NDArray[np.int64],
    starts: NDArray[np.int64],
    times: Mapping[int, int],
    frame: int,
) -> FrameBatch | None:
    """Return the blocks as frames in file order, numbered from `frame` on; None without any.

    `rows` tells which blocks the first elements of `packets` are, `others` which blocks are frames
    without a packet: those have caplen 0, the time that `times` has for them, and start where
    their block does, which `starts` tells of every block.
    """
    count = len(rows)
    total = count + len(others)
    if not total:
        return None
    at = np.searchsorted(others, rows) + np.arange(count) if len(others) else None

    def column(values: NDArray[Any], dtype: type[np.generic], without: int) -> NDArray[Any]:
        if at is None:
            return values[:count].astype(dtype, copy=False)
        merged = np.full(total, without, dtype=dtype)
        merged[at] = values[:count]
        return merged

    start = column(packets.start, np.int64, 0)
    time = column(packets.time_ns, np.int64, NO_TIME)
    note = column(packets.note, np.uint32, int(DecodeNote.NO_PACKET | DecodeNote.TIME_MISSING))
    if len(others):
        slots = np.searchsorted(rows, others) + np.arange(len(others))
        start[slots] = starts[others]
        for slot, row in zip(slots.tolist(), others.tolist(), strict=True):
            if row in times:
                time[slot] = times[row]
                note[slot] = DecodeNote.NO_PACKET
    return FrameBatch(
        data=data,
        start=start,
        caplen=column(packets.caplen, np.uint32, 0),
        wire_len=column(packets.wire_len, np.uint32, 0),
        time_ns=time,
        linktype=column(packets.linktype, np.uint16, NO_LINKTYPE),
        fcs_len=column(packets.fcs_len, np.uint8, 0),
        interface=column(packets.interface, np.uint16, 0),
        frame=np.arange(frame, frame + total, dtype=np.uint32),
        direction=column(packets.direction, np.uint8, 0),
        note=note,
    )
