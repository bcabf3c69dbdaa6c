"""The frames that prove a stall by size, and the arrows of its sequence diagram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from pcapdiag.kernel import tcp_sender
from pcapdiag.result import LadderStep

if TYPE_CHECKING:
    from pcapdiag.case.case import Case
    from pcapdiag.result import Evidence

MAX_WAITS: Final = 8
"""Waits between repetitions that are written out: by then they have doubled to 25 s."""


def proof(
    case: Case, exemplars: pl.DataFrame, sender: str
) -> tuple[tuple[Evidence, ...], tuple[LadderStep, ...]]:
    """Return the frames that prove each of `exemplars` (rows of stalls.frame), the first's ladder.

    `sender` is the role that sent the stalled packets: client or realserver.
    """
    evidence: list[Evidence] = []
    ladder: tuple[LadderStep, ...] = ()
    for stall in exemplars.iter_rows(named=True):
        steps: list[LadderStep] = []
        packets: tuple[Evidence, ...] = ()
        if stall["recovered_len"] is not None:
            packets = _recovery(case, stall)
        elif stall["source"] == "packets":
            packets = _packets(case, stall)
        messages = _messages(case, stall, primary=not packets)
        evidence.extend((*packets, *messages))
        receiver = "client" if sender == "realserver" else "realserver"
        steps.extend(
            LadderStep(
                from_=sender,
                to=receiver,
                label=f"{stall['wire_stuck_len']} bytes, DF, seq {stall['stuck_seq']}",
                fate="lost" if item.role == "primary" else "seen",
                frames=(f"{item.vantage}:{item.frame}",),
                time_ns=item.time_ns,
            )
            for item in packets
        )
        steps.extend(
            LadderStep(
                from_="network",
                to="director" if stall["ptb_at_director"] else "network",
                label=f"too big, MTU {stall['ptb_mtu']}",
                fate="seen" if stall["ptb_reached"] else "lost",
                frames=(f"{item.vantage}:{item.frame}",),
                time_ns=item.time_ns,
            )
            for item in messages
        )
        if not ladder:
            ladder = tuple(sorted(steps, key=lambda step: step.time_ns or 0))
    return tuple(evidence), ladder


def _packets(case: Case, stall: dict[str, Any]) -> tuple[Evidence, ...]:
    history = case.history(stall["vantage"], stall["flow"])
    sends = (history.orig if stall["by_orig"] else history.resp).stuck_series
    if not sends:
        return ()
    waits_ns = [send.after_ns for send in sends if send.after_ns is not None]
    waits = ", ".join(f"{wait / 1e9:.1f}" for wait in waits_ns[:MAX_WAITS])
    doubling = ", each twice the one before" if tcp_sender.backs_off(waits_ns) else ""
    size = stall["wire_stuck_len"]
    note = f"{size} bytes with DF, sent {len(sends)} times, never acknowledged"
    first = case.evidence("primary", stall["vantage"], [sends[0].row], f"{note}: the first time")
    last = case.evidence(
        "primary",
        stall["vantage"],
        [sends[-1].row],
        f"{note}: the last time, after waits of {waits} s{doubling}",
    )
    return (*first, *last) if len(sends) > 1 else first


def _recovery(case: Case, stall: dict[str, Any]) -> tuple[Evidence, ...]:
    first = case.evidence(
        "primary",
        stall["vantage"],
        [stall["stuck_row"]],
        f"{stall['wire_stuck_len']} bytes with DF, sent {stall['stuck_repeats']} times in vain",
    )
    small = case.evidence(
        "related",
        stall["vantage"],
        [stall["recovered_row"]],
        f"the same data in packets of {stall['recovered_len']} bytes, which arrive",
    )
    return (*first, *small)


def _messages(case: Case, stall: dict[str, Any], *, primary: bool) -> tuple[Evidence, ...]:
    about = case.too_big.filter(
        pl.col("connection") == stall["connection"],
        pl.col("quoted_sender").cast(pl.String) == stall["sender"],
    ).sort((pl.col("quoted_tcp_seq") != stall["stuck_seq"]).fill_null(value=True), "first_ns")
    evidence: list[Evidence] = []
    for message in about.head(2).iter_rows(named=True):
        fate = {
            "swallowed": "it came in and never went out",
            "wrong-realserver": "it went to the wrong realserver",
            "wrong-translation": "it went out with a wrong translation",
            "forwarded": "the director passed it on",
        }.get(message["verdict"] or "", "its further way was not seen")
        broken = "with a bad checksum, " if message["icmp_checksum"] == "bad" else ""
        evidence.extend(
            case.evidence(
                "primary" if primary or message["verdict"] == "swallowed" else "related",
                message["seen_vantage"],
                [message["seen_row"]],
                f"too big, {broken}next-hop MTU {message['next_hop_mtu']}, about a packet of "
                f"{message['quoted_ip_len']} bytes: {fate}",
            )
        )
    return tuple(evidence)
