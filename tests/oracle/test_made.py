"""Constructed packets of every kind, judged by tshark, and by scapy, which made them."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final

import compare
import made
import pytest
import tshark

from pcapdiag.capture.reader import open_capture
from pcapdiag.decode.packets import decode_capture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SNAPLENS: Final = range(14, 150, 8)

OF_SCAPY: Final = {
    "IP": {"ip_version": "version", "ttl": "ttl", "tos": "tos", "ip_id": "id"},
    "IPv6": {"ip_version": "version", "ttl": "hlim", "tos": "tc"},
    "TCP": {"tcp_seq": "seq", "tcp_ack": "ack", "tcp_window": "window", "src_port": "sport"},
    "UDP": {"src_port": "sport", "dst_port": "dport", "transport_checksum": "chksum"},
    "SCTP": {"src_port": "sport", "dst_port": "dport"},
    "ICMP": {"icmp_type": "type", "icmp_code": "code"},
}
"""Layer -> column of `packets` -> field."""


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a capture of one packet of each kind."""
    return made.write(tmp_path_factory.mktemp("made") / "made.pcap", made.everything())


@pytest.mark.needs("tshark")
def test_every_kind_is_what_tshark_says(
    capture: Path, counted: Callable[[compare.Comparison], None]
) -> None:
    """No column differs, and none goes uncompared but those that need another link type."""
    result = compare.compare(capture, tshark.dissect(capture))
    counted(result)
    assert [str(each) for each in result.differences] == []
    idle = {key for key in compare.expectation.columns() if not result.compared[key]}
    assert idle == {"packets.direction"}


@pytest.fixture(scope="module")
def cuts(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, bytes]]:
    """Return by snaplen the capture cut to it, and what tshark says of it."""
    return tshark.dissect_cut(capture, SNAPLENS, tmp_path_factory.mktemp("cut"))


@pytest.mark.needs("tshark", "editcap", "mergecap", "capinfos")
@pytest.mark.xdist_group("tshark-made")
@pytest.mark.parametrize("snaplen", SNAPLENS)
def test_every_kind_cut_does_not_contradict_tshark(
    snaplen: int,
    cuts: dict[int, tuple[Path, bytes]],
    counted: Callable[[compare.Comparison], None],
) -> None:
    """Wherever a frame is cut, what both sides can still say is the same."""
    result = compare.compare(*cuts[snaplen])
    counted(result)
    assert [str(each) for each in result.differences] == []
    assert result.frames > 100


def _layers(packet: Any) -> dict[str, Any]:
    """Return the layers from the innermost IP header on, up to an ICMP header."""
    found: dict[str, Any] = {}
    while packet and type(packet).__name__ not in {"NoPayload", "Padding"}:
        name = type(packet).__name__
        if name in {"IP", "IPv6"}:
            found.clear()
        found[name] = packet
        if name.startswith("ICMP"):
            break
        packet = packet.payload
    return found


def test_every_kind_is_what_scapy_made(capture: Path) -> None:
    """Fields that scapy reads back from the file stand in the columns."""
    with open_capture(str(capture)) as reader:
        packets = decode_capture(reader, 0).packets
    frames = made.layers().rdpcap(str(capture))
    compared = 0
    for row, frame in zip(packets.iter_rows(named=True), frames, strict=True):
        layers = _layers(frame)
        for name, columns in OF_SCAPY.items():
            for column, field in columns.items():
                if name in layers:
                    value = getattr(layers[name], field)
                    assert row[column] == value, (row["frame"], column, frame)
                    compared += 1
        network = layers.get("IP") or layers.get("IPv6")
        if network is not None:
            for side in ("src", "dst"):
                address = ipaddress.ip_address(getattr(network, side))
                packed = int(address) | (0xFFFF << 32 if address.version == 4 else 0)
                assert (row[f"{side}_hi"] << 64 | row[f"{side}_lo"]) == packed, row["frame"]
                compared += 1
    assert compared > 500


@pytest.mark.needs("tshark")
def test_gue_is_its_inside(tmp_path: Path, counted: Callable[[compare.Comparison], None]) -> None:
    """Of GUE, unknown to tshark 4.0, the inside decodes as the same packets without GUE do."""
    s = made.layers()
    insides = [
        s.IP(src=made.C, dst=made.V, ttl=60, flags="DF") / s.TCP(sport=40001, dport=80) / b"GET",
        s.IP(src=made.C, dst=made.V) / s.UDP(sport=1, dport=2) / b"data",
        s.IP(src=made.G, dst=made.V) / s.ICMP(type=3, code=4, nexthopmtu=1400) / (b"\x45" * 28),
        s.IPv6(src=made.C6, dst=made.V6) / s.TCP(sport=40001, dport=80) / b"GET",
    ]
    headers = [
        b"\x00\x04\x00\x00",
        b"\x00\x04\x00\x00",
        b"\x01\x04\x80\x00abcd",
        b"\x00\x29\x00\x00",
    ]
    outer = s.Ether(src=made.SRC, dst=made.DST) / s.IP(src=made.D, dst=made.R, id=9)
    udp = s.UDP(sport=50000, dport=made.GUE_PORT)
    wrapped = [outer / udp / (gue + s.raw(p)) for gue, p in zip(headers, insides, strict=True)]
    direct = [outer / udp / s.raw(p) for p in insides]  # version 1: the IP header itself
    ether = s.Ether(src=made.SRC, dst=made.DST)
    bare = made.write(tmp_path / "bare.pcap", [ether / packet for packet in insides * 2])
    gue = made.write(tmp_path / "gue.pcap", wrapped + direct)

    result = compare.compare(bare, tshark.dissect(bare))
    counted(result)
    assert [str(each) for each in result.differences] == []
    with open_capture(str(bare)) as reader:
        inside = decode_capture(reader, 0)
    with open_capture(str(gue)) as reader:
        decoded = decode_capture(reader, 0)
    of_the_frame = ["caplen", "wire_len", "ethertype", "tunnel", "tunnel_depth", "time_ns"]
    assert decoded.packets.drop(of_the_frame).equals(inside.packets.drop(of_the_frame))
    assert decoded.icmp.equals(inside.icmp)
    assert decoded.packets["tunnel"].to_list() == ["gue"] * 8
    assert decoded.tunnels["outer_src_port"].to_list() == [50000] * 8
    assert decoded.tunnels["overhead"].to_list() == [32, 32, 36, 32, 28, 28, 28, 28]
