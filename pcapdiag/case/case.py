"""One case: the vantages, the cluster they show, and the questions a rule may ask of them.

Everything here is computed at most once, when first asked for. Questions live in the rooms of
this folder, a family each; this class is their front door.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from pcapdiag import spool
from pcapdiag.addresses import ip_text, mac_text
from pcapdiag.case import frames, members, sides, visibility
from pcapdiag.case.errors import (
    checksums,
    prohibitions,
    ptb,
    quench,
    rewrites,
    spoofing,
    unreachables,
    unusable,
)
from pcapdiag.case.requests import (
    forgotten,
    openings,
    refusals,
    refused_requests,
    resets,
    unanswered,
    vanished,
)
from pcapdiag.case.sizes import (
    path_sizes,
    price,
    reactions,
    stall_proof,
    stall_totals,
    stalls,
    tunnels,
)
from pcapdiag.case.ways import (
    claims,
    detours,
    loops,
    mastership,
    neighbours,
    redirect_criteria,
    redirects,
)
from pcapdiag.case.wire import fragments, quality, transport_sums
from pcapdiag.cluster import (
    clock,
    connections,
    contract,
    coverage,
    crossings,
    packet_contract,
    packet_crossings,
    topology,
)
from pcapdiag.facts import Facts
from pcapdiag.flows import history
from pcapdiag.kernel import ipvs_timeouts
from pcapdiag.protocols import IpProto

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from pcapdiag.flows.history import FlowHistory
    from pcapdiag.flows.vantage import VantageTables
    from pcapdiag.kernel.ipvs_timeouts import Timeouts
    from pcapdiag.kernel.residual import Explanation
    from pcapdiag.result import Evidence, FlowRef, LadderStep
    from pcapdiag.site import Site


@dataclass(frozen=True)
class Case:
    """Vantages with what was derived from them. Frames returned must not be changed."""

    vantages: tuple[VantageTables, ...]
    site: Site | None = None
    facts: Facts = field(default_factory=Facts)

    # What the cluster is, and what crossed it.

    @cached_property
    def topology(self) -> topology.Topology:
        """Return roles, hosts and services, each with the reason for it."""
        return topology.infer(self.vantages, self.site)

    @cached_property
    def clocks(self) -> clock.Clocks:
        """Return what to add to each vantage's times to get the common clock."""
        return clock.align(self.vantages, self.topology)

    @cached_property
    def connections(self) -> connections.Connections:
        """Return client connections with their legs at the vantages."""
        return connections.join(self.vantages, self.topology, self.clocks)

    @cached_property
    def coverage(self) -> coverage.Coverage:
        """Return what each vantage could have seen."""
        return coverage.Coverage(self.vantages, self.topology, self.clocks)

    @cached_property
    def errors(self) -> crossings.ErrorCrossings:
        """Return each ICMP error once, with every sight of it."""
        return crossings.errors(self.vantages, self.topology, self.connections, self.clocks)

    @cached_property
    def contract(self) -> pl.DataFrame:
        """Return, per error that reached a director, what it did with it (schema CONTRACT)."""
        return contract.judge(
            self.vantages, self.topology, self.connections, self.errors, self.coverage
        )

    def crossings(self, connection_ids: Iterable[int]) -> packet_crossings.Crossings:
        """Return the packets of suspected connections with every sight of each."""
        return packet_crossings.find(
            self.vantages, self.topology, self.connections, self.clocks, connection_ids
        )

    def packet_contract(self, connection_ids: Iterable[int]) -> pl.DataFrame:
        """Return what directors did with packets of suspected connections (PACKET_CONTRACT)."""
        return packet_contract.judge(
            self.vantages,
            self.topology,
            self.connections,
            self.errors,
            self.coverage,
            self.crossings(connection_ids),
        )

    # Names.

    def role(self, vantage: int) -> str:
        """Return the role of a vantage: director, realserver, client, router or unknown."""
        return self.topology.roles[vantage].role

    def vantages_of(self, *roles: str) -> tuple[VantageTables, ...]:
        """Return the vantages that have one of `roles`."""
        return tuple(item for item in self.vantages if self.role(item.index) in roles)

    def host_of_mac(self, mac: int | None) -> str | None:
        """Return the name of the host that owns `mac`, if it is known."""
        return None if mac is None else members.host_of_mac(self, mac)

    def role_of_mac(self, mac: int | None) -> str | None:
        """Return director, realserver, router or client for the owner of `mac`, if known."""
        return None if mac is None else self.topology.mac_role(mac)

    def host_of_address(self, hi: int, lo: int) -> str:
        """Return the name of the host that owns an address, else the address as text."""
        return members.host_of_address(self, hi, lo) or ip_text(hi, lo)

    def address_text(self, row: Mapping[str, Any], prefix: str) -> str:
        """Return the address in the columns `prefix`_hi and `prefix`_lo of a row, "unknown"."""
        hi, lo = row[f"{prefix}_hi"], row[f"{prefix}_lo"]
        return "unknown" if hi is None or lo is None else ip_text(hi, lo)

    def mac_text(self, mac: int) -> str:
        """Return a MAC as text."""
        return mac_text(mac)

    # What findings are made of.

    def evidence(
        self, role: str, vantage: int, rows: Iterable[int], note: str
    ) -> tuple[Evidence, ...]:
        """Return the frames at `rows` of a vantage as evidence, all with one sentence."""
        return frames.evidence(self, role, vantage, rows, note)

    def with_times(self, rows: pl.DataFrame, name: str) -> pl.DataFrame:
        """Return rows that name frames with their times on the common clock in a column `name`."""
        return frames.with_times(self, rows, name)

    def flow_refs(self, connection_ids: Sequence[int]) -> tuple[FlowRef, ...]:
        """Return connections as a finding lists them, at most result.MAX_FLOWS."""
        return members.flow_refs(self, connection_ids)

    def history(self, vantage: int, flow: int) -> FlowHistory:
        """Return what one flow under suspicion did, packet by packet: see flows/history.py."""
        return history.histories(self.vantages[vantage], [flow])[flow]

    # Questions.

    @cached_property
    def service_names(self) -> tuple[str, ...]:
        """Return "tcp 203.0.113.10:80" and so on, in the order of topology.services."""
        return members.service_names(self)

    @cached_property
    def tcp_service_names(self) -> tuple[str, ...]:
        """Return those of `service_names` that are TCP services."""
        return tuple(
            name
            for name, service in zip(self.service_names, self.topology.services, strict=True)
            if service.ip_proto == IpProto.TCP
        )

    @cached_property
    def service_methods(self) -> dict[str, str | None]:
        """Return the forwarding method of each service by name; None where nothing shows it."""
        services = zip(self.service_names, self.topology.services, strict=True)
        return {name: service.method for name, service in services}

    @cached_property
    def service_encapsulations(self) -> dict[str, str | None]:
        """Return what LVS-TUN wraps each service's packets in; None for others, or not known."""
        services = zip(self.service_names, self.topology.services, strict=True)
        return {name: service.encapsulation for name, service in services}

    @cached_property
    def members(self) -> pl.DataFrame:
        """Return the connections with names in text: see members.frame."""
        return members.frame(self)

    @cached_property
    def director_names(self) -> tuple[str, ...]:
        """Return the names of the directors, as vantages or hosts call them."""
        return members.names_of_role(self, "director")

    @cached_property
    def tcp_sides(self) -> pl.LazyFrame:
        """Return every TCP flow as two senders, as a query: see sides.frame."""
        return sides.frame(self)

    @cached_property
    def stalls(self) -> pl.DataFrame:
        """Return connections whose large packets never arrive: see stalls.frame."""
        return stalls.frame(self)

    @cached_property
    def reactions(self) -> pl.DataFrame:
        """Return what senders did once told of a smaller path MTU: see reactions.frame."""
        return reactions.frame(self)

    def path_sizes(self, stalls: pl.DataFrame) -> pl.DataFrame:
        """Return the packet sizes that passed and did not, of some of stalls: path_sizes.frame."""
        return path_sizes.frame(self, stalls)

    def stall_proof(
        self, stalls: pl.DataFrame, sender: str
    ) -> tuple[tuple[Evidence, ...], tuple[LadderStep, ...]]:
        """Return the frames that prove some of `stalls`, and a ladder: see stall_proof.proof."""
        return stall_proof.proof(self, stalls, sender)

    def stall_totals(self, stalls: pl.DataFrame) -> stall_totals.StallTotals:
        """Return what some of stalls amount to: see stall_totals.totals."""
        return stall_totals.totals(self, stalls)

    @cached_property
    def sizes(self) -> pl.DataFrame:
        """Return per service and direction what sizes were tried and arrived: see stalls.sizes."""
        return stalls.sizes(self)

    @cached_property
    def too_big(self) -> pl.DataFrame:
        """Return the fragmentation-needed and packet-too-big messages: see ptb.frame."""
        return ptb.frame(self)

    @cached_property
    def outside_captured(self) -> bool:
        """Whether a director's capture shows ICMP and the clients' side of connections."""
        outside = set(self.connections.legs.filter(pl.col("kind") == "front")["vantage"].unique())
        return any(
            visible and self.role(index) == "director" and index in outside
            for index, visible in enumerate(self.icmp_visible)
        )

    @cached_property
    def strange_too_big(self) -> int:
        """Return how many of them a director got about nobody that is known: see ptb.strangers."""
        return ptb.strangers(self)

    @cached_property
    def arrived_errors(self) -> pl.DataFrame:
        """Return the errors that reached a director, with what it did: see members.arrived."""
        return members.arrived(self)

    @cached_property
    def error_forms(self) -> pl.DataFrame:
        """Return what ICMP errors name, quote and come from: see unusable.frame."""
        return unusable.frame(self)

    def error_aftermath(self, messages: pl.DataFrame) -> pl.DataFrame:
        """Return how things went on after some of error_forms: see unusable.aftermath."""
        return unusable.aftermath(self, messages)

    @cached_property
    def fragment_sights(self) -> pl.DataFrame:
        """Return fragmented datagrams along their way: see fragments.sights."""
        return fragments.sights(self)

    @cached_property
    def reassembly_timeouts(self) -> pl.DataFrame:
        """Return "fragment reassembly time exceeded" messages: see fragments.timeouts."""
        return fragments.timeouts(self)

    @cached_property
    def tunnel_rooms(self) -> pl.DataFrame:
        """Return how much fits the tunnels of LVS-TUN services: see tunnels.rooms."""
        return tunnels.rooms(self)

    @cached_property
    def tunnel_loads(self) -> pl.DataFrame:
        """Return what clients of LVS-TUN services may send, and did: see tunnels.loads."""
        return tunnels.loads(self)

    @cached_property
    def told_tunnel_clients(self) -> pl.DataFrame:
        """Return what refuses packets of LVS-TUN clients: see tunnels.told_clients."""
        return tunnels.told_clients(self)

    def mss_announcements(self, connections: pl.Series) -> pl.DataFrame:
        """Return where SYN-ACKs of connections were seen: see tunnels.announcements."""
        return tunnels.announcements(self, connections)

    def largest_client_packets(self, connections: pl.Series) -> pl.DataFrame:
        """Return the largest packet of each connection's client: see tunnels.largest."""
        return tunnels.largest(self, connections)

    @cached_property
    def qualities(self) -> tuple[quality.Quality, ...]:
        """Return, for each vantage, what its captures are good for: see quality.of."""
        return tuple(quality.of(self, vantage) for vantage in self.vantages)

    @cached_property
    def stranger_errors(self) -> pl.DataFrame:
        """Return errors at a director that never had their connection: see price.strangers."""
        return price.strangers(self)

    def price(self, errors: pl.DataFrame) -> price.Price:
        """Return what it costs that some of arrived_errors were not handed on: see price.of."""
        return price.of(self, errors)

    @cached_property
    def holds_more_than_icmp(self) -> bool:
        """Whether any capture holds packets of another protocol above IP than ICMP."""
        icmp = [int(IpProto.ICMP), int(IpProto.ICMPV6)]
        return any(
            vantage.packets.lazy()
            .select((pl.col("ip_proto").is_not_null() & ~pl.col("ip_proto").is_in(icmp)).any())
            .collect()
            .item()
            for vantage in self.vantages
        )

    @cached_property
    def strange_quenches(self) -> int:
        """Return how many source quenches are about no connection that a capture shows."""
        return quench.strange(self)

    @cached_property
    def quenches(self) -> pl.DataFrame:
        """Return source quench messages and what they did: see quench.frame."""
        return quench.frame(self)

    @cached_property
    def contradictions(self) -> pl.DataFrame:
        """Return errors held against what their quoted sender sent: see spoofing.frame."""
        return spoofing.frame(self)

    @cached_property
    def redirect_forms(self) -> pl.DataFrame:
        """Return redirects and how far their gateways are good for: see spoofing."""
        return spoofing.forged_redirects(self)

    @cached_property
    def verified_sums(self) -> tuple[transport_sums.Verified, ...]:
        """Return, for each vantage, TCP and UDP checksums: see transport_sums.verified."""
        return tuple(transport_sums.verified(vantage) for vantage in self.vantages)

    @cached_property
    def sums_verified(self) -> tuple[int, ...]:
        """Return, for each vantage, of how many TCP and UDP packets the checksum could be verified.

        A packet that a vantage saw again, forwarded or captured twice, is one.
        """
        return tuple(
            spool.at(
                vantage.packets,
                item.sums.filter(pl.col("verdict") != "unverifiable", ~pl.col("partial"))["row"],
                "copy_of",
            )["copy_of"].null_count()
            for vantage, item in zip(self.vantages, self.verified_sums, strict=True)
        )

    @cached_property
    def kinds_verified(self) -> pl.DataFrame:
        """Return how many packets of each kind were verified where: see transport_sums.kinds."""
        return transport_sums.kinds(self)

    @cached_property
    def sums_unread(self) -> tuple[str, ...]:
        """Return why some captures could not be read a second time, a sentence each."""
        return tuple(reason for item in self.verified_sums for reason in item.unread)

    @cached_property
    def sums_cut(self) -> tuple[int, int]:
        """Return how many TCP and UDP packets are cut, and of how many: see transport_sums.cut."""
        return transport_sums.cut(self)

    @cached_property
    def bad_sums(self) -> pl.DataFrame:
        """Return TCP and UDP packets that arrive with bad checksums: see transport_sums.frame."""
        return transport_sums.frame(self)

    def connection_count(self, service_name: str | None) -> int:
        """Return how many connections of a service the captures show."""
        return self._connection_counts.get(service_name, 0)

    @cached_property
    def _connection_counts(self) -> dict[str | None, int]:
        return dict(self.members.group_by("service_name").len().iter_rows())

    @cached_property
    def named_legs(self) -> pl.DataFrame:
        """Return which connections of which service each vantage shows: see members.named_legs."""
        return members.named_legs(self)

    def requests_between(self, service_name: str | None, start_ns: Any, end_ns: Any) -> int:
        """Return how many connections of a service began between two times; None: unbounded."""
        return members.begun_between(self, service_name, start_ns, end_ns)

    @cached_property
    def prohibitions(self) -> pl.DataFrame:
        """Return "administratively prohibited" about TCP packets: see prohibitions.frame."""
        return prohibitions.frame(self)

    @cached_property
    def cut_tunnel_refusals(self) -> int:
        """Return how many errors refuse a tunnel and are cut: see unreachables.tunnels_cut."""
        return unreachables.tunnels_cut(self)

    @cached_property
    def cut_prohibitions(self) -> int:
        """Return how many of them say no more, as captured, about whom: see prohibitions.cut."""
        return prohibitions.cut(self)

    def replayed(self, messages: pl.DataFrame) -> tuple[refusals.Replayed, ...]:
        """Return some connections of `prohibitions` as their host's conntrack saw them."""
        return refusals.replay(self, messages)

    def logged_as_invalid(self, messages: pl.DataFrame) -> dict[str, int]:
        """Return what logs say of the packets that `messages` rejected: see refusals.logged."""
        return refusals.logged(self, messages)

    @cached_property
    def resets(self) -> pl.DataFrame:
        """Return the resets that clients got, and from whom: see resets.frame."""
        return resets.frame(self)

    @cached_property
    def unreachables(self) -> pl.DataFrame:
        """Return ICMP "unreachable" about known connections: see unreachables.frame."""
        return unreachables.frame(self)

    @cached_property
    def mastership(self) -> pl.DataFrame:
        """Return when virtual addresses moved to another director: see mastership.frame."""
        return mastership.frame(self)

    @cached_property
    def forgotten(self) -> pl.DataFrame:
        """Return connections of which their director knows nothing: see forgotten.frame."""
        return forgotten.frame(self)

    @cached_property
    def tails(self) -> pl.DataFrame:
        """Return last requests of clients that they repeated: see unanswered.tails."""
        return unanswered.tails(self)

    @cached_property
    def unanswered(self) -> pl.DataFrame:
        """Return connections whose last request was repeated in vain: see unanswered.frame."""
        return unanswered.frame(self)

    @cached_property
    def served(self) -> pl.DataFrame:
        """Return connections that went well so far: see unanswered.served."""
        return unanswered.served(self)

    @cached_property
    def asked_in_vain(self) -> pl.DataFrame:
        """Return ARP requests and solicitations that nobody answered: see neighbours.vain."""
        return neighbours.vain(self)

    @cached_property
    def heard(self) -> pl.DataFrame:
        """Return when each MAC sent a frame last: see neighbours.heard."""
        return neighbours.heard(self)

    @cached_property
    def detours(self) -> pl.DataFrame:
        """Return answers of NAT realservers under their own address: see detours.frame."""
        return detours.frame(self)

    @cached_property
    def translated_answers(self) -> dict[str, int]:
        """Return by service how many NAT connections were answered through a director."""
        return detours.translated_answers(self)

    @cached_property
    def two_answers(self) -> pl.DataFrame:
        """Return questions about a VIP that two MACs answered: see claims.frame."""
        return claims.frame(self)

    @cached_property
    def vips_answered_for(self) -> dict[tuple[int, int], int]:
        """Return per VIP how many answers to ARP about it were captured."""
        return claims.answered(self)

    def frames_to(self, vip: tuple[int, int], asker_mac: int, macs: list[int]) -> pl.DataFrame:
        """Return where a host's frames for a VIP went: see claims.frames_to."""
        return claims.frames_to(self, vip, asker_mac, macs)

    @cached_property
    def loops(self) -> pl.DataFrame:
        """Return packets that came by again and again: see loops.frame."""
        return loops.frame(self)

    def requests_at(self, vantage: int, rows: Sequence[int]) -> pl.DataFrame:
        """Return how packets arrived at a vantage: see unanswered.arrivals."""
        return unanswered.arrivals(self, vantage, rows)

    @cached_property
    def vanished(self) -> pl.DataFrame:
        """Return requests that no realserver answered, and how they ended: see vanished.frame."""
        return vanished.frame(self)

    @cached_property
    def refused_requests(self) -> pl.DataFrame:
        """Return requests for a service that were turned away: see refused_requests.frame."""
        return refused_requests.frame(self)

    def longest_survived_ns(self, service_name: str | None) -> int | None:
        """Return the longest pause after which a director still knew a service's connection."""
        return forgotten.longest_survived_ns(self, service_name)

    def timeouts_of(self, host: str | None) -> Timeouts:
        """Return how long ip_vs of a host remembers quiet connections: as it says, or by default.

        None stands for a director whose name is not known.
        """
        return self.facts.timeouts_of(host) or ipvs_timeouts.DEFAULT

    @cached_property
    def openings(self) -> pl.DataFrame:
        """Return what directors did with requests for a connection: see openings.frame."""
        return openings.frame(self)

    def absence_is_proof(self, vantage: int, count: int, *, by_client: bool) -> bool:
        """Return whether `count` packets that a vantage did not show cannot all have been lost.

        `by_client`: clients sent them, not servers.
        """
        return self.coverage.absence_is_proof(vantage, count, by_client=by_client)

    def connections_at(self, *roles: str) -> dict[str, int]:
        """Return how many connections of each service the vantages of some roles show."""
        return members.counted_at(self, roles)

    @cached_property
    def redirects(self) -> pl.DataFrame:
        """Return ICMP redirects with what their receivers did next: see redirects.frame."""
        return redirects.frame(self)

    def redirected(self, redirects_: pl.DataFrame) -> list[int]:
        """Return the connections that some of `redirects` lead astray: redirects.connections."""
        return redirects.connections(self, redirects_)

    def redirect_criteria(self, redirects: pl.DataFrame) -> redirect_criteria.Criteria:
        """Return whether a gateway might send some of `redirects`: redirect_criteria.check."""
        return redirect_criteria.check(self, redirects)

    @cached_property
    def bad_checksums(self) -> pl.DataFrame:
        """Return ICMP messages whose checksum fails: see checksums.frame."""
        return checksums.frame(self)

    @cached_property
    def verified_checksums(self) -> int:
        """Return how many ICMP messages were captured whole enough to be verified."""
        return sum(
            vantage.icmp.filter(pl.col("icmp_checksum") != "unverifiable").height
            for vantage in self.vantages
        )

    @cached_property
    def checksums_that_may_be_sent(self) -> int:
        """Return how many bad ICMP messages are left out as sent: see checksums.may_be_sent."""
        return checksums.may_be_sent(self)

    def explain_checksums(self, bad: pl.DataFrame) -> Explanation:
        """Return what explains the residuals of all of some bad_checksums: see rewrites.explain."""
        return rewrites.explain(self, bad)

    def checksum_changes(self, bad: pl.DataFrame) -> tuple[int, dict[str, str], int | None]:
        """Return what changed where messages were seen good and then bad: checksums.changes."""
        return checksums.changes(self, bad)

    @cached_property
    def icmp_visible(self) -> tuple[bool, ...]:
        """Return, for each vantage, whether its capture would have kept ICMP."""
        return visibility.icmp(self)

    def capture_command(self, *, role: str, method: str | None = None) -> str:
        """Return the tcpdump command that takes the capture which is missing."""
        return visibility.capture_command(self, role, method)
