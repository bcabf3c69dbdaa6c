"""The cluster as inferred: hosts in columns by role, traffic as numbered arrows.

Numbers instead of labels on the arrows: labels would cover each other. The table beside the
figure says what each number is.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from pcapdiag.report.plain import counted, line

if TYPE_CHECKING:
    from collections.abc import Collection

    from pcapdiag.result import Cluster, Edge

WIDTH: Final = 720
MAX_NODES: Final = 8
"""Hosts in one column; a larger cluster is shown as its table."""
MAX_EDGES: Final = 24
"""Arrows that can be followed by eye."""
_BOX: Final = 128
_BOX_HEIGHT: Final = 40
_ROW: Final = 84
_TOP: Final = 34
_BADGE: Final = 20  # closest distance of two numbers
_SHIFT: Final = 16  # between arrows of one pair of hosts,
_SPREAD: Final = 36  # as long as they all leave from the side of the box
_BULGE: Final = 44  # of an arrow around other columns


class Node(NamedTuple):
    """A host; (x, y) is its middle."""

    name: str
    address: str
    x: int
    y: int
    captured: bool


class Line(NamedTuple):
    """An arrow as an SVG path, its head, and where its number stands."""

    number: int
    path: str
    head: str
    x: int
    y: int
    broken: bool
    cross: str
    """Path of the cross on a broken arrow; empty on others."""


class ClusterFigure(NamedTuple):
    """Boxes and arrows."""

    width: int
    height: int
    box_width: int
    box_height: int
    nodes: tuple[Node, ...]
    lines: tuple[Line, ...]
    sentence: str


def lay_out(cluster: Cluster, captured: Collection[str] = ()) -> ClusterFigure | None:
    """Return the drawing of the cluster's edges, or None for none or more than can be drawn.

    `captured` are the names of hosts where captures were taken.
    """
    edges = cluster.edges
    if not edges or len(edges) > MAX_EDGES:
        return None
    columns = _columns(cluster)
    if max(len(names) for names in columns) > MAX_NODES:
        return None
    hosts = {
        host.name: host
        for group in (cluster.directors, cluster.realservers, cluster.routers)
        for host in group
    }
    shared = {service.vip for service in cluster.services}
    tallest = max(len(names) for names in columns)
    height = _TOP * 2 + tallest * _ROW
    gap = (WIDTH - _BOX - 8) / max(1, len(columns) - 1)
    places: dict[str, Node] = {}
    for index, names in enumerate(columns):
        x = WIDTH // 2 if len(columns) == 1 else round(_BOX / 2 + 4 + index * gap)
        offset = (height - len(names) * _ROW) // 2
        for row, name in enumerate(names):
            addresses = hosts[name].addresses if name in hosts else ()
            own = [address for address in addresses if address not in shared] or addresses
            places[name] = Node(
                name=line(name, 17),
                address=line(own[0], 17) if own and own[0] != name else "",
                x=x,
                y=offset + row * _ROW + _ROW // 2,
                captured=name in captured,
            )
    return ClusterFigure(
        width=WIDTH,
        height=height,
        box_width=_BOX,
        box_height=_BOX_HEIGHT,
        nodes=tuple(places.values()),
        lines=_lines(edges, places),
        sentence=_sentence(edges, places),
    )


def _sentence(edges: tuple[Edge, ...], places: dict[str, Node]) -> str:
    broken = [f"{line(edge.from_, 40)} to {line(edge.to, 40)}" for edge in edges if edge.broken]
    told = f"; broken: {', '.join(broken)}" if broken else ""
    return (
        f"{counted(len(places), 'host')} and {counted(len(edges), 'arrow')} between them{told}. "
        "The table below has the same arrows."
    )


def _columns(cluster: Cluster) -> list[list[str]]:
    """Return the names in the edges: others, routers, directors, realservers; none empty."""
    named = dict.fromkeys(name for edge in cluster.edges for name in (edge.from_, edge.to))
    roles = [
        {host.name for host in group}
        for group in (cluster.routers, cluster.directors, cluster.realservers)
    ]
    columns: list[list[str]] = [[] for _ in range(4)]
    for name in named:
        place = next((index for index, names in enumerate(roles, 1) if name in names), 0)
        columns[place].append(name)
    return [names for names in columns if names]


def _lines(edges: tuple[Edge, ...], places: dict[str, Node]) -> tuple[Line, ...]:
    taken: list[tuple[float, float]] = []
    among = Counter(frozenset((edge.from_, edge.to)) for edge in edges)
    between: Counter[frozenset[str]] = Counter()
    lines = []
    for number, edge in enumerate(edges, 1):
        pair = frozenset((edge.from_, edge.to))
        gap = min(_SHIFT, _SPREAD / max(1, among[pair] - 1))
        shift = (between[pair] - (among[pair] - 1) / 2) * gap
        between[pair] += 1
        curve = _curve(places[edge.from_], places[edge.to], shift)
        spots = [_point(curve, share / 100) for share in (50, 38, 62, 28, 72, 44, 56)]
        spot = next(
            (at for at in spots if all(math.dist(at, other) >= _BADGE for other in taken)),
            spots[0],
        )
        taken.append(spot)
        (x1, y1), (x2, y2), (x3, y3), (x4, y4) = curve
        lines.append(
            Line(
                number=number,
                path=f"M{x1:.0f},{y1:.0f} C{x2:.0f},{y2:.0f} {x3:.0f},{y3:.0f} {x4:.0f},{y4:.0f}",
                head=_head(curve),
                x=round(spot[0]),
                y=round(spot[1]),
                broken=edge.broken,
                cross=_cross(_point(curve, 0.8)) if edge.broken else "",
            )
        )
    return tuple(lines)


Curve = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]


def _curve(start: Node, end: Node, shift: float) -> Curve:
    """Return a cubic curve between two boxes; `shift` keeps those of one pair apart."""
    half = _BOX / 2
    if start.x == end.x:  # same column: out at the left and back
        out = start.x - half - 46 + shift
        return (start.x - half, start.y), (out, start.y), (out, end.y), (end.x - half - 2, end.y)
    toward = 1 if end.x > start.x else -1
    if abs(end.x - start.x) > (WIDTH - _BOX) / 2:  # passes other columns: above or below them
        return _detour(start, end, shift)
    x1, x4 = start.x + toward * half, end.x - toward * (half + 2)
    y1, y4 = start.y + shift, end.y + shift
    reach = (x4 - x1) * 0.4
    return (x1, y1), (x1 + reach, y1), (x4 - reach, y4), (x4, y4)


def _detour(start: Node, end: Node, shift: float) -> Curve:
    """Return a curve from top to top, or from bottom to bottom, whichever `start` is nearer to."""
    side = -1 if start.y <= end.y else 1
    y1, y4 = start.y + side * _BOX_HEIGHT / 2, end.y + side * (_BOX_HEIGHT / 2 + 2)
    bulge = (min(y1, y4) if side < 0 else max(y1, y4)) + side * (_BULGE + shift)
    x1, x4 = start.x + shift, end.x + shift
    reach = (x4 - x1) * 0.15
    return (x1, y1), (x1 + reach, bulge), (x4 - reach, bulge), (x4, y4)


def _point(curve: Curve, share: float) -> tuple[float, float]:
    rest = 1 - share
    weights = (rest**3, 3 * rest**2 * share, 3 * rest * share**2, share**3)
    return (
        sum(weight * point[0] for weight, point in zip(weights, curve, strict=True)),
        sum(weight * point[1] for weight, point in zip(weights, curve, strict=True)),
    )


def _cross(at: tuple[float, float]) -> str:
    return f"M{at[0] - 6:.0f},{at[1] - 6:.0f} l12,12 m0,-12 l-12,12"


def _head(curve: Curve) -> str:
    """Return the triangle at the end of a curve, along its last stretch."""
    (x1, y1), (x2, y2) = _point(curve, 0.9), curve[3]
    length = max(1.0, ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5)
    along, across = (x2 - x1) / length, (y2 - y1) / length
    back = (x2 - 9 * along, y2 - 9 * across)
    points = [(x2, y2)] + [
        (back[0] + side * 4.5 * across, back[1] - side * 4.5 * along) for side in (-1, 1)
    ]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
