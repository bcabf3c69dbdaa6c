"""Connections of which a director knows nothing: it answers their packets itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from pcapdiag.case.requests import silences

if TYPE_CHECKING:
    from pcapdiag.case.case import Case

FAILOVER_MARGIN_NS: Final = 5_000_000_000
"""How long before the last packet that passed a change of mastership may be and still be what lost
the entry: packets already on their way go to the old master for that long at most, since Linux
believes a stale neighbour entry for delay_first_probe_time, 5 s."""


def frame(case: Case) -> pl.DataFrame:
    """Return one row per connection of a service that a director itself refused to go on with.

    A refusal is a reset, or a port unreachable, made by the director about a packet that does not
    ask for a connection and that was not seen to be forwarded. Columns: connection, kind (reset |
    error), told (client | realserver), count (refusals), emitter_by, emitter_host, vantage, row,
    first_ns (common clock), service_name, realserver_name, method, the columns of silences.frame,
    quiet_ns (the packet's distance from the one before; null: none was seen), turned (another
    director got the client's packet before), established_s, closing_s (UInt32: after how many
    quiet seconds that director's ip_vs forgets such a connection, open or closed by its client),
    timeouts_stated (Boolean: its ipvsadm says so, else it is the default), change_vantage,
    change_row, change_by (mastership.frame: the virtual address moved between the two).
    """
    resets = (
        case.resets.filter(
            pl.col("emitter") == "director", ~pl.col("answered_syn").fill_null(False)
        )
        .with_columns(
            pl.lit("reset").alias("kind"),
            pl.lit("client").alias("told"),
            pl.col("resets").alias("count"),
        )
        .select(_COMMON)
    )
    errors = case.unreachables.filter(
        pl.col("says") == "port",
        pl.col("emitter") == "director",
        ~pl.col("quoted_syn").fill_null(value=True),
    )
    counted = errors.group_by("connection").len("count")
    first = (
        errors.sort("first_ns", "message", nulls_last=True)
        .unique("connection", keep="first", maintain_order=True)
        .join(counted, on="connection")
        .with_columns(
            pl.lit("error").alias("kind"),
            pl.col("quoted_sender").cast(pl.String).alias("told"),
            pl.col("seen_vantage").alias("vantage"),
            pl.col("seen_row").alias("row"),
        )
        .select(_COMMON)
    )
    rows = pl.concat([resets, first]).join(
        case.members.select("connection", "service_name", "realserver_name", "method"),
        on="connection",
    )
    before = silences.frame(case, rows)
    rows = (
        _unless_never_known(
            case,
            rows.filter(pl.col("method").is_not_null()).join(
                before, on=["vantage", "answered_row"], how="left", maintain_order="left"
            ),
        )
        .filter(~pl.col("passed_on").fill_null(value=False))
        .with_columns(
            (pl.col("answered_ns") - pl.col("before_ns")).alias("quiet_ns"),
            (
                pl.col("turned_to").is_in(_macs_of(case, "director"))
                & ~pl.col("turned_from").is_in(_macs_of(case, "realserver"))
            )
            .fill_null(value=False)
            .alias("turned"),
        )
    )
    rows = case.with_times(rows, "first_ns").join(
        _timeouts(case, rows), on=["emitter_host", "method"], how="left", nulls_equal=True
    )
    return rows.join(_changes(case, rows), on="connection", how="left", maintain_order="left")


_COMMON: Final = (
    *("connection", "kind", "told", pl.col("count").cast(pl.UInt32), "emitter_by", "emitter_host"),
    *("vantage", "row", "answered_row"),
)


def longest_survived_ns(case: Case, service_name: str | None) -> int | None:
    """Return the longest pause at a director after which a service's connection went on.

    None where there was none. Pauses of connections that a director refused do not count, nor do
    those in which its capture paused, too.
    """
    ids = (
        case.members.filter(pl.col("service_name").eq_missing(service_name))
        .select("connection")
        .join(case.forgotten.select("connection"), on="connection", how="anti")
    )
    legs = case.connections.legs.join(ids, on="connection", how="semi")
    longest = []
    for vantage in case.vantages_of("director"):
        here = legs.filter(pl.col("vantage") == vantage.index)
        flows = vantage.flows.join(here, on="flow", how="semi").select(
            "idle_ns", "idle_end_ns", (pl.col("idle_end_ns") - pl.col("idle_ns")).alias("since_ns")
        )
        missed = silences.paused_between(case, vantage.index, flows, "since_ns", "idle_end_ns")
        longest.append(flows.filter(~missed)["idle_ns"].max())
    return max((item for item in longest if isinstance(item, int)), default=None)


def _unless_never_known(case: Case, rows: pl.DataFrame) -> pl.DataFrame:
    """Take what came before from connections of which a director never passed anything on.

    Where it would have been seen leaving, nothing restarted a timer: there was no entry. That
    holds for each of several packets that come one upon another, before the first is refused.
    """
    visible = case.coverage.egress_spans.select("vantage", "service").join(
        case.members.select("connection", "service"), on="service"
    )
    legs = case.connections.legs.select("vantage", "flow", "connection", "kind")
    passed = case.topology.observed.forwarded.select("vantage", "flow")
    known = pl.concat(
        [
            legs.join(passed, on=["vantage", "flow"], how="semi"),
            legs.filter(pl.col("kind") == "back"),
        ]
    )
    at = ["vantage", "connection"]
    never = (
        rows.select(pl.col("vantage").cast(pl.UInt16), "connection")
        .join(visible, on=at, how="semi")
        .join(known, on=at, how="anti")
        .unique()
        .with_columns(pl.lit(value=True).alias("never"))
    )
    return (
        rows.join(never, on=at, how="left", maintain_order="left")
        .with_columns(
            pl.when(pl.col("never").is_null()).then(name).alias(name)
            for name in ("before_row", "before_ns")
        )
        .drop("never")
    )


def _macs_of(case: Case, role: str) -> list[int]:
    return [mac for host in case.topology.hosts if host.role == role for mac in host.macs]


def _timeouts(case: Case, rows: pl.DataFrame) -> pl.DataFrame:
    """Return per director and forwarding method how long its ip_vs remembers."""
    return pl.DataFrame(
        [
            (
                host,
                method,
                (timeouts := case.timeouts_of(host)).established_s,
                timeouts.closing_s(method),
                case.facts.timeouts_of(host) is not None,
            )
            for host, method in rows.select("emitter_host", "method").unique().iter_rows()
        ],
        schema={
            "emitter_host": pl.String,
            "method": rows.schema["method"],
            "established_s": pl.UInt32,
            "closing_s": pl.UInt32,
            "timeouts_stated": pl.Boolean,
        },
        orient="row",
    )


def _changes(case: Case, rows: pl.DataFrame) -> pl.DataFrame:
    """Return, per connection, the last change of mastership before the packet that was refused."""
    changes = case.mastership
    empty = {"connection": pl.UInt32, "change_vantage": pl.UInt16, "change_row": pl.UInt32}
    if changes.is_empty() or rows.is_empty():
        return pl.DataFrame(schema=empty | {"change_by": pl.String})
    vips = case.members.select("connection", "vip_hi", "vip_lo")
    asked = (
        rows.select("connection", "first_ns", "quiet_ns")
        .join(vips, on="connection")
        .drop_nulls(["first_ns", "vip_lo"])
        .sort("first_ns")
    )
    return (
        asked.join_asof(
            changes.drop_nulls("time_ns").sort("time_ns"),
            left_on="first_ns",
            right_on="time_ns",
            by=["vip_hi", "vip_lo"],
            strategy="backward",
            check_sortedness=False,
        )
        .filter(
            pl.col("time_ns").is_not_null(),
            pl.col("quiet_ns").is_null()
            | (pl.col("time_ns") >= pl.col("first_ns") - pl.col("quiet_ns") - FAILOVER_MARGIN_NS),
        )
        .select(
            "connection",
            pl.col("vantage").alias("change_vantage"),
            pl.col("row").alias("change_row"),
            pl.col("by").alias("change_by"),
        )
    )
