"""LVS-DR; a router lowers the MSS in the SYNs of some clients and forgets the checksum."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from simulator import cluster, wire
from simulator.everyday import all_but
from simulator.frames import every, flags, of, sent_by
from simulator.traffic import browse
from simulator.truth import look, must, write_sample

if TYPE_CHECKING:
    from pathlib import Path

    from simulator.links import Interface

CLAMPED = 1360
STORY = """
The line to clients 198.51.100.150 and up takes 1400 bytes, and the router before it, isp, lowers
the MSS in their SYNs to 1360, so that nobody has to learn the path MTU. But it leaves the TCP
checksum as it came: each of these SYNs is off by the same amount, 1360 - 1460. The director, in
direct routing, passes them on. The realservers drop them without a word, and the clients repeat
them after 1, 3 and 7 seconds and give up. Clients on the other line are fine.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("transport-checksum-burst-mss")
    lab.serve()
    isp = lab.hosts["isp"]
    narrow = isp.interfaces["eth2"]

    def clamp(data: bytes, header: wire.Header, interface: Interface) -> bytes:
        mss = struct.pack("!BBH", 2, 4, 1460)
        if interface is not narrow or not header.flags & wire.SYN or mss not in data:
            return data
        return data.replace(mss, struct.pack("!BBH", 2, 4, CLAMPED), 1)

    isp.rewrites.append(clamp)
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    browse(lab, clients=clients, start_s=0.2, every_s=0.9, count=12)
    hit = [
        lab.flow("clamped", f"198.51.100.{150 + n}", 42011 + 25 * n, 1.4 + 0.8 * n, [("get", 900)])
        for n in range(4)
    ]
    lab.health_checks(until_s=24)
    lab.capture_all("director", "rs1", "rs2", client="client-b")
    lab.run(26)
    broken = every(of(*hit), flags(wire.SYN))
    here = every(broken, sent_by(lab, "router"))
    write_sample(
        lab,
        folder,
        description="LVS-DR; a router lowers the MSS in SYNs and not their checksum",
        story=STORY,
        look_at=[
            look(lab, "client.pcap", broken, "SYNs with MSS 1460, in order, again and again"),
            look(lab, "director.pcap", here, "the same with MSS 1360 and checksums that fail"),
            look(lab, "rs1.pcap", broken, "as they reach rs1, which drops them"),
        ],
        fault="router isp: lowers the MSS of SYNs without their checksum",
        must_report=[
            must(
                lab,
                "transport-checksum-burst",
                flows=hit,
                cause="rewritten-without-checksum",
                direction="to-realserver",
                facts={"residual": f"0x{(CLAMPED - 1460) % 0xFFFF:04x}"},
                cited={"director.pcap": here, "rs1.pcap": broken, "rs2.pcap": broken},
            )
        ],
        must_not_report=all_but("transport-checksum-burst"),
    )
