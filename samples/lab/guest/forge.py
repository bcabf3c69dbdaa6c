"""Sends ICMP that no kernel here sends, as old routers and strangers do.

    forge.py quench INTERFACE VIP
    forge.py spoof MTU FROM VIP PORT CLIENT:PORT...
    forge.py inject VIP PORT CLIENT:PORT...

`quench` plays an old router: after a while it answers every fifth packet with data that comes in
from the VIP by telling the VIP to slow down. `spoof` plays a stranger: it tells the VIP, as if from
elsewhere, that packets to these clients are too big, and has to guess their sequence numbers.
`inject` plays another, who sends segments as if from these clients, with guessed numbers.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import sys
import time

ETH_P_IP = 0x0800
SOURCE_QUENCH, TOO_BIG = (4, 0), (3, 4)
PATIENCE, EVERY = 40, 5
"""Packets with data that pass before the first message, and from one to the next."""
LIFETIME_S = 120
ROUNDS = 8
PAUSE_S = 0.05
QUOTED = 28
"""An IP header and eight bytes more, as RFC 792 asks for."""


def checksum(data: bytes) -> int:
    """Return the internet checksum of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def icmp(kind: tuple[int, int], rest: int, quote: bytes) -> bytes:
    """Return an ICMP error; `rest` is the second half of its header."""
    head = struct.pack("!BBHI", *kind, 0, rest)
    return struct.pack("!BBHI", *kind, checksum(head + quote), rest) + quote


def ip(source: str, target: str, protocol: int, length: int, ident: int = 0) -> bytes:
    """Return an IP header of 20 bytes for a packet of `length` bytes, DF set."""
    ends = socket.inet_aton(source), socket.inet_aton(target)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, ident, 0x4000, 62, protocol, 0, *ends)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:]


def quench(interface: str, vip: str) -> None:
    """Return at once, and go on answering packets for a while."""
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
    tap.bind((interface, ETH_P_IP))
    sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    if os.fork():
        return
    signal.alarm(LIFETIME_S)
    for stream in (0, 1, 2):
        os.close(stream)
    seen = EVERY - PATIENCE
    while True:
        packet, where = tap.recvfrom(65535)
        if where[2] == socket.PACKET_OUTGOING or packet[12:16] != socket.inet_aton(vip):
            continue
        data_from = 20 + (packet[32] >> 4) * 4 if packet[9] == socket.IPPROTO_TCP else len(packet)
        seen += data_from < struct.unpack_from("!H", packet, 2)[0]
        if seen == EVERY:
            seen = 0
            sender.sendto(icmp(SOURCE_QUENCH, 0, packet[:QUOTED]), (vip, 0))


def spoof(mtu: int, source: str, vip: str, port: int, clients: list[str]) -> None:
    """Send some messages about each client's connection."""
    guess = random.Random(7)  # noqa: S311  the same guesses each time
    sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for _ in range(ROUNDS):
        for client in clients:
            address, number = client.split(":")
            words = struct.pack("!HHI", port, int(number), guess.getrandbits(32))
            quote = ip(vip, address, socket.IPPROTO_TCP, 1500, guess.getrandbits(16)) + words
            body = icmp(TOO_BIG, mtu, quote)
            length = 20 + len(body)
            sender.sendto(ip(source, vip, socket.IPPROTO_ICMP, length) + body, (vip, 0))
            time.sleep(PAUSE_S)


def inject(vip: str, port: int, clients: list[str]) -> None:
    """Send some segments with eight bytes of data in the name of each client."""
    guess = random.Random(11)  # noqa: S311  the same guesses each time
    sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for _ in range(ROUNDS):
        for client in clients:
            address, number = client.split(":")
            words = (int(number), port, guess.getrandbits(32), guess.getrandbits(32))
            segment = struct.pack("!HHIIBBHHH8s", *words, 0x50, 0x18, 502, 0, 0, b"stranger")
            ends = socket.inet_aton(address) + socket.inet_aton(vip)
            pseudo = ends + struct.pack("!HH", socket.IPPROTO_TCP, len(segment))
            total = struct.pack("!H", checksum(pseudo + segment))
            length = 20 + len(segment)
            made = ip(address, vip, socket.IPPROTO_TCP, length, guess.getrandbits(16))
            sender.sendto(made + segment[:16] + total + segment[18:], (vip, 0))
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    if sys.argv[1] == "quench":
        quench(*sys.argv[2:])
    elif sys.argv[1] == "inject":
        inject(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    else:
        spoof(int(sys.argv[2]), *sys.argv[3:5], int(sys.argv[5]), sys.argv[6:])
