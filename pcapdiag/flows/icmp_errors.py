"""The `icmp_errors` table: each ICMP error beside the packet it is about, as this vantage saw it.

An error quotes the beginning of the offending packet (RFC 792, RFC 4443), so that its addresses
and ports name a flow as that packet's own would. Of several flows with reused ports it belongs to
the one whose first packet came last before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from pcapdiag import schema, spool
from pcapdiag.flows.arrays import Columns, nullable
from pcapdiag.flows.five_tuple import combine, keys_of, order_by
from pcapdiag.protocols import ICMP_ERRORS, ICMPV6_ERROR_LIMIT, Icmpv6Type, IpProto

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pcapdiag.flows.arrays import Rows
    from pcapdiag.flows.five_tuple import Keys
    from pcapdiag.spool import Table

_FROM_PACKETS = (
    "capture",
    "frame",
    "time_ns",
    "direction",
    "eth_src",
    "eth_dst",
    "tunnel",
    "ip_version",
    "src_hi",
    "src_lo",
    "dst_hi",
    "dst_lo",
    "ttl",
    "ip_id",
    "ip_len",
    "icmp_type",
    "icmp_code",
)


_FROM_QUOTED = (
    *("src_hi", "src_lo", "src_port", "dst_hi", "dst_lo", "dst_port", "ip_proto"),
    *("ip_id", "ip_len", "tcp_seq"),
)


def is_error() -> pl.Expr:
    """Return whether ip_version and icmp_type are those of an error or a redirect."""
    kind, version = pl.col("icmp_type"), pl.col("ip_version")
    return ((version == 4) & kind.is_in(sorted(ICMP_ERRORS))) | (
        (version == 6) & ((kind < ICMPV6_ERROR_LIMIT) | (kind == int(Icmpv6Type.REDIRECT)))
    )


def build(packets: Table, icmp: pl.DataFrame, tunnels: Table, flows: pl.DataFrame) -> pl.DataFrame:
    """Return the ICMP errors of a vantage, in row order.

    `packets` has the columns of PACKETS and PACKETS_IN_FLOWS; the others are side tables of it.
    """
    if icmp.is_empty():
        return schema.empty("icmp_errors")
    messages = icmp.sort("row")
    about = spool.at(packets, messages.get_column("row"), *_FROM_PACKETS, "copy_of")
    errors = messages.hstack(about).filter(is_error())
    told_of = pl.col("row").is_in(errors.get_column("row").implode())
    tunnelled = tunnels.lazy().filter(told_of).collect()
    outer = tunnelled.unique("row", keep="first", maintain_order=True).select(
        "row",
        *(
            pl.col(f"outer_{end}_{half}").alias(f"tunnel_{end}_{half}")
            for end in ("src", "dst")
            for half in ("hi", "lo")
        ),
    )
    errors = errors.join(outer, on="row", how="left", maintain_order="left")
    told, known_flows = Columns(errors), Columns(flows)
    quotes = keys_of(told, ("quoted_src", "quoted_dst"), "quoted_proto")
    tuples = keys_of(known_flows, ("orig", "resp")).tuple_key
    row = told.values("row").astype(np.int64)
    quoted = _quoted_rows(told, quotes, row, packets, known_flows, tuples)
    flow = _flows_alive(quotes, row, known_flows, tuples)
    seen = np.flatnonzero(quoted >= 0)
    flow[seen] = spool.at(packets, pl.Series(quoted[seen]), "flow")["flow"].to_numpy()
    known = flow >= 0
    return schema.conform(
        errors.with_columns(
            nullable("flow", flow, known),
            nullable("quoted_by_orig", _by_orig(told, known_flows, flow), known),
            nullable("quoted_row", quoted, quoted >= 0),
        ),
        "icmp_errors",
    )


def _flows_alive(quotes: Keys, row: Rows, flows: Columns, tuples: NDArray[np.uint64]) -> Rows:
    """Return, per error, the flow of the quoted five-tuple that was alive, or -1.

    That is the last that began before the error, or else the first to come: a capture may begin
    between a packet and the answer to it.
    """
    told = np.flatnonzero(quotes.has_ports)
    wanted = pl.DataFrame({"key": quotes.tuple_key[told], "row": row[told]})
    there = pl.DataFrame(
        {
            "key": tuples,
            "row": flows.values("first_row").astype(np.int64),
            "flow": flows.values("flow").astype(np.int64),
        }
    ).filter(pl.col("key").is_in(wanted["key"].unique().implode()))
    found = wanted
    for strategy in ("backward", "forward"):
        found = found.join_asof(
            there.rename({"flow": strategy}),
            on="row",
            by="key",
            strategy=strategy,
            check_sortedness=False,
        )
    flow = np.full(len(row), -1, np.int64)
    flow[told] = found.select(pl.coalesce("backward", "forward", pl.lit(-1))).to_series().to_numpy()
    return flow


def _by_orig(errors: Columns, flows: Columns, flow: Rows) -> NDArray[np.bool_]:
    """Return whether the quoted packet was sent by its flow's originator; any value without one."""
    same = np.ones(len(errors), np.bool_)
    if not len(flows):
        return same
    for part in ("hi", "lo", "port"):
        same &= flows.values(f"orig_{part}")[flow] == errors.values(f"quoted_src_{part}")
    return same


def _quoted_rows(
    errors: Columns,
    quotes: Keys,
    row: Rows,
    packets: Table,
    flows: Columns,
    tuples: NDArray[np.uint64],
) -> Rows:
    """Return, per error, the row of the quoted packet where exactly one came before; or -1.

    A packet is known again by addresses, ports, IP ID and TCP sequence number, and by its length
    where the IP ID names nothing. Routers may change the rest of what they quote.
    """
    quoted = np.full(len(errors), -1, np.int64)
    tcp = errors.values("quoted_proto") == IpProto.TCP
    asked = np.flatnonzero(quotes.has_ports & (~tcp | errors.present("quoted_tcp_seq")))
    concerned = np.isin(tuples, quotes.tuple_key[asked])
    if not concerned.any():
        return quoted
    named = flows.frame.get_column("flow").filter(pl.Series(concerned))
    about = (
        packets.lazy()
        .select("flow", "copy_of", *_FROM_QUOTED)
        .with_row_index("row")
        .filter(pl.col("flow").is_in(named.implode()), pl.col("copy_of").is_null())
        .collect()
    )
    candidates = about.get_column("row").to_numpy().astype(np.int64)
    chosen = Columns(about)
    likeness = _likeness(keys_of(chosen), chosen, "")
    order, starts = order_by(likeness)
    wanted = _likeness(quotes, errors, "quoted_")[asked]
    heads = likeness[order[starts]]
    run = np.minimum(np.searchsorted(heads, wanted), len(heads) - 1)
    alike = heads[run] == wanted

    shift = np.int64(33)
    number = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    places = (number << shift) + candidates[order]
    earlier = np.searchsorted(places, (run << shift) + row[asked]) - starts[run]
    once = alike & (earlier == 1)
    quoted[asked[once]] = candidates[order[starts[run[once]]]]
    return quoted


def _likeness(keys: Keys, table: Columns, prefix: str) -> NDArray[np.uint64]:
    """Return a word per packet (no prefix) or quote ("quoted_") by which they match."""
    ip_id = table.values(f"{prefix}ip_id")
    length = np.where(ip_id == 0, table.values(f"{prefix}ip_len"), 0)
    return combine(keys.directed, ip_id, table.values(f"{prefix}tcp_seq"), length)
