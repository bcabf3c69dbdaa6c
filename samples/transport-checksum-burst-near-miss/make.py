"""LVS-DR; TCP checksums that are not yet made, and three segments that lost a bit."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from simulator import cluster, wire
from simulator.checksums import checksum
from simulator.everyday import CLEAN
from simulator.frames import every, has_data, sent_by
from simulator.traffic import browse
from simulator.truth import look, write_sample

if TYPE_CHECKING:
    from pathlib import Path

BROKEN = (40, 90, 140)  # which segments on the way to the cluster lose a bit
STORY = """
rs1 and the client leave TCP checksums to their network cards: in their own captures the segments
that they send hold the pseudo-header's sum, and everywhere else they are right. On the line to the
cluster three segments, seconds apart, lose a bit that no link check notices. Their receivers drop
them, they are sent again, and all is well: that happens on any network.
"""


def build(folder: Path) -> None:
    """Make the sample."""
    lab = cluster.dr("transport-checksum-burst-near-miss")
    lab.serve()
    count = [0]

    def lose_a_bit(frame: bytes) -> bytes:
        if frame[12:14] != b"\x08\x00" or wire.read(frame[14:]).proto != wire.TCP_PROTO:
            return frame
        count[0] += 1
        if count[0] not in BROKEN:
            return frame
        packet = bytearray(frame)
        packet[-1] ^= 0x10
        return bytes(packet)

    lab.segments["wan"].mangle.append(lose_a_bit)
    lab.hosts["rs1"].interfaces["eth0"].offload = _not_filled_in
    lab.hosts["client-a"].interfaces["eth0"].offload = _not_filled_in
    clients = [f"198.51.100.{n}" for n in range(20, 32)]
    browse(lab, clients=clients, start_s=0.2, every_s=0.9, count=14)
    lab.health_checks(until_s=16)
    lab.capture_all("director", "rs1", "rs2", client="client-a")
    lab.run(18)
    write_sample(
        lab,
        folder,
        description="LVS-DR; checksum offload at two senders, three damaged segments",
        story=STORY,
        look_at=[
            look(lab, "rs1.pcap", every(has_data, sent_by(lab, "rs1")), "not filled in yet"),
            look(lab, "client.pcap", every(has_data, sent_by(lab, "client-a")), "likewise"),
        ],
        must_not_report=CLEAN,
    )


def _not_filled_in(frame: bytes) -> bytes:
    """Return the frame with the pseudo-header's sum as TCP checksum, as CHECKSUM_PARTIAL has it."""
    if frame[12:14] != b"\x08\x00" or wire.read(frame[14:]).proto != wire.TCP_PROTO:
        return frame
    packet = bytearray(frame)
    length = wire.read(frame[14:]).length - 20
    pseudo = bytes(packet[26:34]) + struct.pack("!HH", wire.TCP_PROTO, length)
    struct.pack_into("!H", packet, 34 + 16, ~checksum(pseudo) & 0xFFFF)
    return bytes(packet)
