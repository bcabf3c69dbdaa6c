"""One connection's packets at every place where they were seen, on one clock.

Places are the columns of a ladder, in the order of the path: client, routers, the director's side
towards the clients, its side towards the realservers, realserver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from pcapdiag.addresses import ip_text
from pcapdiag.cluster.joined.places import place

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

CLIENT, ROUTER, DIRECTOR_FRONT, DIRECTOR_BACK, REALSERVER = range(5)
"""Ranks along the path."""

_RANKS: Final = {"client": CLIENT, "director": DIRECTOR_FRONT, "realserver": REALSERVER}

_SCHEMA: Final = {
    "vantage": pl.UInt16,
    "rank": pl.UInt8,
    "time_ns": pl.Int64,
    "row": pl.UInt32,
    "frame": pl.UInt32,
    "by_client": pl.Boolean,
    "tcp_seq": pl.UInt32,
    "tcp_ack": pl.UInt32,
    "tcp_flags": pl.UInt16,
    "payload_len": pl.UInt32,
    "ip_len": pl.UInt32,
    "ip_id": pl.UInt32,
    "df": pl.Boolean,
}


class Place(NamedTuple):
    """A column; `vantage` is None where nothing was captured."""

    name: str
    rank: int
    vantage: int | None
    vantage_name: str = ""


class Path(NamedTuple):
    """A connection's places, client first and realserver last, and its packets at them.

    sights: `_SCHEMA` and place (Int64, index into `places`), by time on the common clock; on the
    vantage's own where its offset is not known.
    """

    connection: int
    places: tuple[Place, ...]
    sights: pl.DataFrame

    def at(self, vantage: int, rank: int) -> int | None:
        """Return the index of a place; of the vantage's other side where it has one only."""
        mine = [index for index, item in enumerate(self.places) if item.vantage == vantage]
        return next(
            (index for index in mine if self.places[index].rank == rank), next(iter(mine), None)
        )


def path(case: Case, connection: int) -> Path:
    """Return where the packets of a connection were seen."""
    row = case.members.filter(pl.col("connection") == connection).row(0, named=True)
    legs = case.connections.legs.filter(pl.col("connection") == connection)
    seen = pl.concat(
        [pl.DataFrame(schema=_SCHEMA), *(_at(case, leg) for leg in legs.iter_rows(named=True))]
    )
    places = _places(case, row, seen)
    index = pl.DataFrame(
        [(item.vantage, item.rank, at) for at, item in enumerate(places)],
        schema={"vantage": pl.UInt16, "rank": pl.UInt8, "place": pl.Int64},
        orient="row",
    )
    sights = seen.join(index, on=["vantage", "rank"]).sort("time_ns", "place", "row")
    return Path(connection, places, sights)


def _at(case: Case, leg: dict[str, Any]) -> pl.DataFrame:
    """Return the packets of one leg, each with the rank of the side on which it was seen."""
    vantage = case.vantages[leg["vantage"]]
    rank = rank_of(case, vantage.index)
    side = _director_side(leg["kind"]) if rank == DIRECTOR_FRONT else pl.lit(rank)
    packets: pl.DataFrame = (
        vantage.packets.lazy()
        .with_row_index("row")
        .filter(pl.col("flow") == leg["flow"])
        .collect()
        .with_columns(
            pl.lit(vantage.index).alias("vantage"),
            case.clocks.common_time(vantage.index).fill_null(pl.col("time_ns")).alias("common_ns"),
            (pl.col("by_orig") == leg["client_is_orig"]).alias("by_client"),
            place(case.topology, vantage.index).cast(pl.String).alias("met"),
        )
        .with_columns(side.alias("rank"), pl.col("common_ns").alias("time_ns"))
        .filter(pl.col("time_ns").is_not_null() & pl.col("by_client").is_not_null())
        .select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())
    )
    return packets


def _director_side(kind: str) -> pl.Expr:
    """Return on which side of a director a packet was seen.

    Behind a translation it is the back; else what comes from the client enters in front and leaves
    at the back, also through one interface.
    """
    if kind == "back":
        return pl.lit(DIRECTOR_BACK)
    sent_on = pl.col("copy_of").is_not_null() | (pl.col("met") == "out")
    return (
        pl.when(pl.col("by_client") == sent_on)
        .then(pl.lit(DIRECTOR_BACK))
        .otherwise(pl.lit(DIRECTOR_FRONT))
    )


def rank_of(case: Case, vantage: int) -> int:
    """Return the rank of a vantage by its role; what has no other place is a router's."""
    return _RANKS.get(case.role(vantage), ROUTER)


def _places(case: Case, row: dict[str, Any], seen: pl.DataFrame) -> tuple[Place, ...]:
    found = [
        Place(case.vantages[vantage].name, rank, vantage, case.vantages[vantage].name)
        for vantage, rank in seen.select("vantage", "rank").unique().iter_rows()
    ]
    directors = {
        item.vantage
        for item in found
        if item.rank in (DIRECTOR_FRONT, DIRECTOR_BACK) and item.vantage is not None
    }
    found = [item for item in found if item.vantage not in directors]
    for vantage in directors:
        name = case.vantages[vantage].name
        ranks = set(seen.filter(pl.col("vantage") == vantage)["rank"].unique())
        both = len(directors) == 1 or len(ranks) == 2
        for rank, word in ((DIRECTOR_FRONT, "in"), (DIRECTOR_BACK, "out")):
            if both or rank in ranks:
                found.append(Place(f"{name} {word}" if both else name, rank, vantage, name))
    names: dict[str | None, int] = {item.name: item.index for item in case.vantages}
    if not any(item.rank == CLIENT for item in found):
        address = ip_text(row["client_hi"], row["client_lo"])
        host = case.host_of_address(row["client_hi"], row["client_lo"])
        known = names.get(host)
        found.append(Place(host if host and known is not None else address, CLIENT, known))
    if not any(item.rank == REALSERVER for item in found):
        name = row["realserver_name"] or "realserver"
        found.append(Place(name, REALSERVER, names.get(name)))
    firsts = seen.filter("by_client").group_by("vantage").agg(pl.col("time_ns").min())
    first: dict[int | None, int] = dict(firsts.iter_rows())
    return tuple(sorted(found, key=lambda item: (item.rank, first.get(item.vantage, 0), item.name)))
