"""What a report tells people to paste as root holds nothing that a stranger could write.

Names come from labels, site.toml, pcapng options and kernel logs; all of them are hostile here.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from pcapdiag import engine, facts, site
from pcapdiag.capture.vantages import resolve

SAMPLES = Path(__file__).parent.parent / "samples"
HOSTILE = [
    "eth0;reboot",
    "-z sh",
    "a\nreboot",
    "$(reboot)",
    "\u202etoober",
    "`reboot`",
    "|mkfs",
    "x\x00y",
]
BAD = (";reboot", "-z sh", "$(", "`", "\u202e", "toober", "|mkfs", "reboot", "\x00")


def _pcapng(pcap: Path, target: Path) -> str:
    """Write the frames of a pcap file as pcapng with hostile names; return the path."""
    data = pcap.read_bytes()
    order = "<" if data[:4] in {b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"} else ">"
    nano = b"\x4d\x3c\xb2\xa1" in (data[:4], data[3::-1])

    def block(kind: int, body: bytes) -> bytes:
        size = 12 + len(body)
        return struct.pack(f"{order}II", kind, size) + body + struct.pack(f"{order}I", size)

    def option(code: int, text: str) -> bytes:
        value = text.encode("utf-8", "surrogatepass")
        pad = b"\0" * (-len(value) % 4)
        return struct.pack(f"{order}HH", code, len(value)) + value + pad

    end = struct.pack(f"{order}HH", 0, 0)
    resolution = struct.pack(f"{order}HHB3x", 9, 1, 9 if nano else 6)
    (linktype,) = struct.unpack_from(f"{order}I", data, 20)
    texts = b"".join(option(code, text) for code, text in ((2, HOSTILE[0]), (3, HOSTILE[1])))
    out = block(
        0x0A0D0D0A,
        struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1) + option(1, "\n".join(HOSTILE)) + end,
    )
    out += block(1, struct.pack(f"{order}HHI", linktype, 0, 0) + texts + resolution + end)
    at = 24
    while at < len(data):
        seconds, part, kept, length = struct.unpack_from(f"{order}4I", data, at)
        when = seconds * (10**9 if nano else 10**6) + part
        frame = data[at + 16 : at + 16 + kept]
        body = struct.pack(f"{order}5I", 0, when >> 32, when & 0xFFFF_FFFF, kept, length)
        out += block(6, body + frame + b"\0" * (-kept % 4))
        at += 16 + kept
    target.write_bytes(out)
    return str(target)


def _commands(result):
    """Yield every line that a report offers for pasting."""
    for finding in result.findings:
        for remedy in finding.remedies:
            yield from (*remedy.check, *remedy.commands, *remedy.persist, *remedy.undo)
        yield from (*finding.verify, finding.filters.tcpdump, finding.filters.wireshark)
    for question in result.not_examined:
        if question.capture_command:
            yield question.capture_command


@pytest.mark.parametrize(
    "sample",
    [
        "host-prohibited-established-rs",
        "redirect-to-router-onearm",
        "icmp-checksum-burst-portrewrite",
        "pmtud-blackhole-dr",
    ],
)
def test_no_command_contains_what_a_stranger_wrote(sample, tmp_path):
    """Interface names, comments, labels, host names of site.toml and log lines, all hostile."""
    folder = SAMPLES / sample
    paths = [
        f"{path.stem}={_pcapng(path, tmp_path / f'{path.stem}.pcapng')}"
        for path in sorted(folder.glob("*.pcap"))
    ]
    inputs, failures = resolve(paths)
    assert failures == ()
    named = [
        replace(item, name=HOSTILE[number % len(HOSTILE)] + str(number))
        for number, item in enumerate(inputs)
    ]
    known = site.Site(
        hosts=tuple(
            site.SiteHost(name=text, addresses=((0, 0xFFFF_0A01_000B + number),))
            for number, text in enumerate(HOSTILE)
        )
    )
    log = tmp_path / "dmesg"
    log.write_text("\n".join(f"ICMP: failed checksum from {text}!" for text in HOSTILE * 5))
    told = facts.load([f"{HOSTILE[0]}={log}"])
    result = engine.analyze(engine.load(named, site=known, facts=told), now_ns=0)
    assert result.failed_rules == ()
    assert result.findings
    commands = list(_commands(result))
    assert len(commands) > 5
    for command in commands:
        assert command.isprintable()
        assert not any(bad in command for bad in BAD), command
