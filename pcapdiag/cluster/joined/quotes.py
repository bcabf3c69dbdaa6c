"""Which connection the packet quoted in an ICMP error belongs to, and which end sent it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from pcapdiag.schema import QUOTED_SENDERS

if TYPE_CHECKING:
    from pcapdiag.cluster.clock import Clocks
    from pcapdiag.cluster.connections import Connections
    from pcapdiag.cluster.topology import Topology


def about(
    seen: pl.DataFrame, topology: Topology, connections: Connections, clocks: Clocks
) -> pl.DataFrame:
    """Add connection, quoted_sender and translated: what each error is about."""
    seen = seen.with_row_index("sight")
    named = pl.concat([seen["quoted_src_lo"], seen["quoted_dst_lo"]]).unique()
    quoted = pl.col("client_lo").is_in(named.implode())  # spares to lay out what no error is about
    servers = _servers(topology, connections.connections.filter(quoted))
    found = []
    for sender, client, server in (("realserver", "dst", "src"), ("client", "src", "dst")):
        ends = {
            "ip_proto": "quoted_proto",
            "client_hi": f"quoted_{client}_hi",
            "client_lo": f"quoted_{client}_lo",
            "client_port": f"quoted_{client}_port",
            "server_hi": f"quoted_{server}_hi",
            "server_lo": f"quoted_{server}_lo",
            "server_port": f"quoted_{server}_port",
        }
        found.append(
            seen.select("sight", "vantage", "flow", "common_ns", "aligned", *ends.values())
            .join(servers, left_on=list(ends.values()), right_on=list(ends))
            .select(
                "sight",
                "vantage",
                "flow",
                "common_ns",
                "aligned",
                "connection",
                "translated",
                "first_ns",
                "last_ns",
                pl.lit(sender, QUOTED_SENDERS).alias("quoted_sender"),
            )
        )
    several = pl.concat(found)
    legs = connections.legs.select("vantage", "flow", "connection", pl.lit(True).alias("own_leg"))
    # The vantage's own flow decides; else the last connection of this five-tuple that had begun.
    error = max((item for item in clocks.error_ns if item is not None), default=0)
    begun = pl.col("first_ns") <= pl.col("common_ns") + error
    chosen = (
        several.join(legs, on=["vantage", "flow", "connection"], how="left")
        .with_columns(pl.col("own_leg").fill_null(False), pl.len().over("sight").alias("choices"))
        .filter(pl.col("own_leg") | (pl.col("choices") == 1) | (pl.col("aligned") & begun))
        .sort("sight", "own_leg", "first_ns", descending=[False, True, True])
        .unique("sight", keep="first", maintain_order=True)
        .select("sight", "connection", "quoted_sender", "translated")
    )
    return seen.join(chosen, on="sight", how="left", maintain_order="left").with_columns(
        pl.col("translated").fill_null(False)
    )


def _servers(topology: Topology, table: pl.DataFrame) -> pl.DataFrame:
    """Return each of some connections under every server endpoint it goes by, VIP and realserver.

    Columns: connection, ip_proto, client (hi, lo, port), server (hi, lo, port), translated,
    first_ns, last_ns.
    """
    client = ("client_hi", "client_lo", "client_port")
    front = table.select(
        "connection",
        "ip_proto",
        *client,
        pl.col("vip_hi").alias("server_hi"),
        pl.col("vip_lo").alias("server_lo"),
        pl.col("vip_port").alias("server_port"),
        pl.lit(False).alias("translated"),
        "first_ns",
        "last_ns",
    )
    behind = table.filter(
        (pl.col("method") == "nat") & pl.col("realserver_lo").is_not_null()
    ).select(
        "connection",
        "ip_proto",
        *client,
        pl.col("realserver_hi").alias("server_hi"),
        pl.col("realserver_lo").alias("server_lo"),
        pl.col("realserver_port").alias("server_port"),
        pl.lit(True).alias("translated"),
        "first_ns",
        "last_ns",
    )
    # An error translated to the wrong realserver still names the service's other ports.
    ports = pl.DataFrame(
        [
            (index, *address, port)
            for index, service in enumerate(topology.services)
            if service.method == "nat"
            for address, port in sorted(service.realserver_ports)
        ],
        schema={
            "service": pl.UInt16,
            "server_hi": pl.UInt64,
            "server_lo": pl.UInt64,
            "server_port": pl.UInt16,
        },
        orient="row",
    )
    others = (
        table.select("connection", "ip_proto", *client, "service", "first_ns", "last_ns")
        .join(ports, on="service")
        .select(
            "connection",
            "ip_proto",
            *client,
            "server_hi",
            "server_lo",
            "server_port",
            pl.lit(True).alias("translated"),
            "first_ns",
            "last_ns",
        )
    )
    ends = ("connection", "server_hi", "server_lo", "server_port")
    return pl.concat([front, behind, others.join(behind, on=ends, how="anti")]).unique(
        ends, keep="first", maintain_order=True
    )
