"""LVS-DR: five kinds of checksum that are not, or hardly, wrong."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING

from simulator import cluster, wire
from simulator.apps import ping
from simulator.checksums import checksum
from simulator.everyday import CLEAN
from simulator.frames import every, icmp, sent_by
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

HEADERS_ONLY = 96
BROKEN = (3, 7, 11)  # which of the isp's messages lose a bit on the way
STORY = """
Path MTU discovery works here, and five things make checksums look wrong. The router's capture keeps
96 bytes of each frame, too few to verify the ICMP messages. rs1 and client-a leave checksums to
their network cards: in rs1's capture the TCP segments that it sends, and in the client's the echo
requests, have not been filled in yet; everywhere else they are right. The router that sends 3/4
(192.0.2.2) has lowered the TTL of the packet it quotes and not that header's checksum: quoted
headers prove nothing, and nobody verifies them. And three of its messages, seconds apart, lost a
bit on the way: too few for a burst, and discovery does not depend on them.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("icmp-checksum-burst-near-miss")
    lab.serve()
    lab.segments["wan"].mangle.append(partial(_isp_quirks, [0]))
    lab.hosts["rs1"].interfaces["eth0"].offload = _tcp_not_filled_in
    lab.hosts["client-a"].interfaces["eth0"].offload = _echo_not_filled_in
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    browse(lab, clients=clients, start_s=0.2, every_s=1.0, count=12)
    for number in range(5):
        client = f"198.51.100.{150 + number}"
        lab.flow("narrow", client, 42003 + 31 * number, 1.4 + 2.6 * number, [("get", 5500)])
    ping(lab.hosts["client-a"], "198.51.100.33", lab.vip, start_s=3.0, count=25, every_s=0.5)
    lab.health_checks(until_s=18)
    lab.capture_all("director", "rs1", "rs2", client="client-a")
    lab.capture("router.pcap", "router", snaplen=HEADERS_ONLY)
    lab.run(20)
    write_sample(
        lab,
        folder,
        description="LVS-DR; cut frames, offload, stale quotes and three lost bits",
        story=STORY,
        look_at=[
            look(lab, "router.pcap", icmp((3, 4)), "cut after 96 bytes"),
            look(lab, "client.pcap", icmp((8, 0)), "echo requests before the card fills them in"),
            look(lab, "director.pcap", icmp((8, 0)), "the same, right"),
            look(
                lab,
                "director.pcap",
                every(icmp((3, 4)), sent_by(lab, "router")),
                "3/4 with a stale checksum in the quoted header; three of them have lost a bit",
            ),
        ],
        must_not_report=CLEAN,
    )


def _isp_quirks(count: list[int], frame: bytes) -> bytes:
    """Make the quoted header's checksum stale, mend the message's, break three of them."""
    if frame[12:14] != b"\x08\x00":
        return frame
    header = wire.read(frame[14:])
    if (header.icmp_type, header.icmp_code) != (3, 4):
        return frame
    count[0] += 1
    packet = bytearray(frame)
    icmp_at = 14 + header.header_len
    stale = icmp_at + 8 + 10
    packet[stale] ^= 0x01
    struct.pack_into("!H", packet, icmp_at + 2, 0)
    struct.pack_into("!H", packet, icmp_at + 2, checksum(packet[icmp_at:]))
    if count[0] in BROKEN:
        packet[icmp_at + 60 + count[0]] ^= 1 << (count[0] % 8)
    return bytes(packet)


def _tcp_not_filled_in(frame: bytes) -> bytes:
    """Return the frame with the pseudo-header's sum as TCP checksum, as CHECKSUM_PARTIAL has it."""
    if frame[12:14] != b"\x08\x00" or wire.read(frame[14:]).proto != wire.TCP_PROTO:
        return frame
    packet = bytearray(frame)
    length = wire.read(frame[14:]).length - 20
    pseudo = bytes(packet[26:34]) + struct.pack("!HH", wire.TCP_PROTO, length)
    struct.pack_into("!H", packet, 34 + 16, ~checksum(pseudo) & 0xFFFF)
    return bytes(packet)


def _echo_not_filled_in(frame: bytes) -> bytes:
    """Return the frame without the checksum of an echo request."""
    if frame[12:14] != b"\x08\x00" or wire.read(frame[14:]).icmp_type != 8:
        return frame
    packet = bytearray(frame)
    packet[36:38] = b"\0\0"
    return bytes(packet)
