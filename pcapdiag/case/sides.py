"""Every TCP flow as two senders, each told whether it is the client or the realserver.

A flood makes a million of them, and a question is about a few: they are a query, which picks rows
and columns from `flows` as they are asked for. Where they are few they are made at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.protocols import IpProto
from pcapdiag.schema import QUOTED_SENDERS

if TYPE_CHECKING:
    from pcapdiag.case.case import Case
    from pcapdiag.flows.vantage import VantageTables

TCP_IP_HEADERS: Final = {4: 40, 6: 60}
"""IP and TCP headers without options: an MSS plus this is the largest packet it allows
(RFC 6691: options come out of the segment, not on top of it)."""

MANY_FLOWS: Final = 50_000
"""From so many on, flows are not made into senders before some are asked for: these took 12 MB. A
query of flows costs a few milliseconds more than one of senders, and a report asks a dozen."""

_PEER: Final = ("vantage", "sender", "peer_hi", "peer_lo")

_PER_SIDE: Final = (
    "data_packets",
    "max_ip_len",
    "df",
    "acked",
    "sacked",
    "timeouts",
    "largest_acked",
    "stuck_offset",
    "stuck_repeats",
    "stuck_first_ns",
    "stuck_last_ns",
    "stuck_len",
    "seq_first",
    "offload",
    "fin",
)


def frame(case: Case) -> pl.LazyFrame:
    """Return one row per TCP flow and side, over all vantages.

    Columns: vantage, flow, by_orig, connection, sender (QUOTED_SENDERS), ip_version, peer_hi,
    peer_lo, peer_mss, peer_last_ns, peer_fin, wire_limit (the largest IP length that the peer's MSS
    allows; null where it is not known), and `_PER_SIDE` of the sender with `wire_*` sizes added:
    the IP lengths that were on the wire, where segmentation offload made the captured ones larger
    (bytes).
    """
    parts = []
    for vantage in case.vantages:
        flows = _of_connections(case, vantage).lazy()
        parts += [_side(flows, vantage.index, side) for side in ("orig", "resp")]
    senders = pl.concat(parts)
    many = sum(vantage.flows.height for vantage in case.vantages) >= MANY_FLOWS
    return senders if many else senders.collect().lazy()


def of(case: Case, connections: pl.Series) -> pl.LazyFrame:
    """Return the senders of some connections."""
    return case.tcp_sides.filter(pl.col("connection").is_in(connections.unique().implode()))


def to_peers_of(case: Case, sides: pl.DataFrame) -> pl.LazyFrame:
    """Return the senders that a vantage saw send to the peer address of one of `sides`, as it did.

    As it did: as a client to a server, or the other way.
    """
    addresses = sides.select(*_PEER).drop_nulls().unique()
    near = pl.col("peer_lo").is_in(addresses["peer_lo"].implode())  # spares to join the others
    return case.tcp_sides.filter(near).join(addresses.lazy(), on=_PEER, how="semi")


def _of_connections(case: Case, vantage: VantageTables) -> pl.DataFrame:
    """Return the flows of a vantage with connection (null: none), orig_client and resp_client.

    These tell whether the connection's client is that side. Memory is taken by what is added only.
    """
    client = ("client_hi", "client_lo", "client_port")
    ends = ("hi", "lo", "port")
    added = (
        vantage.flows.lazy()
        .select("flow", *(f"{side}_{end}" for side in ("orig", "resp") for end in ends))
        .join(
            case.connections.legs.lazy()
            .filter(pl.col("vantage") == vantage.index)
            .select("flow", "connection"),
            on="flow",
            how="left",
            maintain_order="left",
        )
        .join(
            case.connections.connections.lazy().select("connection", *client),
            on="connection",
            how="left",
            maintain_order="left",
        )
        .select(
            "connection",
            *(
                pl.all_horizontal(
                    pl.col(f"{side}_{end}") == pl.col(name)
                    for end, name in zip(ends, client, strict=True)
                ).alias(f"{side}_client")
                for side in ("orig", "resp")
            ),
        )
    )
    return vantage.flows.hstack(added.collect())


def _side(flows: pl.LazyFrame, vantage: int, side: str) -> pl.LazyFrame:
    peer = "resp" if side == "orig" else "orig"
    limit = pl.col(f"{peer}_mss").cast(pl.UInt32) + pl.col("ip_version").replace_strict(
        TCP_IP_HEADERS, default=60, return_dtype=pl.UInt32
    )

    def wire(column: str) -> pl.Expr:
        length = pl.col(f"{side}_{column}")
        return (
            pl.when(pl.col(f"{side}_offload") & limit.is_not_null())
            .then(pl.min_horizontal(length, limit))
            .otherwise(length)
            .alias(f"wire_{column}")
        )

    tcp = pl.col("ip_proto") == int(IpProto.TCP)
    return flows.filter(tcp, pl.col("connection").is_not_null()).select(
        pl.lit(vantage, dtype=pl.UInt16).alias("vantage"),
        "flow",
        pl.lit(side == "orig").alias("by_orig"),
        "connection",
        pl.when(f"{side}_client")
        .then(pl.lit("client", QUOTED_SENDERS))
        .otherwise(pl.lit("realserver", QUOTED_SENDERS))
        .alias("sender"),
        "ip_version",
        pl.col(f"{peer}_hi").alias("peer_hi"),
        pl.col(f"{peer}_lo").alias("peer_lo"),
        pl.col(f"{peer}_mss").alias("peer_mss"),
        pl.col(f"{peer}_last_ns").alias("peer_last_ns"),
        pl.col(f"{peer}_fin").alias("peer_fin"),
        limit.alias("wire_limit"),
        *(pl.col(f"{side}_{name}").alias(name) for name in _PER_SIDE),
        wire("max_ip_len"),
        wire("largest_acked"),
        wire("stuck_len"),
    )
