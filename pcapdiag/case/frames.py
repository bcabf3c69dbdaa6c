"""Rows of a vantage as evidence that a person can look up in Wireshark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from pcapdiag.result import Evidence
from pcapdiag.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pcapdiag.case.case import Case


def evidence(
    case: Case, role: str, vantage: int, rows: Iterable[int], note: str
) -> tuple[Evidence, ...]:
    """Return the frames at `rows` of a vantage, in that order, as evidence with one sentence.

    Times are the capture's own, as Wireshark shows them, not the common clock's.
    """
    tables = case.vantages[vantage]
    wanted = list(rows)
    picked = tables.packets[wanted].select("capture", "frame", "time_ns", "interface")
    captures = dict(zip(tables.capture_ids, tables.captures, strict=True))
    result = []
    for capture, number, time_ns, interface in picked.iter_rows():
        info = captures[capture]
        named = {item.index: item.name for item in info.interfaces}
        name = named.get(interface) if len(info.interfaces) > 1 or named.get(interface) else None
        result.append(
            Evidence(
                role=cast("Literal['primary', 'related', 'counter']", role),
                vantage=tables.name,
                file=clean(info.path),
                interface=clean(name) if name else None,
                frame=number,
                time_ns=time_ns,
                note=note,
            )
        )
    return tuple(result)
