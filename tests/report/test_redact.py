"""Redaction: no address is left, and what remains still fits together."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcapdiag.report import html, json
from pcapdiag.report.redact import NOTE, redact
from pcapdiag.result import Filters, Result


def _texts(*notes):
    return redact(Result(notes=notes)).notes[1:]


def test_golden(incident, golden):
    """The bytes are those on file."""
    golden("redacted.json", json.dumps(redact(incident)))


def test_no_address_is_left(incident):
    """Neither addresses nor the hashes of addresses remain anywhere."""
    text = json.dumps(redact(incident))
    for pattern in (r"\d+\.\d+\.\d+\.\d+", r"(?:[0-9a-f]{2}:){5}", r"2001:db8", "LQU9"):
        assert not re.search(pattern, text), pattern
    for finding in incident.findings:
        assert finding.id not in text
        assert all(folded.id not in text for folded in finding.folded)
    assert "Don't fragment" not in text


def test_labels_are_stable(incident):
    """One address has one label everywhere, ports and file names stay."""
    result = redact(incident)
    finding = result.findings[1]
    client = finding.flows[0].client
    assert re.fullmatch(r"ip-\d+:40000", client)
    assert finding.flows[0].legs[0].src == client
    service = finding.flows[0].service.removesuffix(":80")
    assert finding.scope.service == f"tcp {service}:80"
    assert f"ip.addr == {service}" in finding.filters.wireshark
    assert f"host {service} or" in result.not_examined[0].capture_command
    assert result.cluster.services[0].vip == service
    assert finding.evidence[0].file == "director.pcap"
    assert redact(incident) == result


def test_ids_keep_their_form_and_stay_unique(incident):
    """Finding ids are numbered, so that links and counts still work."""
    ids = [finding.id for finding in redact(incident).findings]
    assert ids == ["icmp-checksum-burst-000000000001", "pmtud-blackhole-000000000002"]


def test_it_says_so_once(incident):
    """The report tells its reader; twice redacted is redacted."""
    once = redact(incident)
    assert once.notes[0] == NOTE
    assert redact(once).notes == once.notes
    assert "Redacted: IP and MAC addresses are numbered" in html.render(once)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("10.0.0.1:80 and 10.0.0.1.443 >", "ip-1:80 and ip-1.443 >"),
        ("[2001:db8::1]:443", "[ip-1]:443"),
        ("IP6 2001:db8::1.443 > 2001:DB8:0:0:0:0:0:1.80:", "IP6 ip-1.443 > ip-1.80:"),
        ("src:2001:db8::1: fe80::1%eth0", "src:ip-1: ip-2%eth0"),
        ("::ffff:192.0.2.1 is 192.0.2.1", "ip-1 is ip-1"),
        ("192.0.2.0/24 2001:db8::/32", "ip-2/24 ip-1/32"),
        ("02:00:5E:00:00:01 02-00-5e-00-00-01 0200.5e00.0001", "mac-1 mac-1 mac-1"),
        ("2:0:5e:0:0:1", "mac-1"),
        ("ip-10-0-0-1.pcap 10_0_0_1", "ip-ip-1.pcap ip-1"),
        ("010.000.000.001.00080-192.168.001.002.50000", "ip-1.00080-ip-2.50000"),
        ("12:30:192.0.2.1", "12:30:ip-1"),
        ("1.0.0.10.in-addr.arpa", "ip-1.in-addr.arpa"),
    ],
)
def test_spellings(text, left):
    """An address has one label however it is written."""
    assert _texts(text) == (left,)


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-01 12:00:00 12:00:01.123456",
        "rs1-2024-05-01-12-00-00.pcap",
        "std::string tshark 4.0.17",
        "0.0.0.0/0 127.0.0.1 255.255.255.0 255.255.255.255 224.0.0.18",
        ":: ::1 ff02::1 00:00:00:00:00:00 ff:ff:ff:ff:ff:ff",
        "300.1.2.3 a:b:c",
        "checksum 0x1f3a, seq 0xdeadbeef",
    ],
)
def test_other_words_stay(text):
    """Times, versions and addresses that mean the same everywhere are left alone."""
    assert _texts(text) == (text,)


def test_filters_in_hexadecimal_are_found(incident):
    """Bytes of a known address in a filter give it away as well."""
    finding = replace(
        incident.findings[1],
        filters=Filters(
            tcpdump="icmp[24:4] = 0xCB00710A and ip6[24:4] = 0x20010db8 or ether[0:4] = 0x02000000",
            wireshark="icmp[24:4] == cb:00:71:0a",
        ),
    )
    filters = redact(replace(incident, findings=(finding,))).findings[0].filters
    assert not re.search("cb|20010db8|02000000", filters.tcpdump + filters.wireshark, re.IGNORECASE)


PUBLIC4 = st.integers(0x0100_0000, 0x7EFF_FFFF).map(IPv4Address)
PUBLIC6 = st.integers(1 << 112, (0xFE << 120) - 1).map(IPv6Address)
MACS = st.integers(1, (1 << 48) - 2).map(lambda mac: mac.to_bytes(6, "big").hex(":"))
FRAME = st.sampled_from(["{}", "[{}]:80", "a {} b", "({})", "{}/24", "src={},", "x/{}.pcap", "{}:"])


@given(
    hosts=st.lists(st.tuples(PUBLIC4 | PUBLIC6 | MACS, FRAME), min_size=1, max_size=5),
    exploded=st.booleans(),
)
def test_any_address_in_any_place_goes(hosts, exploded):
    """Whatever surrounds an address, it is replaced as a whole."""
    spelled = [
        (host.exploded if exploded and isinstance(host, IPv6Address) else str(host), frame)
        for host, frame in hosts
    ]
    left = _texts(*(frame.format(host) for host, frame in spelled))
    for text, (_, frame) in zip(left, spelled, strict=True):
        before, after = frame.split("{}")
        middle = text[len(before) : len(text) - len(after)]
        assert re.fullmatch(r"(?:ip|mac)-\d+", middle), text


def test_megabytes_of_near_misses_are_quick():
    """A hostile text does not make the search quadratic."""
    for near in ("1:2:", "aaaa:", "1.2.3.", "1-", "12:30:00 ", "::1::", "f"):
        assert len(_texts(near * 50_000)) == 1
