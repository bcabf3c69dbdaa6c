"""A scenario at work: a cluster, its traffic, its captures, and the truth about it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from cluster import FLAGS, PLANS, Cluster
from network import Network
from traffic import LATE_S, Flow, Servers, check_health

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from traffic import Step

LEAD_IN_S = 1.0
"""Captures run before the first packet, and on after the last."""
PATIENCE_S = 14.0
"""How long a client waits: six retransmissions at doubling pauses are seen."""


class Lab:
    """What a scenario is written with."""

    def __init__(self, name: str, folder: Path) -> None:
        """Make an empty lab that writes into `folder`."""
        self.name = name
        self.network = Network(name[:40], folder)
        self.servers = Servers()
        self.flows: list[Flow] = []
        self.faults: list[dict[str, str]] = []
        self.later: list[tuple[float, str, str]] = []
        self.demands: list[dict[str, Any]] = []
        self.allowed: list[dict[str, Any]] = []
        self.pointers: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.started = 0.0
        self.health_checks = True

    # --- before the traffic

    def cluster(
        self,
        method: str,
        plan: str = "public",
        *,
        port: int = 80,
        rport: int | None = None,
        udp: bool = False,
        **shape: Any,
    ) -> Cluster:
        """Build a cluster that serves one port; `shape` goes to Cluster."""
        self.made = Cluster(self.network, method, PLANS[plan], **shape)
        self.port, self.rport, self.udp = port, rport or port, udp
        if self.rport != port and method not in {"nat", "onearm"}:
            raise ValueError("only NAT changes ports")
        self.made.serve(port, rport, protocol="udp" if udp else "tcp")
        for host in self.made.realservers:
            if udp:
                own = self.made.plan.vip if self.method in {"dr", "tun"} else ""
                self.servers.echo(host, own, self.rport)
            self.servers.serve(host, self.rport, ipv6=self.made.ipv6)
        return self.made

    def fault(self, host: str, command: str, *, at: float = 0.0) -> None:
        """Break something with a command: before the traffic, or so many seconds into it."""
        self.faults.append({"host": host, "cmd": command})
        if at:
            self.later.append((at, host, command))
        else:
            self.network.hosts[host].do(command)

    def then(self, host: str, command: str, *, at: float) -> None:
        """Run a command that is no fault so many seconds into the traffic."""
        self.later.append((at, host, command))

    def browse(
        self,
        label: str,
        steps: Sequence[Step],
        *,
        client: str = "client-near",
        count: int = 1,
        start: float = 0.5,
        every: float = 0.4,
        patience: float = PATIENCE_S,
        source: tuple[int, int] | None = None,
    ) -> list[Flow]:
        """Plan connections from a client's addresses in turn, some time apart.

        `source` is the number of an address and a port that all of them use.
        """
        host = self.network.hosts[client]
        addresses = [item.split("/")[0] for item in host.interfaces["eth0"].addresses]
        made = []
        for index in range(count):
            number = len(self.flows)
            where, port = source or (number % len(addresses), 33001 + 37 * number)
            flow = Flow(
                number,
                label,
                host,
                (addresses[where], port),
                (self.made.plan.vip, self.port),
                start + index * every,
                steps,
                patience,
                "udp" if self.udp else "tcp",
            )
            self.flows.append(flow)
            made.append(flow)
        return made

    def ask(self, label: str, size: int, **how: Any) -> list[Flow]:
        """Plan datagrams of a size that are answered in kind."""
        return self.browse(label, [("ask", size), ("pause", 0.6), ("ask", size)], **how)

    def background(self, seconds: float = 12.0, *, client: str = "client-near") -> list[Flow]:
        """Plan ordinary traffic: small and larger answers, uploads, kept-alive connections."""
        small = self.browse(
            "small", [("get", 500)], client=client, count=6, every=seconds / 6, start=0.6
        )
        large = self.browse(
            "large", [("get", 9000)], client=client, count=3, every=seconds / 3, start=1.1
        )
        upload = self.browse(
            "upload", [("post", 7000)], client=client, count=2, every=seconds / 2, start=1.7
        )
        steps = [("get", 700), ("pause", 1.5), ("get", 3500), ("pause", 2.5), ("get", 300)]
        kept = self.browse("kept", steps, client=client, count=2, start=0.8)
        return [*small, *large, *upload, *kept]

    def capture(self, *places: str) -> None:
        """Start captures: "rs1", "director:eth1", or "client=client-far" to name the vantage."""
        for place in places:
            vantage, _, where = place.rpartition("=")
            name, _, interface = where.partition(":")
            vantage = vantage or name
            file = f"{vantage}-{interface}.pcap" if interface else f"{vantage}.pcap"
            host = self.network.hosts[name]
            self.network.capture(file, host, interface or "eth0", vantage)

    # --- the traffic

    def play(self, *, quiet_s: float = 2.0, at_least: float = 0.0) -> None:
        """Run all flows and later commands to their ends, then stop the captures."""
        if not self.network.captures:
            nat = self.made.method == "nat"
            directors = ("director:eth0", "director:eth1") if nat else ("director",)
            self.capture(*directors, "rs1", "rs2", "router", "client=client-near")
        self.started = time.time() + LEAD_IN_S
        planned = max([flow.start_s + _length(flow) for flow in self.flows], default=0.0)
        until = self.started + max(planned, at_least)
        for flow in self.flows:
            flow.started = self.started + flow.start_s
        players = [threading.Thread(target=flow.play, daemon=True) for flow in self.flows]
        if self.health_checks:
            targets = [
                (self.made.rip(number + 1), self.rport)
                for number in range(len(self.made.realservers))
            ]
            players.append(
                threading.Thread(
                    target=check_health, args=(self.made.director, targets, until), daemon=True
                )
            )
        for player in players:
            player.start()
        for at, host, command in sorted(self.later):
            time.sleep(max(0.0, self.started + at - time.time()))
            self.network.hosts[host].do(command)
        for player in players:
            player.join()
        time.sleep(max(quiet_s, self.started + at_least - time.time()))
        self.network.stop_captures()
        for flow in self.flows:
            flow.realserver = flow.realserver or self.servers.accepted.get(flow.client)
            if flow.socket:
                flow.socket.close()

    # --- the truth

    def failed(self, *labels: str) -> list[Flow]:
        """Return the flows that went wrong, of these labels or of all."""
        return [flow for flow in self.flows if not flow.ok and (not labels or flow.label in labels)]

    def must(
        self,
        rule: str,
        *causes: str,
        flows: Iterable[Flow] = (),
        may: Iterable[Flow] = (),
        hosts: Sequence[str] = (),
        may_hosts: Sequence[str] = (),
        may_clients: Sequence[str] = (),
        may_causes: Sequence[str] = (),
        cited: dict[str, str] | None = None,
        **facts: Any,
    ) -> None:
        """Demand a finding: cause, connections, hosts, and per capture a pcap filter for its proof.

        Each of `causes` is what the fault implies; of several, each says it from another side.
        `may_causes` say less, and are as true where captures are spoiled. `may_hosts` may be named
        as well: they took part without being at fault. `may_clients` are addresses whose
        connections may be named, since a command opened them and no client did.
        """
        demand: dict[str, Any] = {"id": rule, "cause": _one_or_more(causes)}
        if may_causes:
            demand["may_causes"] = list(may_causes)
        demand["flows"] = [flow.id for flow in flows]
        also = [flow.id for flow in may if flow.id not in demand["flows"]]
        if also:
            demand["may_flows"] = also
        demand["hosts"] = list(hosts)
        if may_hosts:
            demand["may_hosts"] = list(may_hosts)
        if may_clients:
            demand["may_clients"] = list(may_clients)
        if facts:
            demand["facts"] = facts
        demand["cited"] = {
            file: self.frames(file, wanted) for file, wanted in (cited or {}).items()
        }
        self.demands.append(demand)

    def may(self, rule: str, *causes: str) -> None:
        """Allow a finding that is right but need not be made."""
        self.allowed.append({"id": rule, "cause": _one_or_more(causes)})

    def look(self, file: str, wanted: str, what: str) -> None:
        """Point the reader to frames."""
        self.pointers.append({"file": file, "frames": self.frames(file, wanted), "what": what})

    def told(self, flows: Iterable[Flow], file: str, about: str, port_at: str) -> list[Flow]:
        """Return the flows whose client's port stands at a place in messages of a capture."""
        return [
            flow
            for flow in flows
            if self._numbers(file, f"{about} and {port_at} == {flow.client[1]}")
        ]

    def frames(self, file: str, wanted: str) -> list[int]:
        """Return the frames of a capture that a pcap filter selects; none is an error."""
        numbers = self._numbers(file, wanted)
        if not numbers:
            raise LookupError(f"{self.name}: nothing in {file} is {wanted}")
        return numbers

    def _numbers(self, file: str, wanted: str) -> list[int]:
        capture = next(item for item in self.network.captures if item.file == file)
        return capture.numbers(wanted)

    def expect(self, claim: bool, text: str) -> None:
        """Hold that the scenario did what it is meant to do."""
        if not claim:
            raise AssertionError(f"{self.name}: {text}")

    @property
    def method(self) -> str:
        """The forwarding method as the glossary has it."""
        return {"-m": "nat", "-g": "dr", "-i": "tun"}[FLAGS[self.made.method]]


def _length(flow: Flow) -> float:
    waits = {"pause": lambda amount: amount, "late": lambda _: LATE_S}
    return 1.0 + sum(waits[word](amount) for word, amount in flow.steps if word in waits)


def _one_or_more(causes: Sequence[str]) -> str | list[str]:
    return causes[0] if len(causes) == 1 else list(causes)
