"""Single values in words."""

from __future__ import annotations

import pytest

from pcapdiag.report import wording
from pcapdiag.result import CaptureFile, Examined, Service, Vantage


@pytest.mark.parametrize(
    ("offset", "error", "words"),
    [
        (None, None, "unknown"),
        (0, 0, "none, it is the reference"),
        (1_250_000, 40_000, "+1.25 ms ± 40 µs"),
        (-1_250_000, None, "-1.25 ms, error unknown"),
        (0, 500, "0 ns ± 500 ns"),
    ],
)
def test_clock_offset(offset, error, words):
    """An offset has its sign and its error; no offset is not zero."""
    point = Vantage(
        name="a",
        role="unknown",
        role_source="unknown",
        clock_offset_ns=offset,
        clock_error_ns=error,
    )
    assert wording.clock_offset(point) == words


@pytest.mark.parametrize(
    ("service", "words"),
    [
        (Service(protocol="tcp", vip="192.0.2.1", port=80), "tcp 192.0.2.1:80"),
        (Service(protocol="udp", vip="2001:db8::1", port=53), "udp [2001:db8::1]:53"),
        (Service(protocol="tcp", vip="192.0.2.1"), "tcp 192.0.2.1"),
        (Service(protocol="tcp", vip="192.0.2.1", fwmark=7), "tcp fwmark 7 (192.0.2.1)"),
    ],
)
def test_service(service, words):
    """IPv6 endpoints have brackets, firewall marks their number."""
    assert wording.service(service) == words


def test_method_with_its_encapsulation():
    """DR is DR, a tunnel says which."""
    assert wording.method(Service(protocol="tcp", vip="v", method="dr")) == "DR"
    tunnel = Service(protocol="tcp", vip="v", method="tun", encapsulation="ipip")
    assert wording.method(tunnel) == "TUN (ipip)"


def test_examined_names_what_is_there():
    """Zeros are left out."""
    assert wording.examined(Examined(packets=1, icmp_errors=2000)) == "1 packet, 2,000 ICMP errors"


def test_times_that_are_not_there():
    """A file without times says so."""
    assert wording.utc(None) == "no time"
    assert wording.file_span(CaptureFile(path="p", format="pcap", packets=0)) == "no times"
