"""What stalls of one incident amount to: bounds of the path MTU, messages, and how they ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from pcapdiag.kernel import encapsulations, tcp_sender

if TYPE_CHECKING:
    from pcapdiag.case.case import Case
    from pcapdiag.kernel.encapsulations import Encapsulation


class StallTotals(NamedTuple):
    """Facts of a finding, by name; see the functions that make them.

    explanation: what may lie on the path, to follow "The path MTU"; "" where nothing explains it.
    """

    bounds: dict[str, Any]
    messages: dict[str, Any]
    ends: dict[str, Any]
    explanation: str


def totals(case: Case, stalls: pl.DataFrame) -> StallTotals:
    """Return the totals of some rows of stalls.frame that are about one service and direction.

    They have two columns more: told (a message named an MTU below the size that stalled) and
    recovered (the sender found a size that passes).
    """
    own = _own_tunnel(case, stalls.row(0, named=True))
    bounds = _bounds(stalls, own)
    return StallTotals(bounds, _messages(stalls), _ends(stalls), _explanation(bounds, own))


def _own_tunnel(case: Case, first: dict[str, Any]) -> Encapsulation | None:
    """Return what the director itself puts around these packets: it is on their path for sure."""
    kind = case.service_encapsulations.get(first["service_name"])
    if kind is None or first["direction"] != "to-realserver":
        return None  # answers go past the tunnel
    return encapsulations.of_lvs(kind, first["ip_version"])


def _bounds(stalls: pl.DataFrame, own: Encapsulation | None) -> dict[str, Any]:
    """Return the bounds of the path MTU, and what encapsulation lies between them.

    Clients on other paths may have got larger packets: only what lies below the smallest loss is a
    lower bound.
    """
    smallest_lost = int(stalls["wire_stuck_len"].min())  # type: ignore[arg-type]
    passed = pl.concat([stalls["path_delivered"], stalls["recovered_len"].cast(pl.UInt32)])
    delivered = passed.filter(passed < smallest_lost).max()
    mtu = stalls.filter("told")["ptb_mtu"].min()
    largest = None if delivered is None else int(delivered)  # type: ignore[arg-type]
    named = None if mtu is None else int(mtu)  # type: ignore[arg-type]
    usable = named if named and named < smallest_lost else None
    return {
        "largest_delivered": largest,
        "smallest_lost": smallest_lost,
        "next_hop_mtu": named,
        "explained_by": encapsulations.layers(usable, own)
        if usable
        else encapsulations.candidates(largest, smallest_lost, own),
    }


def _messages(stalls: pl.DataFrame) -> dict[str, Any]:
    """Return how many messages there were, how far they came, and how many for each lost packet."""
    messages = int(stalls["ptb_messages"].sum())
    sends = int(stalls["stuck_repeats"].sum())
    return {
        "icmp_messages": messages,
        "icmp_not_forwarded": int(stalls["ptb_swallowed"].sum()),
        "icmp_reached_sender": int(stalls["ptb_reached"].sum()),
        "icmp_for_each_lost_packet": round(messages / sends, 2) if sends else None,
        "senders_told_that_kept_their_size": stalls.filter(
            pl.col("ptb_reached") > 0, pl.col("reaction") == "kept"
        ).height,
    }


def _ends(stalls: pl.DataFrame) -> dict[str, Any]:
    """Return how the hung sockets stand at the realservers, or how the stalls ended."""
    recovered = stalls.filter("recovered")
    if recovered.height:
        payload = int(recovered["recovered_payload"].max())  # type: ignore[arg-type]
        waited = (recovered["stuck_last_ns"] - recovered["stuck_first_ns"]).max()
        return {
            "recovered_connections": recovered.height,
            "recovered_at": int(recovered["recovered_len"].max()),  # type: ignore[arg-type]
            "recovered_by_probing": tcp_sender.probing_mss(payload) is not None,
            "longest_stall_s": round(int(waited) / 1e9, 3),  # type: ignore[arg-type]
        }
    counts = dict(stalls.group_by("realserver_state").len().drop_nulls().iter_rows())
    return {f"hung_{state.lower()}": counts[state] for state in sorted(counts)}


def _explanation(bounds: dict[str, Any], own: Encapsulation | None) -> str:
    """Return what encapsulation explains an MTU that was named, or the bounds."""
    mtu = bounds["next_hop_mtu"]
    if not mtu:
        return encapsulations.worded(bounds["largest_delivered"], bounds["smallest_lost"], own)
    if not bounds["explained_by"]:
        return ""
    name = bounds["explained_by"][0]
    return f"is {mtu}: {name} on a path of {encapsulations.ETHERNET_MTU} bytes leaves that much"
