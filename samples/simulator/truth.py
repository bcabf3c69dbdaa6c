"""truth.json: what a sample shows and what an analysis of it must and must not say."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

from . import wire
from .capture import write
from .clock import EPOCH_NS
from .ipvs import Director

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .apps import Flow
    from .capture import Seen
    from .lab import Capture, Lab

METHOD_FLAGS = {"nat": "-m", "dr": "-g", "tun": "-i"}


def must(
    lab: Lab,
    rule: str,
    *,
    flows: Sequence[Flow] = (),
    hosts: Sequence[str] = (),
    cited: dict[str, Callable[[Seen], bool]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return a demand: the rule, the flows it must name, hosts, and frames to be found in `cited`.

    `cited` holds for a capture's file name which of its frames are proof; at least one of all
    must be primary evidence. `more` may hold `may_flows`, ids that may be named as well, and
    `facts`, which the finding must agree with.
    """
    frames = {
        file: lab.captured(file).tap.numbers(wanted) for file, wanted in (cited or {}).items()
    }
    empty = [file for file, numbers in frames.items() if not numbers]
    if empty:
        raise ValueError(f"{lab.sample}: {rule} cites nothing in {empty}")
    ids = [flow.id for flow in flows]
    return {"id": rule, "flows": ids, "hosts": list(hosts), **more, "cited": frames}


def look(lab: Lab, file: str, wanted: Callable[[Seen], bool], what: str) -> dict[str, Any]:
    """Return a pointer for the reader: which frames of a capture show what."""
    numbers = lab.captured(file).tap.numbers(wanted)
    if not numbers:
        raise ValueError(f"{lab.sample}: nothing to look at in {file}: {what}")
    return {"file": file, "frames": numbers, "what": what}


