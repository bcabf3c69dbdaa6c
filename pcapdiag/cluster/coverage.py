"""What a vantage could have seen: absence proves something only where presence would have shown.

Looked at are the span of its captures on the common clock and the gaps in it, their filters
(written in the file, or inferred from what is in it), the interfaces on which forwarded packets
leave, drop counters, and how much the capture lost by its own account: bytes that TCP shows to have
existed and that no frame holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from pcapdiag.addresses import ip_text
from pcapdiag.cluster.orientation import oriented_one
from pcapdiag.cluster.visible import gaps, losses, standstills
from pcapdiag.cluster.visible.egress import common_span, leaving
from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pcapdiag.cluster.clock import Clocks
    from pcapdiag.cluster.parts import Address
    from pcapdiag.cluster.topology import Topology
    from pcapdiag.cluster.visible.gaps import Span
    from pcapdiag.cluster.visible.losses import Loss, Losses
    from pcapdiag.flows.vantage import VantageTables

MARGIN_NS: Final = 1_000_000_000
"""A capture must go on this long after a packet before "nothing followed" means anything: longer
than any queue in a director, and than the 1 s that a first SYN may wait (ip_vs_conn_reuse_mode)."""

PROOF: Final = 0.001
"""Chance of being wrong below which the absence of n packets counts as proven."""

NOTABLE_LOSS: Final = 0.01
"""Share of missing packets from which a capture counts as one that drops, whatever it counted."""

_NARROW: Final = re.compile(r"\b(tcp|udp|sctp|arp|port|portrange|proto|vrrp|igmp|pim|esp|ah)\b")
"""Words of pcap-filter(7) that keep ICMP out unless ICMP is named, too."""

_NOT_ICMP_S_BUSINESS: Final = re.compile(
    r"(\bnot\b|!)\s*\(?\s*"
    r"(((tcp|udp|sctp) )?(src |dst )?port(range)? [\w-]+|(arp|vrrp|tcp|udp|sctp)\b)\s*\)?"
)
"""Exclusions that take nothing from ICMP: "not port 22", "not arp"."""


class Visibility(NamedTuple):
    """Whether a packet would have been seen, and why not (or how that is known)."""

    ok: bool
    reason: str


@dataclass(frozen=True)
class Coverage:
    """Answers about what vantages, by index, could have seen. Times are on the common clock."""

    vantages: Sequence[VantageTables]
    topology: Topology
    clocks: Clocks

    def span(self, vantage: int) -> tuple[int, int] | None:
        """Return first and last time of a vantage; None where clock or times are not known."""
        spans = [
            (info.first_ns, info.last_ns)
            for info in self.vantages[vantage].captures
            if info.first_ns is not None and info.last_ns is not None
        ]
        first = self.clocks.common(vantage, min((item[0] for item in spans), default=0))
        last = self.clocks.common(vantage, max((item[1] for item in spans), default=0))
        return None if not spans or first is None or last is None else (first, last)

    def covers(self, vantage: int, time_ns: int | None, margin_ns: int = 0) -> Visibility:
        """Return whether a vantage was capturing at a time and `margin_ns` longer; None: at all."""
        name = self.vantages[vantage].name
        if not len(self.vantages[vantage].packets):
            return Visibility(False, f"the capture at {name} is empty")
        if time_ns is None:
            return Visibility(True, f"{name} was captured")
        span = self.span(vantage)
        if span is None:
            return Visibility(
                False, f"the clock of {name} is not aligned: {self.clocks.reasons[vantage]}"
            )
        error = self.clocks.error_ns[vantage] or 0
        if time_ns < span[0] - error:
            return Visibility(False, f"the capture at {name} began later")
        if time_ns + margin_ns > span[1] + error:
            return Visibility(False, f"the capture at {name} ended before or just then")
        return self._no_gap(vantage, time_ns - error, time_ns + margin_ns + error)

    def capturing(
        self, rows: pl.DataFrame, time: str, *, before_ns: int = 0, after_ns: int = 0
    ) -> pl.Series:
        """Return for each row (vantage, and a time on the common clock) whether it is covered.

        That is, `covers` for many: from so long before that time to so long after it.
        """
        if rows.is_empty():
            return pl.Series(dtype=pl.Boolean)
        around = rows.select("vantage", (pl.col(time) - before_ns).alias("begin_ns"))
        paused = gaps.follows(
            around, self._common_pauses, "begin_ns", ["vantage"], before_ns + after_ns
        )
        spans = around.join(self._common_spans, on="vantage", how="left", maintain_order="left")
        end = pl.col("begin_ns") + before_ns + after_ns
        within = (pl.col("begin_ns") >= pl.col("from_ns")) & (end <= pl.col("until_ns"))
        return spans.select(within.fill_null(value=False)).to_series() & ~paused

    @cached_property
    def _common_spans(self) -> pl.DataFrame:
        """Return vantage, from_ns, until_ns of those whose clocks are aligned (common clock)."""
        spans = [(vantage.index, self.span(vantage.index)) for vantage in self.vantages]
        return pl.DataFrame(
            [(index, *span) for index, span in spans if span is not None],
            schema={"vantage": pl.UInt16, "from_ns": pl.Int64, "until_ns": pl.Int64},
            orient="row",
        )

    @cached_property
    def _common_pauses(self) -> pl.DataFrame:
        """Return vantage, gap_from_ns, gap_until_ns of `pauses` on the common clock."""
        common = [
            (index, self.clocks.common(index, first), self.clocks.common(index, last))
            for index, found in enumerate(self.pauses)
            for first, last in found
        ]
        return pl.DataFrame(
            common,
            schema={"vantage": pl.UInt16, "gap_from_ns": pl.Int64, "gap_until_ns": pl.Int64},
            orient="row",
        ).drop_nulls()

    def capture_ends_after(
        self, vantage: int, time_ns: int, margin_ns: int = MARGIN_NS
    ) -> Visibility:
        """Return whether a vantage's capture goes on for `margin_ns` after a time."""
        return self.covers(vantage, time_ns, margin_ns)

    def could_see_icmp_at(self, vantage: int, time_ns: int | None) -> Visibility:
        """Return whether a vantage would have kept an ICMP message at a time; None: at all."""
        covered = self.covers(vantage, time_ns)
        return self._icmp[vantage] if covered.ok else covered

    @cached_property
    def icmp_left_out(self) -> tuple[int, ...]:
        """Return how many ICMP messages of each vantage are not looked at (see alike_errors).

        What each says of a flow some other does; but a message not found may be one of these.
        """
        held = (
            vantage.packets.lazy().select(pl.col("icmp_type").count()).collect().item()
            for vantage in self.vantages
        )
        return tuple(
            count - vantage.icmp.height for count, vantage in zip(held, self.vantages, strict=True)
        )

    def could_see_host(
        self, vantage: int, address: Address, time_ns: int | None = None
    ) -> Visibility:
        """Return whether packets of an address pass a vantage: at least one did."""
        covered = self.covers(vantage, time_ns)
        if not covered.ok:
            return covered
        packets = self.vantages[vantage].packets.lazy()
        seen = packets.select(
            (
                (pl.col("src_hi").eq(address[0]) & pl.col("src_lo").eq(address[1]))
                | (pl.col("dst_hi").eq(address[0]) & pl.col("dst_lo").eq(address[1]))
            ).any()
        )
        name, text = self.vantages[vantage].name, ip_text(*address)
        if seen.collect().item():
            return Visibility(True, f"{name} shows packets of {text}")
        return Visibility(False, f"{name} shows no packet of {text} at all")

    def could_see_answers(self, vantage: int) -> Visibility:
        """Return whether a server's vantage keeps what the server sends.

        It does not (tcpdump -Q in, answers by another interface) where clients go on after their
        SYN, as they only do when answered, and no answer is in any of the captures.
        """
        opened = pl.col("orig_syn") & ~pl.col("orig_rst") & (pl.col("orig_sent") > 1)
        flows = self.vantages[vantage].flows.lazy().filter(pl.col("ip_proto") == int(IpProto.TCP))
        answers = flows.select(
            (pl.col("resp_packets") > 0).any().alias("answered"),
            (opened & (pl.col("resp_packets") == 0)).sum().alias("in_spite"),
        )
        answered, in_spite = answers.collect().row(0)
        name = self.vantages[vantage].name
        if answered or not in_spite:
            return Visibility(True, f"nothing says that {name} leaves answers out")
        return Visibility(
            False,
            f"the capture at {name} keeps one direction only: {in_spite} clients there go on as if"
            " answered, and it holds no answer",
        )

    def egress(self, vantage: int, service: int) -> Visibility:
        """Return whether packets of a service are seen leaving a director towards realservers."""
        seen = self.egress_spans.filter(
            (pl.col("vantage") == vantage) & (pl.col("service") == service)
        )
        name = self.vantages[vantage].name
        if seen.is_empty():
            return Visibility(
                False, f"{name} shows no packet of the service leaving towards a realserver"
            )
        packets = seen.item(0, "packets")
        return Visibility(True, f"{name} shows {packets} packets of the service leaving")

    @cached_property
    def egress_spans(self) -> pl.DataFrame:
        """Return where and when packets of each service were seen leaving a director.

        Columns: vantage (UInt16), service (UInt16), packets, from_ns, until_ns (vantage's own
        clock): the time that all captures which show them have in common.
        """
        rows = [
            (index, number, packets, *common_span(self.vantages[index], captures))
            for index, number, packets, captures in self._leaving
        ]
        return pl.DataFrame(
            rows,
            schema={
                "vantage": pl.UInt16,
                "service": pl.UInt16,
                "packets": pl.UInt32,
                "from_ns": pl.Int64,
                "until_ns": pl.Int64,
            },
            orient="row",
        )

    @cached_property
    def egress_gaps(self) -> pl.DataFrame:
        """Return when the captures of `egress_spans` pause: vantage, service, gap_from_ns, ..."""
        return gaps.table(
            [
                (index, number, *gap)
                for index, number, _, captures in self._leaving
                for gap in gaps.between(self.vantages[index], captures, self._stood_still[index])
            ]
        )

    @cached_property
    def pauses(self) -> tuple[list[Span], ...]:
        """Return when each vantage captured nothing though it might have (vantage's own clock)."""
        return tuple(
            gaps.between(vantage, None, still)
            for vantage, still in zip(self.vantages, self._stood_still, strict=True)
        )

    def loss(self, vantage: int, *, by_client: bool | None = None) -> Loss:
        """Return how much of what passed a vantage its captures lost; None: sent by either side."""
        found = self._losses[vantage]
        if by_client is None:
            return found.all
        return found.of_clients if by_client else found.of_servers

    def loses_little(self, vantage: int) -> bool:
        """Return whether nothing says that captures lost a notable share, whoever sent it."""
        sides = (self.loss(vantage, by_client=by_client) for by_client in (None, True, False))
        return all(not loss.dropped and loss.share < NOTABLE_LOSS for loss in sides)

    def absence_is_proof(self, vantage: int, count: int, *, by_client: bool | None = None) -> bool:
        """Return whether `count` packets, none of which was seen, cannot all have been lost.

        `by_client`: who sent them, where that is known.
        """
        return count > 0 and self.loss(vantage, by_client=by_client).upper ** count < PROOF

    def _no_gap(self, vantage: int, begin_ns: int, end_ns: int) -> Visibility:
        """Return whether the captures of a vantage leave no gap within a time."""
        name = self.vantages[vantage].name
        within = gaps.between(self.vantages[vantage])
        for gap in self.pauses[vantage]:
            first, last = (self.clocks.common(vantage, edge) for edge in gap)
            if first is not None and last is not None and first < end_ns and begin_ns < last:
                why = (
                    "pauses then, between two files"
                    if gap in within
                    else "stands still then, though packets passed"
                )
                return Visibility(False, f"the capture at {name} {why}")
        return Visibility(True, f"{name} was capturing then")

    @cached_property
    def _stood_still(self) -> tuple[pl.DataFrame, ...]:
        return standstills.find(self.vantages, self.topology.vantage_macs, self.clocks)

    @cached_property
    def _leaving(self) -> list[tuple[int, int, int, frozenset[int]]]:
        """Return (vantage, service, packets, captures) of what is seen leaving directors."""
        return [
            (index, *seen)
            for index, role in enumerate(self.topology.roles)
            if role.role == "director"
            for seen in leaving(oriented_one(self.vantages[index]), self.topology)
        ]

    @cached_property
    def _icmp(self) -> tuple[Visibility, ...]:
        return tuple(_keeps_icmp(vantage) for vantage in self.vantages)

    @cached_property
    def _losses(self) -> tuple[Losses, ...]:
        forwarded = self.topology.observed.forwarded
        return tuple(
            losses.measure(
                vantage,
                forwarded.filter(pl.col("vantage") == index),
                self.topology.vantage_macs[index],
            )
            for index, vantage in enumerate(self.vantages)
        )


