"""site.toml: what is accepted, what is refused with which words, and that it survives writing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcapdiag.addresses import pack_ip, pack_mac
from pcapdiag.errors import SiteError
from pcapdiag.site import Site, SiteHost, SiteService, dump, load, parse

WHOLE = """
[[service]]
protocol = "udp"
vip = "203.0.113.10"
port = 53
method = "nat"
realservers = ["192.0.2.11:5353", "192.0.2.12"]

[[service]]
fwmark = 7
encapsulation = "gue"
tunnel_port = 9886

[host.rs1]
role = "realserver"
addresses = ["192.0.2.11", "2001:db8::11"]
macs = ["02:00:00:00:00:11"]
"""


def test_a_whole_site_is_read() -> None:
    """Every key has its place, ports of realservers and the method of an encapsulation included."""
    site = parse(WHOLE)
    first, second = site.services
    assert (first.ip_proto, first.vip, first.port) == (17, pack_ip("203.0.113.10"), 53)
    assert first.realservers == ((pack_ip("192.0.2.11"), 5353), (pack_ip("192.0.2.12"), None))
    assert (second.vip, second.fwmark, second.method, second.encapsulation) == (
        None,
        7,
        "tun",
        "gue",
    )
    assert site.tunnel_ports == {9886}
    assert site.hosts == (
        SiteHost(
            "rs1",
            "realserver",
            (pack_ip("192.0.2.11"), pack_ip("2001:db8::11")),
            (pack_mac("02:00:00:00:00:11"),),
        ),
    )


def test_an_ipv6_realserver_may_have_a_port() -> None:
    """Brackets tell the port from the address, and without them there is none."""
    (service,) = parse(
        '[[service]]\nvip = "::1"\nrealservers = ["[2001:db8::1]:80", "2001:db8::2"]'
    ).services
    assert service.realservers == ((pack_ip("2001:db8::1"), 80), (pack_ip("2001:db8::2"), None))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("services = 1", ("'services'", "service, host")),
        ('[[service]]\nvip = "203.0.113.10"\nmehtod = "dr"', ("'mehtod'", "method")),
        ('[host.rs1]\nmac = "02:00:00:00:00:01"', ("'mac'", "macs")),
        ('[[service]]\nvip = "203.0.113.300"', ("vip", "203.0.113.300")),
        ("[[service]]\nvip = 3", ("vip", "3")),
        ("[[service]]\nport = 80", ("vip", "fwmark")),
        ('[[service]]\nvip = "203.0.113.10"\nport = 70000', ("port", "1 to 65535")),
        ('[[service]]\nvip = "203.0.113.10"\nport = true', ("port", "1 to 65535")),
        ('[[service]]\nvip = "203.0.113.10"\nmethod = "dsr"', ("method", "nat, dr, tun")),
        ('[[service]]\nvip = "203.0.113.10"\nprotocol = "icmp"', ("protocol", "tcp, udp, sctp")),
        ("[[service]]\nfwmark = 1\nport = 80", ("port", "fwmark")),
        (
            '[[service]]\nvip = "203.0.113.10"\nmethod = "dr"\nencapsulation = "gre"',
            ("encapsulation", "tun"),
        ),
        (
            '[[service]]\nvip = "203.0.113.10"\nencapsulation = "gre"\ntunnel_port = 6080',
            ("tunnel_port", "gue"),
        ),
        (
            '[[service]]\nvip = "203.0.113.10"\nrealservers = "192.0.2.1"',
            ("realservers", "list"),
        ),
        (
            '[[service]]\nvip = "203.0.113.10"\nrealservers = ["192.0.2.1:0"]',
            ("realservers", "1 to 65535"),
        ),
        ('[host.rs1]\nrole = "server"', ("role", "director, realserver, client, router")),
        ('[host.rs1]\nmacs = ["02:00"]', ("macs", "02:00:00:00:00:01")),
        ("[host]\nrs1 = 3", ("rs1", "[host.NAME]")),
        ("service = 3", ("service", "[[service]]")),
        ("host = 3", ("host", "[host.NAME]")),
        ("a = " + "[" * 5000, ("TOML",)),
        ("a = \x00", ("TOML",)),
    ],
)
def test_what_cannot_be_is_refused_by_name(text: str, words: tuple[str, ...]) -> None:
    """The message names the key and what is valid, in one printable line."""
    with pytest.raises(SiteError) as caught:
        parse(text)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert message.isprintable()


def test_a_file_that_is_no_site_says_so_with_its_path(tmp_path) -> None:
    """Missing, binary and huge files are refused, each with its path."""
    missing = tmp_path / "missing.toml"
    with pytest.raises(SiteError, match=r"missing\.toml: cannot be read"):
        load(str(missing))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xa1\xb2\xc3\xd4")
    with pytest.raises(SiteError, match=r"binary\.toml: not UTF-8 at byte 0"):
        load(str(binary))
    huge = tmp_path / "huge.toml"
    huge.write_bytes(b"#" * (2 << 20))
    with pytest.raises(SiteError, match=r"huge\.toml: larger than"):
        load(str(huge))


def test_a_file_is_read(tmp_path) -> None:
    """What stands in a file is what parse makes of its text."""
    path = tmp_path / "site.toml"
    path.write_text(WHOLE, encoding="utf-8")
    assert load(str(path)) == parse(WHOLE)


ADDRESSES = st.builds(pack_ip, st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str))


@settings(max_examples=60)
@given(
    st.lists(
        st.builds(
            SiteService,
            ip_proto=st.sampled_from([6, 17, 132]),
            vip=ADDRESSES,
            port=st.none() | st.integers(1, 65535),
            fwmark=st.none(),
            method=st.sampled_from([None, "nat", "dr", "tun"]),
            realservers=st.lists(
                st.tuples(ADDRESSES, st.none() | st.integers(1, 65535)), max_size=3
            ).map(tuple),
        ),
        max_size=3,
    ),
    st.lists(
        st.builds(
            SiteHost,
            name=st.text("ab c\"\\'.é\x7f", min_size=1, max_size=8).map(
                lambda text: " ".join(text.replace("\x7f", "").split()) or "x"
            ),
            role=st.sampled_from([None, "director", "client"]),
            addresses=st.lists(ADDRESSES, max_size=2).map(tuple),
            macs=st.lists(st.integers(0, 2**48 - 1), max_size=2).map(tuple),
        ),
        max_size=3,
        unique_by=lambda host: host.name,
    ),
)
def test_what_is_written_is_read_back(services: list[SiteService], hosts: list[SiteHost]) -> None:
    """`dump` loses nothing, whatever a host is called."""
    site = Site(tuple(services), tuple(hosts))
    assert parse(dump(site)) == site