def write_sample(
    lab: Lab,
    folder: Path,
    *,
    description: str,
    story: str,
    look_at: Sequence[dict[str, Any]] = (),
    fault: str | None = None,
    fault_commands: Sequence[dict[str, Any]] = (),
    must_report: Sequence[dict[str, Any]] = (),
    may_report: Sequence[str] = (),
    must_not_report: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> None:
    """Write the captures, truth.json and README.md into `folder`.

    `story` is what the README tells; `look_at` where it sends its reader.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for capture in lab.captures:
        write(
            folder / capture.file,
            capture.tap,
            interface=capture.interface.name,
            snaplen=capture.snaplen,
            dropped=capture.dropped,
        )
    truth = {
        "scenario": lab.sample,
        "description": description,
        "lvs_method": lab.method,
        "vips": [lab.vip],
        "services": _services(lab),
        "hosts": {name: _host(lab, name) for name in lab.hosts},
        "fault": fault,
        "fault_commands": list(fault_commands),
        "must_report": list(must_report),
        "may_report": [{"id": rule} for rule in may_report],
        "must_not_report": [{"id": rule} for rule in must_not_report],
        "notes": list(notes),
        "look_at": list(look_at),
        "captures": [
            {
                "file": capture.file,
                "vantage": capture.vantage,
                "host": capture.interface.host.name,
                "iface": capture.interface.name,
                "snaplen": capture.snaplen,
                "clock_offset_s": capture.tap.clock_error_ns / 1e9,
                "frames": len(capture.tap.frames),
                "bad_checksums": bad_checksums(capture),
            }
            for capture in lab.captures
        ],
        "flows": [_flow(flow) for flow in lab.flows],
    }
    text = json.dumps(truth, indent=1, ensure_ascii=False)
    (folder / "truth.json").write_text(text + "\n", encoding="utf-8")
    made = f"Made by `python samples/make.py {lab.sample}`; `truth.json` holds what is so."
    (folder / "README.md").write_text(readme(truth, story, made), encoding="utf-8")


def _services(lab: Lab) -> list[dict[str, Any]]:
    director = lab.director
    return [
        {
            "proto": "udp" if service.proto == wire.UDP_PROTO else "tcp",
            "vip": service.vip,
            "port": service.port,
            "rport": service.realserver_port,
            "rips": service.realservers,
            "method": METHOD_FLAGS[service.method],
            "scheduler": "rr",
        }
        for service in director.services
    ]


def _host(lab: Lab, name: str) -> dict[str, Any]:
    host = lab.hosts[name]
    ifaces: dict[str, Any] = {
        port: {
            "mac": interface.mac,
            "addrs": interface.addresses,
            "mtu": interface.mtu,
            "segment": interface.segment.name,
        }
        for port, interface in host.interfaces.items()
    }
    if host.loopback and not isinstance(host, Director):
        device = "tunl0" if lab.method == "tun" else "lo"
        ifaces[device] = {"addrs": [f"{address}/32" for address in sorted(host.loopback)]}
    return {"role": host.role, "ifaces": ifaces}


def _flow(flow: Flow) -> dict[str, Any]:
    return {
        "id": flow.id,
        "proto": "tcp",
        "client": list(flow.client),
        "vip": list(flow.service),
        "rs": flow.realserver,
        "label": flow.label,
        "ok": flow.ok,
        "error": flow.error,
        "t_start": flow.start_s,
        "t_end": None if flow.ended_ns is None else (flow.ended_ns - EPOCH_NS) / 1e9,
    }


def bad_checksums(capture: Capture) -> dict[str, int]:
    """Count the frames whose TCP or ICMP checksum is wrong, as far as the capture kept them."""
    count = {"tcp": 0, "icmp": 0}
    names = {wire.TCP_PROTO: "tcp", wire.ICMP_PROTO: "icmp", wire.ICMPV6_PROTO: "icmp"}
    for seen in capture.tap.seen():
        data = seen.frame[14:]
        while seen.ip is not None and wire.read(data).proto == wire.IPIP_PROTO:
            data = data[wire.read(data).header_len :]
        if seen.ip is None or len(seen.frame) > capture.snaplen:
            continue
        header = wire.read(data)
        name = names.get(header.proto)
        if name and wire.transport_sum(data[: header.length]):
            count[name] += 1
    return count


def readme(truth: dict[str, Any], story: str, origin: str) -> str:
    """Return a sample's README: what happens, where to look, what is said and what is not."""
    sample = truth["scenario"]
    lines = [f"# {sample}", "", truth["description"] + ".", ""]
    lines += [
        textwrap.fill(" ".join(part.split()), 100, break_on_hyphens=False) + "\n"
        for part in story.split("\n\n")
        if part.strip()
    ]
    if truth["look_at"]:
        lines += ["| capture | frames | what they are |", "|---|---|---|"]
        lines += [
            f"| {item['file']} | {_ranges(item['frames'])} | {item['what']} |"
            for item in truth["look_at"]
        ]
        lines += [""]
    demanded = [f"`{item['id']}`" for item in truth["must_report"]]
    if demanded:
        lines += [f"Must be reported: {', '.join(demanded)}. Nothing else is wrong here.", ""]
    else:
        lines += ["Nothing is wrong here, and nothing need be reported.", ""]
    if truth["may_report"]:
        allowed = ", ".join(f"`{item['id']}`" for item in truth["may_report"])
        lines += [f"May be reported, too: {allowed}.", ""]
    inputs = [f"{item['vantage']}=samples/{sample}/{item['file']}" for item in truth["captures"]]
    lines += ["```", " \\\n    ".join(["pcapdiag analyze", *inputs]), "```", ""]
    lines += [origin, ""]
    return "\n".join(lines)


def _ranges(numbers: Sequence[int], most: int = 8) -> str:
    """Return "83-91, 94, ..." with at most that many parts."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    shown = [str(low) if low == high else f"{low}-{high}" for low, high in parts[:most]]
    return ", ".join(shown + ["..."] * (len(parts) > most))