def _keeps_icmp(vantage: VantageTables) -> Visibility:
    """Return whether the captures of a vantage keep ICMP, from their filters or their content."""
    filters = {
        text
        for info in vantage.captures
        for interface in info.interfaces
        if (text := (interface.filter or "").strip().lower())
    }
    for text in sorted(filters):
        if not filter_keeps_icmp(text):
            return Visibility(False, f'the capture filter at {vantage.name} is "{text}"')
    if not len(vantage.packets):
        return Visibility(False, f"the capture at {vantage.name} is empty")
    if filters:
        return Visibility(True, f"the capture filter at {vantage.name} lets ICMP through")
    kinds = vantage.packets.lazy().select(
        pl.col("ip_proto").is_in([int(IpProto.ICMP), int(IpProto.ICMPV6)]).any().alias("icmp"),
        pl.col("ip_version").is_null().any().alias("other"),
        pl.col("ip_proto").n_unique().alias("protocols"),
    )
    seen = kinds.collect().row(0)
    if seen[0]:
        return Visibility(True, f"{vantage.name} shows ICMP")
    ports = vantage.flows.select("ip_proto", "resp_port").n_unique()
    if seen[1] or seen[2] > 1 or ports > 1:
        return Visibility(True, f"{vantage.name} shows no sign of a capture filter")
    return Visibility(
        False,
        f"{vantage.name} shows nothing but one port: a capture filter may have left ICMP out",
    )


def filter_keeps_icmp(text: str) -> bool:
    """Return whether a capture filter surely lets ICMP errors through.

    Not a parser of pcap-filter(7): where a filter names other protocols or ports without ICMP
    the answer is no, even if one of its alternatives would let ICMP pass.
    """
    plain = _NOT_ICMP_S_BUSINESS.sub(" ", text.lower())
    if re.search(r"(not|!)\s*\(?\s*icmp", plain):
        return False
    named = re.search(r"\bicmp6?\b|\bproto\s+\\?(icmp|1|58)\b", plain)
    return bool(named) or not _NARROW.search(plain)
