"""What the program makes of a modelled cluster's captures, beside what they really hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ipvs_model import Seen, Vantage, World, capture

from pcapdiag.capture.reader import open_capture
from pcapdiag.case.case import Case
from pcapdiag.decode.packets import GUE_PORTS, decode_capture
from pcapdiag.flows import vantage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pcapdiag.site import Site


@dataclass
class Modelled:
    """A case, and what each row of each of its vantages really is."""

    world: World
    case: Case
    truth: list[list[Seen]]
    captured: list[Vantage]


def modelled(
    world: World,
    names: Sequence[str],
    folder: Path,
    *,
    labelled: bool = True,
    site: Site | None = None,
) -> Modelled:
    """Write what some vantages of a world captured, and read it."""
    ports = GUE_PORTS | (site.tunnel_ports if site else frozenset())
    tables, truth = [], []
    number = 0
    for index, name in enumerate(names):
        parts, frames = [], {}
        for item in capture(world, world.vantages[name], folder):
            with open_capture(item.path) as reader:
                decoded = decode_capture(reader, number, gue_ports=ports)
                parts.append((reader.info, decoded))
            frames |= {(number, frame): seen for frame, seen in enumerate(item.truth, 1)}
            number += 1
        role = "realserver" if name.startswith("rs") else name.rstrip("0123456789")
        made = vantage.build(
            index, name if labelled else f"v{index}", role if labelled else None, parts
        )
        tables.append(made)
        truth.append([frames[key] for key in made.packets.select("capture", "frame").rows()])
    captured = [world.vantages[name] for name in names]
    return Modelled(world, Case(tuple(tables), site), truth, captured)
