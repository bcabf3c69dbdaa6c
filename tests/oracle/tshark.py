"""What tshark says of a capture, layer by layer.

`-T fields` flattens a frame: with a tunnel or a quote, a field is a list, and a header that was cut
leaves the list one short without saying where. PDML is the same dissection with its nesting kept,
so that the k-th IP header is the k-th IP header.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

OPTIONS: Final = (
    "tcp.relative_sequence_numbers:FALSE",
    "tcp.check_checksum:TRUE",
    "udp.check_checksum:TRUE",
    "ip.check_checksum:TRUE",
    "ip.defragment:FALSE",
    "ipv6.defragment:FALSE",
    "tcp.desegment_tcp_streams:FALSE",
)

EXTENSIONS: Final = frozenset({"ah"})
"""Headers that PDML nests in the IPv6 header they extend, beside those named `ipv6.`."""

_ASIDE: Final = frozenset({"geninfo", "frame", "pkt_comment", "fake-field-wrapper"})
"""What PDML adds; the last one holds bytes that no dissector knows."""

_READ: Final = {
    "frame": "number time_epoch interface_id section_number cb_pen cap_len len"
    " packet_flags_direction",
    "eth": "src dst type",
    "sll": "etype src.eth pkttype",
    "vlan": "id etype",
    "ieee8021ad": "id",
    "ieee8021ah": "etype",
    "llc": "type",
    "chdlc": "protocol",
    "arp": "opcode src.hw_mac dst.hw_mac src.proto_ipv4 dst.proto_ipv4",
    "ip": "version hdr_len dsfield len id flags.df flags.mf frag_offset ttl proto src dst"
    " checksum.status bogus_ip_length",
    "ipv6": "version tclass plen hlim src dst plen_exceeds_framing nxt hopopts.nxt routing.nxt"
    " dstopts.nxt fraghdr.nxt fraghdr.ident fraghdr.more fraghdr.offset",
    "ah": "next_header",
    "gre": "key",
    "vxlan": "vni",
    "geneve": "vni",
    "tcp": "srcport dstport checksum len seq_raw seq ack_raw ack flags window_size_value"
    " options.mss_val options.wscale.shift options.sack_perm options.sack_le options.sack_re"
    " options.timestamp.tsval options.timestamp.tsecr",
    "udp": "srcport dstport checksum",
    "sctp": "srcport dstport",
    "icmp": "type code checksum.status checksum ident seq mtu redir_gw",
    "icmpv6": "type code checksum.status checksum mtu echo.identifier echo.sequence_number"
    " nd.rd.target_address rd.na.destination_address nd.ns.target_address nd.na.target_address"
    " opt.src_linkaddr opt.target_linkaddr",
    "vrrp": "type version virt_rtr_id prio ip_addr ipv6_addr",
}
"""The fields that are read, by protocol; of other protocols only name and place count."""
FIELDS: Final = frozenset(
    f"{protocol}.{name}" for protocol, names in _READ.items() for name in names.split()
)
_NAMES: Final = "|".join(
    rf"{protocol}\.(?:{'|'.join(map(re.escape, names.split()))})"
    for protocol, names in _READ.items()
)

# tshark escapes < and > in what it shows, so a tag ends at the first >
_TOKEN: Final = re.compile(
    rf'<(?:field name="({_NAMES})"([^>]*)>|proto name="([^"]*)"([^>]*)>|/proto>)'
)
_PLACE: Final = re.compile(r' (pos|size)="(\d+)"')
_SHOW: Final = re.compile(r' show="([^"]*)"')
_VALUE: Final = re.compile(r' value="([^"]*)"')
_NUMBER: Final = re.compile(rb'<field name="frame\.number"[^>]*>')
_INTERFACE: Final = re.compile(rb'<field name="frame\.interface_id"[^>]*>')
_LENGTHS: Final = frozenset({"ip.len", "ipv6.plen"})


@dataclass
class Layer:
    """One protocol's header: its fields in order, and the headers it quotes."""

    name: str
    pos: int
    fields: dict[str, list[str]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    """Names of the fields as they come, with repeats."""
    raw: dict[str, str] = field(default_factory=dict)
    """Of length fields the bytes on the wire, as hex."""
    end: int = 0
    """Where the layer ends, extension headers included."""
    quoted: list[Layer] = field(default_factory=list)
    """Layers dissected inside this one (of an ICMP error), in order, however deep."""

    def first(self, *names: str) -> str | None:
        """Return the first value of the first of `names` that has one."""
        for name in names:
            if values := self.every(name):
                return values[0]
        return None

    def every(self, name: str) -> list[str]:
        """Return all values of a field. Raises KeyError for one that is not read."""
        if name not in FIELDS:
            raise KeyError(name)
        return self.fields.get(name, [])

    def number(self, *names: str) -> int | None:
        """Return what `first` does as an integer, from decimal or 0x."""
        value = self.first(*names)
        return int(value, 0) if value else None


@dataclass
class Packet:
    """One frame: its layers, outermost first, without `geninfo` and `frame`."""

    frame: Layer
    layers: list[Layer]

    def names(self) -> list[str]:
        """Return the protocols, quotes left out."""
        return [layer.name for layer in self.layers]


def dissect(capture: Path) -> bytes | None:
    """Return PDML of a capture; None where tshark cannot open the file.

    A file that ends badly is dissected up to there, as pcapdiag's reader does.
    """
    with tempfile.TemporaryDirectory(prefix="pcapdiag-profile-") as home:
        environment = {
            "HOME": home,
            "WIRESHARK_CONFIG_DIR": home,
            "XDG_CONFIG_HOME": home,
            "PATH": os.environ["PATH"],
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
        }
        options = [word for option in OPTIONS for word in ("-o", option)]
        run = subprocess.run(
            [shutil.which("tshark") or "tshark", "-n", "-r", str(capture), *options, "-T", "pdml"],
            capture_output=True,
            env=environment,
            check=False,
        )
    refused = run.returncode != 0 and b"<packet>" not in run.stdout
    return None if refused else run.stdout


def dissect_together(captures: Sequence[Path]) -> dict[Path, bytes]:
    """Return PDML of each of some sound pcap captures, which one tshark dissected as one.

    Starting tshark takes as long as dissecting some hundred frames. Frames are numbered as in their
    own captures again, and none has an interface, as is so in pcap captures.
    """
    with tempfile.TemporaryDirectory(prefix="pcapdiag-merged-") as folder:
        merged = Path(folder) / "merged.pcapng"
        subprocess.run(["mergecap", "-a", "-F", "pcapng", "-w", merged, *captures], check=True)
        parts = (dissect(merged) or b"").split(b"<packet>")[1:]
    told = subprocess.run(
        ["capinfos", "-T", "-M", "-r", "-c", *captures], check=True, capture_output=True
    ).stdout
    counts = [int(line.rsplit(b"\t", 1)[1]) for line in told.splitlines()]
    if sum(counts) != len(parts):
        raise ValueError(f"{len(parts)} frames dissected of {sum(counts)}")
    rest = iter(parts)
    return {
        capture: b"".join(
            b"<packet>" + _alone(part, number)
            for number, part in enumerate(itertools.islice(rest, count), 1)
        )
        for capture, count in zip(captures, counts, strict=True)
    }


def dissect_cut(
    capture: Path, snaplens: Iterable[int], folder: Path
) -> dict[int, tuple[Path, bytes]]:
    """Return by snaplen a pcap capture cut to it, which is put into `folder`, and its PDML."""
    cuts = {snaplen: folder / f"{snaplen}.pcap" for snaplen in snaplens}
    for snaplen, cut in cuts.items():
        subprocess.run(["editcap", "-F", "pcap", "-s", str(snaplen), capture, cut], check=True)
    said = dissect_together(list(cuts.values()))
    return {snaplen: (cut, said[cut]) for snaplen, cut in cuts.items()}


def _alone(part: bytes, number: int) -> bytes:
    """Return one frame's PDML as of its own capture."""
    shown = b'<field name="frame.number" show="%d">' % number
    return _INTERFACE.sub(b"", _NUMBER.sub(shown, part, count=1), count=1)


def packets(pdml: bytes) -> Iterator[Packet]:
    """Read PDML, one packet at a time; what an interrupted dissection left open is not given."""
    text = pdml.decode("utf-8", "replace")
    begin = text.find("<packet>")
    while begin >= 0:
        end = text.find("</packet>", begin)
        if end < 0:
            return
        yield _packet(text, begin, end)
        begin = text.find("<packet>", end)


def _packet(text: str, begin: int, end: int) -> Packet:
    top: list[Layer] = []
    open_layers: list[Layer | None] = []
    """The protocols around the next token; None for one that extends the layer around it."""
    around: Layer | None = None
    for token in _TOKEN.finditer(text, begin, end):
        field_name, field_attributes, name, attributes = token.groups()
        if field_name:
            if around is not None:
                _add_field(around, field_name, field_attributes)
            continue
        if name is None:
            open_layers.pop()
        else:
            layer = _layer(name, attributes)
            if around is None:
                top.append(layer)
            elif "." in name or name in EXTENSIONS:
                around.end = max(around.end, layer.end)
                layer = None
            else:
                _outermost(open_layers).quoted.append(layer)
            if not attributes.endswith("/"):
                open_layers.append(layer)
        around = next((layer for layer in reversed(open_layers) if layer is not None), None)
    frame = next(layer for layer in top if layer.name == "frame")
    return Packet(frame, [layer for layer in top if layer.name not in _ASIDE])


def _outermost(layers: list[Layer | None]) -> Layer:
    return next(layer for layer in layers if layer is not None)


def _layer(name: str, attributes: str) -> Layer:
    places = dict(_PLACE.findall(attributes))
    pos = int(places.get("pos", 0))
    return Layer(name, pos, end=pos + int(places.get("size", 0)))


def _add_field(layer: Layer, name: str, attributes: str) -> None:
    shown = _SHOW.search(attributes)
    layer.fields.setdefault(name, []).append(shown.group(1) if shown else "")
    layer.order.append(name)
    if name in _LENGTHS:
        value = _VALUE.search(attributes)
        layer.raw.setdefault(name, value.group(1) if value else "")
