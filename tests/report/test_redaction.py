"""Redaction leaves no address behind, and the story readable."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pcapdiag.report import json
from pcapdiag.report.redaction import NOTE, redact
from pcapdiag.result import (
    CaptureFile,
    Cause,
    Cluster,
    Confidence,
    Dissection,
    Evidence,
    Filters,
    Finding,
    FlowRef,
    Folded,
    Host,
    Leg,
    Remedy,
    Result,
    Scope,
    Service,
    Severity,
    Vantage,
    finding_id,
)

PRIVATE = ("198.51.100", "10.1.", "2001:db8:aa", "52:54:00", "/home/acme", "1:abc=", "GET")


def _finding() -> Finding:
    scope = Scope(service="tcp 198.51.100.10:80", realserver="10.1.0.11", direction="to-client")
    return Finding(
        rule="icmp-spoofed",
        id=finding_id("icmp-spoofed", "quote", scope, "198.51.100.7"),
        title="198.51.100.7 tells lies",
        summary="The quote of 2001:db8:aa::7 names 10.1.0.11: never sent.",
        cause=Cause(code="quote", text="sent by 52:54:00:00:00:01"),
        severity=Severity.HIGH,
        confidence=Confidence.LOW,
        scope=scope,
        subject="198.51.100.7",
        hosts={"emitter": "10.1.0.1", "hit": ("10.1.0.11", "10.1.0.12")},
        facts={"sender_mac": "52:54:00:00:00:01", "messages": 4},
        evidence=(
            Evidence(
                role="primary",
                vantage="director",
                file="/home/acme/captures/director.pcap",
                frame=7,
                note="198.51.100.7 > 198.51.100.10",
                dissection=Dissection(tool="tshark", lines=("GET /secret",)),
            ),
        ),
        flows=(
            FlowRef(
                protocol="tcp",
                client="[2001:db8:aa::7]:4711",
                service="198.51.100.10:80",
                community_id="1:abc=",
                legs=(
                    Leg(vantage="d", src="10.1.0.1:1", dst="10.1.0.11:2", community_id="1:abc="),
                ),
            ),
        ),
        folded=(Folded(rule="x", cause=Cause(code="c", text="t"), id="x-0123456789ab"),),
        remedies=(
            Remedy(where="rs1", action="do", commands=("ip route add 10.1.0.0/24 dev eth0",)),
        ),
        filters=Filters(wireshark="ip.addr == 10.1.0.11 && eth.src == 52:54:00:00:00:01"),
    )


def _result() -> Result:
    return Result(
        vantages=(
            Vantage(
                name="director",
                role="director",
                role_source="given",
                files=(
                    CaptureFile(path="/home/acme/captures/director.pcap", format="pcap", packets=9),
                ),
            ),
        ),
        cluster=Cluster(
            realservers=(Host(name="rs1", addresses=("10.1.0.11",), macs=("52:54:00:00:00:02",)),),
            services=(Service(protocol="tcp", vip="198.51.100.10", port=80),),
        ),
        findings=(_finding(),),
        notes=("/home/acme/lost.pcap could not be read",),
    )


def test_no_address_folder_or_payload_is_left():
    """What identifies somebody occurs nowhere in the JSON form; what does not is still there."""
    before = json.dumps(_result())
    assert all(text in before for text in PRIVATE)
    after = json.dumps(redact(_result(), ["/home/acme/lost.pcap"]))
    assert [text for text in PRIVATE if text in after] == []
    assert '"path": "director.pcap"' in after
    assert "lost.pcap could not be read" in after
    assert '"frame": 7' in after


def test_the_same_address_has_the_same_substitute_everywhere():
    """Scope, text, filters and commands still speak of the same hosts."""
    redacted = redact(_result())
    finding = redacted.findings[0]
    realserver = redacted.cluster.realservers[0].addresses[0]
    vip = redacted.cluster.services[0].vip
    assert realserver.startswith("240.")
    assert finding.scope.realserver == realserver
    assert finding.scope.service == f"tcp {vip}:80"
    assert finding.flows[0].service == f"{vip}:80"
    assert finding.filters.wireshark.startswith(f"ip.addr == {realserver} && ")
    assert finding.summary.endswith(f"names {realserver}: never sent.")
    assert finding.flows[0].client == "[2001:db8:0:3::1]:4711"
    assert finding.facts["sender_mac"] == finding.cause.text.removeprefix("sent by ")


def test_networks_stay_together():
    """Hosts of one /24 stay in one, and its prefix stays a prefix."""
    redacted = redact(_result())
    realserver = redacted.cluster.realservers[0].addresses[0]
    network = realserver.rpartition(".")[0]
    assert redacted.findings[0].remedies[0].commands == (f"ip route add {network}.0/24 dev eth0",)


def test_ids_are_made_of_what_is_left():
    """A finding's id, a digest of addresses, is made anew; ids stay unique."""
    redacted = redact(_result()).findings[0]
    assert redacted.id == finding_id("icmp-spoofed", "quote", redacted.scope, redacted.subject)
    assert redacted.id != _finding().id
    assert redacted.folded[0].id not in {redacted.id, "x-0123456789ab"}


def test_redaction_is_repeatable_and_says_so():
    """Equal results are redacted alike, and the reader is told."""
    assert redact(_result()) == redact(_result())
    assert redact(_result()).notes[-1] == NOTE
    assert json.loads(json.dumps(redact(_result()))) == redact(_result())


def _text(text: str) -> str:
    return redact(replace(Result(), notes=(text,))).notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "12:34:56 and 2024-05-01T10:00:00.123456789Z",
        "frame 17 of director:17, version 0.1.0",
        "0.0.0.0/0 and 255.255.255.255, netmask 255.255.255.0, 127.0.0.1, 224.0.0.18",
        ":: and ::1 and ff02::12",
        "ff:ff:ff:ff:ff:ff, 01:00:5e:00:00:12, 00:00:5e:00:01:33",
        "256.1.1.1 is none, 1.2.3 neither, std::vector not",
        "a ratio 10:1, a range 1:2:3",
    ],
)
def test_what_is_no_ones_address_stays(text):
    """Times, versions, and addresses that mean the same everywhere are left alone."""
    assert _text(text) == text


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("10.9.8.7.", "240.0.1.1."),
        ("10.9.8.7:80, 10.9.8.9", "240.0.1.1:80, 240.0.1.2"),
        ("(10.9.8.7)", "(240.0.1.1)"),
        ("::ffff:10.9.8.7", "::ffff:240.0.1.1"),
        ("fe80::5054:ff:fe00:1%eth0", "2001:db8:0:1::1%eth0"),
        ("2001:db8:1::1: no route", "2001:db8:0:1::1: no route"),
        ("2001:db8:1::/64 and 2001:DB8:1::5", "2001:db8:0:1::/64 and 2001:db8:0:1::1"),
        ("2001:db8:1:2:3:4:10.9.8.7", "2001:db8:0:1::1"),
        ("[2001:db8:1::1]:80", "[2001:db8:0:1::1]:80"),
        ("52:54:00:AA:BB:CC", "02:00:00:00:00:01"),
        ("52-54-00-AA-BB-CC.", "02-00-00-00-00-01."),
    ],
)
def test_addresses_are_found_wherever_they_stand(text, redacted):
    """Ports, brackets, full stops, prefixes and zones do not hide an address."""
    assert _text(text) == redacted
