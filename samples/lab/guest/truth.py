"""Writes truth.json and state.txt: what was so, and what an analysis must and must not say."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from network import inside

if TYPE_CHECKING:
    from lab import Lab
    from network import Host

RULES = (
    *("pmtud-blackhole", "icmp-unreachable-not-forwarded", "redirect-to-router"),
    *("host-prohibited-established", "icmp-checksum-burst", "connection-expired-at-director"),
    *("realserver-gone", "realserver-ignores-vip", "service-refused", "icmp-error-unusable"),
    *("fragments-lost", "tunnel-mss-too-large", "nat-reply-bypasses-director", "vip-arp-conflict"),
    *("forwarding-loop", "transport-checksum-burst", "icmp-spoofed", "source-quench"),
)
"""All that an analysis could say, but for remarks on the captures."""

STATE = {
    "director": ("ip -br addr", "ip neigh", "ipvsadm -Ln --stats", "ipvsadm -Lnc"),
    "realserver": ("ip -br addr", "ip route", "ip neigh"),
}
"""What is asked of a role; few questions, since a slow guest feels each program."""
FIREWALL = ("iptables-save -c", "ip6tables-save -c", "nft list ruleset")
"""Asked of hosts that a fault touched."""


def write_truth(lab: Lab, folder: Path, text: str) -> None:
    """Write what was so; `text` is the scenario's docstring."""
    description, _, story = inspect.cleandoc(text).partition("\n\n")
    spoken_of = {item["id"] for item in (*lab.demands, *lab.allowed)}
    silent = [rule for rule in RULES if rule not in spoken_of]
    fault = "; ".join(f"{item['host']}: {item['cmd']}" for item in lab.faults) or None
    truth: dict[str, Any] = {
        "scenario": lab.name,
        "description": description.rstrip("."),
        "story": story,
        "lvs_method": lab.method,
        "encapsulation": lab.made.encapsulation if lab.method == "tun" else None,
        "kernel": os.uname().release,
        "vips": [lab.made.plan.vip],
        "services": lab.made.services,
        "hosts": {name: _host(lab, host) for name, host in lab.network.hosts.items()},
        "fault": fault,
        "fault_commands": lab.faults,
        "must_report": lab.demands,
        "may_report": lab.allowed,
        "must_not_report": [{"id": rule} for rule in silent],
        "notes": lab.notes,
        "look_at": lab.pointers,
        "captures": [
            {
                "file": capture.file,
                "vantage": capture.vantage,
                "host": capture.host.name,
                "iface": capture.interface,
                "snaplen": 65535,
                "clock_offset_s": 0,
                "frames": capture.frames,
            }
            for capture in lab.network.captures
        ],
        "flows": [
            {
                "id": flow.id,
                "proto": flow.protocol,
                "client": list(flow.client),
                "vip": list(flow.service),
                "rs": flow.realserver,
                "label": flow.label,
                "ok": flow.ok,
                "error": flow.error,
                "t_start": flow.started,
                "t_end": flow.ended,
            }
            for flow in lab.flows
        ],
    }
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")


def write_state(lab: Lab, folder: Path) -> None:
    """Write what the hosts say of themselves at the end, and what was done to them."""
    touched = {fault["host"] for fault in lab.faults}
    with (folder / "state.txt").open("w") as out:
        for host in lab.network.hosts.values():
            out.write(f"===== {host.name} ({host.role})\n{_counters(host)}")
            for command in (*STATE.get(host.role, ()), *(FIREWALL if host.name in touched else ())):
                out.write(f"# {command}\n{host.run(command, check=False)}")
        out.write("===== commands, seconds from the start of the traffic\n")
        for when, name, commands in lab.network.log:
            out.write(f"{when - lab.started:+8.2f} {name}: {commands}\n")


def _counters(host: Host) -> str:
    """Return the host's counters of IP, ICMP and TCP that are not 0."""
    lines = []
    with inside(host.namespace):
        for file in ("snmp", "netstat"):
            table = Path("/proc/thread-self/net", file).read_text().splitlines()
            for names, values in zip(table[::2], table[1::2], strict=True):
                family, *columns = names.split()
                pairs = zip(columns, values.split()[1:], strict=True)
                shown = [f"{name}={value}" for name, value in pairs if value not in {"0", "-1"}]
                lines.append(f"{family} {' '.join(shown)}")
    return "\n".join(lines) + "\n"


def _host(lab: Lab, host: Host) -> dict[str, Any]:
    faces: dict[str, Any] = {
        name: {"mac": item.mac, "addrs": item.addresses, "mtu": item.mtu, "segment": item.segment}
        for name, item in host.interfaces.items()
    }
    device = {"dr": "lo", "tun": "tunl0"}.get(lab.method)
    if host.role == "realserver" and device:
        faces[device] = {"addrs": [f"{lab.made.plan.vip}/{lab.made.plan.host_bits}"]}
    return {"role": host.role, **({"also": host.also} if host.also else {}), "ifaces": faces}
