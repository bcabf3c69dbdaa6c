"""Names: hosts, services, connections, as reports call them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.addresses import endpoint_text, ip_text
from pcapdiag.case.community_id import community_id
from pcapdiag.protocols import proto_name
from pcapdiag.result import MAX_FLOWS, FlowRef, Leg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.case.case import Case


_ENDS: Final = ("orig_hi", "orig_lo", "orig_port", "resp_hi", "resp_lo", "resp_port")

_REQUEST_NS: Final = 1_000_000_000
"""A request may be this much older than what answers it."""


def service_names(case: Case) -> tuple[str, ...]:
    """Return each service as "tcp 203.0.113.10:80", or "fwmark 5"."""
    names = []
    for service in case.topology.services:
        if service.fwmark is not None:
            names.append(f"fwmark {service.fwmark}")
        else:
            endpoint = endpoint_text(*service.vip, service.port) if service.vip else "any"
            names.append(f"{proto_name(service.ip_proto)} {endpoint}")
    return tuple(names)


def names_of_role(case: Case, role: str) -> tuple[str, ...]:
    """Return the names of the vantages and hosts of a role, vantages first, each once."""
    vantages = [item.name for item in case.vantages if case.role(item.index) == role]
    hosts = [item.name for item in case.topology.hosts if item.role == role]
    return tuple(dict.fromkeys(vantages or hosts))


def host_of_mac(case: Case, mac: int) -> str | None:
    """Return the name of the host that owns a MAC, if it is known."""
    host = case.topology.host_of_mac(mac)
    return None if host is None else host.name


def host_of_address(case: Case, hi: int, lo: int) -> str | None:
    """Return the name of the one host that owns an address; None for the VIP, which many have."""
    host = case.topology.host_of_address((hi, lo))
    return None if host is None else host.name


def frame(case: Case) -> pl.DataFrame:
    """Return the connections with `service_name` (String) and a filled `realserver_name`.

    Where the realserver has no name its address serves; where even that is unknown, null. A
    connection of no known service is named after the endpoint that its client spoke to.
    """
    connections = case.connections.connections
    names = case.service_names
    services = pl.DataFrame(
        {"service": list(range(len(names))), "service_name": list(names)},
        schema={"service": pl.UInt16, "service_name": pl.String},
    )
    endpoints = (
        connections.filter(pl.col("service").is_null())
        .select("ip_proto", "vip_hi", "vip_lo", "vip_port")
        .unique(maintain_order=True)
    )
    endpoints = endpoints.with_columns(
        pl.Series(
            "endpoint_name",
            [
                f"{proto_name(row[0])} {endpoint_text(row[1], row[2], row[3])}"
                for row in endpoints.iter_rows()
            ],
            dtype=pl.String,
        )
    )
    realservers = (
        connections.select("realserver_hi", "realserver_lo")
        .drop_nulls()
        .unique(maintain_order=True)
    )
    realservers = realservers.with_columns(
        pl.Series(
            "realserver_text",
            [host_of_address(case, *row) or ip_text(*row) for row in realservers.iter_rows()],
            dtype=pl.String,
        )
    )
    return (
        connections.join(services, on="service", how="left", maintain_order="left")
        .join(
            endpoints,
            on=["ip_proto", "vip_hi", "vip_lo", "vip_port"],
            how="left",
            nulls_equal=True,
            maintain_order="left",
        )
        .join(
            realservers,
            on=["realserver_hi", "realserver_lo"],
            how="left",
            maintain_order="left",
        )
        .with_columns(
            pl.coalesce("service_name", "endpoint_name").alias("service_name"),
            pl.coalesce("realserver_name", "realserver_text").alias("realserver_name"),
        )
        .drop("endpoint_name", "realserver_text")
    )


def counted_at(case: Case, roles: tuple[str, ...]) -> dict[str, int]:
    """Return the number of connections that vantages of some roles show, by service name."""
    indices = [vantage.index for vantage in case.vantages_of(*roles)]
    counted = (
        case.named_legs.lazy()
        .filter(pl.col("vantage").is_in(indices))
        .group_by("service_name")
        .agg(pl.col("connection").n_unique())
        .collect()
    )
    return dict(counted.iter_rows())


def named_legs(case: Case) -> pl.DataFrame:
    """Return vantage, connection and service_name of all legs that belong to a named service."""
    return (
        case.connections.legs.select("vantage", "connection")
        .unique()
        .join(case.members.select("connection", "service_name"), on="connection")
        .drop_nulls("service_name")
    )


def begun_between(
    case: Case, service_name: str | None, start_ns: int | None, end_ns: int | None
) -> int:
    """Return how many connections of a service began between two times, both included."""
    begun = case.members.filter(pl.col("service_name").eq_missing(service_name))["first_ns"]
    if start_ns is None or end_ns is None:
        return len(begun)
    return int(begun.is_between(start_ns - _REQUEST_NS, end_ns).sum())


def arrived(case: Case) -> pl.DataFrame:
    """Return the errors that reached a director for a known service: ERROR_MESSAGES and CONTRACT.

    Besides, service_name and realserver_name; the contract's vantage is director_vantage.
    """
    names = case.members.select("connection", "service_name", "realserver_name")
    return (
        case.contract.rename({"vantage": "director_vantage"})
        .join(case.errors.messages, on="message", maintain_order="left")
        .join(names, on="connection", how="left", maintain_order="left")
    )


def flow_refs(case: Case, connection_ids: Sequence[int]) -> tuple[FlowRef, ...]:
    """Return connections as a finding lists them, in the given order, at most MAX_FLOWS."""
    wanted = pl.DataFrame(
        {"connection": list(dict.fromkeys(connection_ids))[:MAX_FLOWS]},
        schema={"connection": pl.UInt32},
    )
    rows = wanted.join(case.members, on="connection", how="left", maintain_order="left")
    legs = _legs(case, wanted)
    return tuple(
        FlowRef(
            protocol=proto_name(row["ip_proto"]),
            client=endpoint_text(row["client_hi"], row["client_lo"], row["client_port"]),
            service=endpoint_text(row["vip_hi"], row["vip_lo"], row["vip_port"]),
            realserver=row["realserver_name"],
            community_id=community_id(
                row["ip_proto"],
                (row["client_hi"], row["client_lo"]),
                (row["vip_hi"], row["vip_lo"]),
                row["client_port"],
                row["vip_port"],
            ),
            legs=tuple(legs.get(row["connection"], ())),
        )
        for row in rows.iter_rows(named=True)
    )


def _legs(case: Case, wanted: pl.DataFrame) -> dict[int, list[Leg]]:
    result: dict[int, list[Leg]] = {}
    legs = wanted.join(case.connections.legs, on="connection").sort("connection", "flow")
    seen = set(legs["vantage"].unique())
    for vantage in case.vantages:
        if vantage.index not in seen:
            continue
        ends = vantage.flows.lazy().select("flow", "ip_proto", *_ENDS)
        rows = (
            legs.lazy()
            .filter(pl.col("vantage") == vantage.index)
            .join(ends, on="flow", maintain_order="left")
            .collect()
        )
        for row in rows.iter_rows(named=True):
            orig = (row["orig_hi"], row["orig_lo"])
            resp = (row["resp_hi"], row["resp_lo"])
            result.setdefault(row["connection"], []).append(
                Leg(
                    vantage=vantage.name,
                    src=endpoint_text(*orig, row["orig_port"]),
                    dst=endpoint_text(*resp, row["resp_port"]),
                    community_id=community_id(
                        row["ip_proto"], orig, resp, row["orig_port"], row["resp_port"]
                    ),
                )
            )
    return result
