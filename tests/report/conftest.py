"""Literal results: no capture was needed to write them, and none is needed to report them."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from pcapdiag.result import (
    CaptureFile,
    Cause,
    Clean,
    Cluster,
    Confidence,
    Dissection,
    Edge,
    Evidence,
    Examined,
    FailedRule,
    Filters,
    Finding,
    FlowRef,
    Folded,
    Host,
    LadderStep,
    Leg,
    NotExamined,
    Remedy,
    Result,
    Scope,
    Service,
    Severity,
    SizeFate,
    Timeline,
    Tool,
    Vantage,
    finding_id,
)

START = 1_714_564_800_000_000_000  # 2024-05-01 12:00:00 UTC
MS = 1_000_000
WEB = "tcp 203.0.113.10:80"


def _frame(role, vantage, frame, time_ms, note, *, dissection=None):
    return Evidence(
        role=role,
        vantage=vantage,
        file=f"{vantage}.pcap",
        frame=frame,
        note=note,
        interface="eth0",
        time_ns=START + int(time_ms * MS) + 123,
        dissection=dissection,
    )


BLACKHOLE_SCOPE = Scope(service=WEB, realserver="10.0.0.11:80", direction="to-client")
BLACKHOLE_ID = finding_id("pmtud-blackhole", "error-not-forwarded", BLACKHOLE_SCOPE, "")

BLACKHOLE = Finding(
    rule="pmtud-blackhole",
    id=BLACKHOLE_ID,
    title="Full-sized packets to clients vanish and realserver rs1 is never told",
    summary=(
        "Segments of 1500 bytes with DF set do not get past a link of 1400 bytes. The router's "
        "ICMP errors reach the director and end there, so rs1 keeps sending the same size until "
        "its connections time out."
    ),
    cause=Cause(
        code="error-not-forwarded",
        text="The director dropped 14 fragmentation-needed messages in its INPUT chain: IPVS "
        "sees them only after that chain, so none was handed to rs1.",
    ),
    severity=Severity.CRITICAL,
    confidence=Confidence.HIGH,
    scope=BLACKHOLE_SCOPE,
    hosts={
        "director": "10.0.0.1",
        "realserver": ("10.0.0.11", "02:00:00:00:00:11"),
        "router": "198.51.100.1",
    },
    flows=tuple(
        FlowRef(
            protocol="tcp",
            client=f"192.0.2.{7 + n}:{40000 + n}",
            service="203.0.113.10:80",
            realserver="10.0.0.11:80",
            community_id=f"1:LQU9qZlK+B5F3KDmev6m5PMibr{n}=",
            legs=(
                Leg(
                    vantage="director",
                    src=f"192.0.2.{7 + n}:{40000 + n}",
                    dst="203.0.113.10:80",
                    community_id=f"1:LQU9qZlK+B5F3KDmev6m5PMibr{n}=",
                ),
                Leg(vantage="rs1", src=f"192.0.2.{7 + n}:{40000 + n}", dst="10.0.0.11:80"),
            ),
        )
        for n in range(3)
    ),
    flow_count=14,
    examined_count=40,
    first_seen_ns=START + 1200 * MS,
    last_seen_ns=START + 61_500 * MS,
    count=98,
    facts={
        "largest_delivered": 1400,
        "smallest_lost": 1500,
        "next_hop_mtu": 1400,
        "direction": "to-client",
        "stalled_connections": 14,
        "stalled_share": 0.35,
        "mss_seen": (1460, 1380),
        "icmp_said_mtu": True,
        "encapsulation": None,
    },
    evidence=(
        _frame("primary", "director", 57, 1213.4, "router 198.51.100.1 says: use at most 1400"),
        _frame(
            "primary",
            "rs1",
            61,
            1410.8,
            "rs1 sends the same 1500 bytes again (retransmission 1)",
            dissection=Dissection(
                tool="tshark 4.0.17",
                lines=(
                    "Internet Protocol Version 4, Src: 10.0.0.11, Dst: 192.0.2.7",
                    "    Flags: 0x2, Don't fragment",
                    "Transmission Control Protocol, Src Port: 80, Dst Port: 40000, Len: 1448",
                ),
            ),
        ),
        _frame("related", "rs1", 75, 1812.2, "and again after 0.4 s (retransmission 2)"),
        _frame("related", "rs1", 97, 2613.0, "and again after 0.8 s (retransmission 3)"),
        _frame("counter", "rs1", 103, 2700.0, "one message did arrive, for a direct connection"),
    ),
    evidence_count=112,
    ladder_columns=("client", "director", "rs1", "router"),
    ladder=(
        LadderStep(
            from_="client",
            to="director",
            label="GET /big.mp3",
            frames=("director:52",),
            packet=0,
            time_ns=START + 1200 * MS,
        ),
        LadderStep(
            from_="director",
            to="rs1",
            label="GET /big.mp3",
            frames=("director:53", "rs1:55"),
            packet=0,
            time_ns=START + 1201 * MS,
        ),
        LadderStep(
            from_="rs1",
            to="client",
            label="seq 1:1449",
            ip_length=1500,
            df=True,
            packet=1,
            fate="lost",
            frames=("rs1:58", "director:56"),
            time_ns=START + 1212 * MS,
        ),
        LadderStep(
            from_="router",
            to="director",
            label="fragmentation needed, MTU 1400",
            packet=2,
            quotes=1,
            frames=("director:57",),
            time_ns=START + 1213 * MS,
        ),
        LadderStep(
            from_="director",
            to="rs1",
            label="fragmentation needed",
            fate="lost",
            time_ns=None,
        ),
        LadderStep(
            from_="rs1",
            to="client",
            label="seq 1:1449 again, 7 times, doubling from 0.2 s",
            repeats=7,
            packet=4,
            fate="not-visible",
            frames=("rs1:61",),
            time_ns=START + 1410 * MS,
        ),
    ),
    sizes=(
        SizeFate(ip_length=52, delivered=4210, lost=0),
        SizeFate(ip_length=60, delivered=80, lost=0),
        SizeFate(ip_length=576, delivered=112, lost=0),
        SizeFate(ip_length=1340, delivered=33, lost=1),
        SizeFate(ip_length=1400, delivered=260, lost=0),
        SizeFate(ip_length=1420, delivered=0, lost=3),
        SizeFate(ip_length=1500, delivered=0, lost=98),
    ),
    timeline=Timeline(
        start_ns=START,
        bin_s=5.0,
        series={
            "lost": (0, 12, 20, 18, 9, 3, 0, 0, 14, 12, 7, 3),
            "icmp errors": (0, 2, 2, 3, 1, 1, 0, 0, 2, 2, 1, 0),
        },
    ),
    folded=(
        Folded(
            rule="icmp-unreachable-not-forwarded",
            cause=Cause(
                code="not-forwarded",
                text="14 of 14 fragmentation-needed messages for the VIP never left the director.",
            ),
            id="icmp-unreachable-not-forwarded-0123456789ab",
        ),
    ),
    alternatives=(
        "The realserver ignored the messages: ruled out, its capture is whole and shows none.",
        "A router drops the segments by policy: unlikely, the losses begin above its own MTU.",
    ),
    remedies=(
        Remedy(
            where="director",
            action="Let ICMP errors pass the INPUT chain, so that IPVS can hand them on.",
            check=("iptables -L INPUT -v -n --line-numbers", "ipvsadm -L -n --stats"),
            commands=(
                "iptables -I INPUT 1 -p icmp --icmp-type fragmentation-needed -j ACCEPT",
                "iptables -I INPUT 2 -p icmp --icmp-type time-exceeded -j ACCEPT",
            ),
            persist=("iptables-save > /etc/iptables/rules.v4",),
            undo=("iptables -D INPUT -p icmp --icmp-type fragmentation-needed -j ACCEPT",),
            risk="None for established connections; the rules accept errors only.",
        ),
        Remedy(
            where="rs1",
            action="Until then, make rs1 offer smaller segments to everyone.",
            commands=("ip route change default via 10.0.0.254 advmss 1360",),
            undo=("ip route change default via 10.0.0.254",),
        ),
    ),
    verify=(
        "tcpdump -ni eth0 'icmp[icmptype] == 3 and icmp[icmpcode] == 4'  # on rs1: must show some",
        "curl -o /dev/null http://203.0.113.10/big.mp3",
    ),
    filters=Filters(
        wireshark="icmp.type == 3 && icmp.code == 4 && ip.addr == 203.0.113.10",
        tcpdump="icmp[icmptype] == 3 and icmp[icmpcode] == 4",
    ),
    references=(
        "https://www.rfc-editor.org/rfc/rfc1191#section-4",
        "RFC 1191 section 4",
        "net/netfilter/ipvs/ip_vs_core.c: ip_vs_in_icmp()",
    ),
)

CHECKSUMS = Finding(
    rule="icmp-checksum-burst",
    id="icmp-checksum-burst-0a1b2c3d4e5f",
    title="A burst of 1522 ICMP messages from 198.51.100.99 fails its checksum",
    summary="They would have ended connections; every receiver drops them.",
    cause=Cause(code="rewritten-quote", text="The sender changed a quoted port after summing."),
    severity=Severity.MEDIUM,
    confidence=Confidence.MEDIUM,
    scope=Scope(service=WEB),
    subject="198.51.100.99",
    evidence=(
        Evidence(
            role="primary",
            vantage="director",
            file="director.pcap",
            frame=1204,
            note="checksum 0x1f3a found, 0x2f3a would be right",
            time_ns=START + 30_000 * MS,
        ),
    ),
    evidence_count=1522,
    count=1522,
    facts={
        "sender_mac": "02:00:00:00:00:99",
        "sender": "198.51.100.99",
        "messages": 1522,
        "span_s": 12.5,
        "explanation": "quoted port changed",
    },
    remedies=(
        Remedy(where="198.51.100.99", action="Update the address translator that sends them."),
    ),
)

VANTAGES = (
    Vantage(
        name="director",
        role="director",
        role_source="given",
        role_reason="named director on the command line; 02:00:00:00:00:01 fans out to 2 hosts",
        clock_offset_ns=0,
        clock_error_ns=0,
        files=(
            CaptureFile(
                path="director.pcap",
                sha256="ab" * 32,
                format="pcap",
                link_types=("EN10MB",),
                packets=12_345,
                first_ns=START,
                last_ns=START + 62_000 * MS,
                snaplen=262_144,
                dropped=0,
            ),
        ),
    ),
    Vantage(
        name="rs1",
        role="realserver",
        role_source="inferred",
        role_reason="answers for the VIP with the MAC 02:00:00:00:00:11",
        clock_offset_ns=-1_250_000,
        clock_error_ns=40_000,
        files=(
            CaptureFile(
                path="rs1.pcapng.gz",
                format="pcapng+gzip",
                link_types=("LINUX_SLL2",),
                packets=8_001,
                first_ns=START + 100 * MS,
                last_ns=START + 61_000 * MS,
                snaplen=128,
                dropped=17,
                cut_short=True,
                notes=("the last block ends 12 bytes early, frame 8002 is lost",),
            ),
        ),
    ),
)

CLUSTER = Cluster(
    directors=(
        Host(
            name="director",
            addresses=("10.0.0.1", "203.0.113.10"),
            macs=("02:00:00:00:00:01",),
            reason="owns the VIP by ARP and sends each packet on",
        ),
    ),
    realservers=(
        Host(name="rs1", addresses=("10.0.0.11",), macs=("02:00:00:00:00:11",)),
        Host(name="rs2", addresses=("10.0.0.12", "2001:db8::12")),
    ),
    routers=(Host(name="router", addresses=("198.51.100.1",), macs=("02:00:00:00:00:fe",)),),
    edges=(
        Edge(from_="client", to="router", label=WEB, packets=4100),
        Edge(from_="router", to="director", label=WEB, packets=4100),
        Edge(from_="director", to="rs1", label="DR", packets=2400),
        Edge(from_="director", to="rs2", label="DR", packets=1700),
        Edge(from_="rs1", to="router", label="replies", packets=3900),
        Edge(from_="director", to="rs1", label="ICMP errors", packets=14, broken=True),
    ),
    services=(
        Service(
            protocol="tcp",
            vip="203.0.113.10",
            port=80,
            method="dr",
            realservers=("10.0.0.11:80", "10.0.0.12:80"),
            reason="the same packet leaves the director with another MAC",
        ),
        Service(
            protocol="udp",
            vip="2001:db8::53",
            fwmark=3,
            method="tun",
            encapsulation="gue",
            realservers=("[2001:db8::12]:53",),
        ),
    ),
)

MISSING_RS2 = (
    "tcpdump -ni any -s 256 -w rs2.pcap 'host 203.0.113.10 or icmp or icmp6 or proto 4 or proto 47'"
)

NOT_EXAMINED = (
    NotExamined(
        rule="icmp-unreachable-not-forwarded",
        scope=Scope(service=WEB, realserver="10.0.0.12:80"),
        reason="there is no capture of realserver rs2, so what reached it is not known",
        needs=("a capture on rs2",),
        capture_command=MISSING_RS2,
    ),
    NotExamined(
        rule="realserver-ignores-vip",
        scope=Scope(service=WEB, realserver="10.0.0.12:80"),
        reason="there is no capture of realserver rs2",
        needs=("a capture on rs2",),
        capture_command=MISSING_RS2,
    ),
    NotExamined(rule="fragments-lost", reason="no vantage saw a fragment"),
)

CLEAN = (
    Clean(
        rule="vip-arp-conflict",
        examined=Examined(packets=212),
        note="one MAC answered ARP for each VIP",
    ),
    Clean(
        rule="redirect-to-router",
        scope=Scope(service=WEB),
        examined=Examined(packets=12_345, icmp_errors=1536),
    ),
    Clean(
        rule="service-refused",
        scope=Scope(service=WEB, realserver="10.0.0.11:80", direction="to-realserver"),
        examined=Examined(connections=40),
    ),
)

TOOL = Tool(name="pcapdiag", version="1.2.3")


def _result(**parts):
    return Result(tool=TOOL, generated_at_ns=START + 3_600_000 * MS, **parts)


RESULTS = {
    "incident": _result(
        vantages=VANTAGES,
        cluster=CLUSTER,
        findings=(CHECKSUMS, BLACKHOLE),  # worst last, so that every report has to sort
        not_examined=NOT_EXAMINED,
        clean=CLEAN,
        failed_rules=(FailedRule(rule="forwarding-loop", error="ZeroDivisionError: by zero"),),
        notes=("rs1.pcapng.gz was cut short; what follows 12:01:01 is unknown there",),
    ),
    "nothing-found": _result(
        vantages=VANTAGES, cluster=CLUSTER, not_examined=NOT_EXAMINED, clean=CLEAN
    ),
    "all-clean": _result(vantages=VANTAGES[:1], cluster=CLUSTER, clean=CLEAN),
    "blind": _result(vantages=VANTAGES[:1], not_examined=NOT_EXAMINED),
    "empty": Result(tool=TOOL),
}


@pytest.fixture(params=sorted(RESULTS))
def named(request):
    """Give each literal result with its name."""
    return request.param, RESULTS[request.param]


@pytest.fixture
def result(named):
    """Give each literal result."""
    return named[1]


@pytest.fixture
def incident():
    """Give the result that has something in every place."""
    return RESULTS["incident"]


@pytest.fixture
def results():
    """Give all literal results by name."""
    return RESULTS


def _rewrite(value, text, more):
    """Return `value` with each string changed by `text` and each tuple `more` times as long."""
    if is_dataclass(value):
        return replace(
            value,
            **{
                item.name: getattr(value, item.name)
                if str(item.type).startswith("Literal")
                else _rewrite(getattr(value, item.name), text, more)
                for item in fields(value)
            },
        )
    if isinstance(value, tuple):
        return tuple(_rewrite(item, text, more) for item in value) * more
    if isinstance(value, dict):
        return {text(key): _rewrite(item, text, more) for key, item in value.items()}
    return text(value) if type(value) is str else value


@pytest.fixture
def rewrite():
    """Give a function that changes every text of a result and lengthens every list."""
    return lambda result, text, more=1: _rewrite(result, text, more)


_HIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)


@pytest.fixture
def assert_visible():
    """Give a check that a text holds line feeds and visible characters only."""

    def check(text):
        assert not _HIDDEN.search(text), repr(_HIDDEN.search(text))
        text.encode()  # no lone surrogate

    return check


@pytest.fixture
def golden(update_goldens):
    """Give a function that compares a text with a golden file, or rewrites the file."""
    folder = Path(__file__).parent / "golden"

    def compare(name, text):
        path = folder / name
        if update_goldens:
            folder.mkdir(exist_ok=True)
            path.write_bytes(text.encode())
        assert text == path.read_bytes().decode(), f"{name} differs; see --update-goldens"

    return compare
