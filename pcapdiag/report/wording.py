"""Single values of a Result in words, alike in all formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pcapdiag.report import instants, plain

if TYPE_CHECKING:
    from pcapdiag.result import CaptureFile, Examined, Service, Vantage

_METHODS: Final = {"nat": "NAT", "dr": "DR", "tun": "TUN", "unknown": "unknown"}


def utc(time_ns: int | None) -> str:
    """Return the instant without its zone, for a column that is headed UTC."""
    return "no time" if time_ns is None else instants.readable(time_ns).removesuffix(" UTC")


def examined(counts: Examined) -> str:
    """Return what a clean answer rests on: "12,345 packets, 40 connections"."""
    parts = (
        (counts.packets, "packet"),
        (counts.connections, "connection"),
        (counts.icmp_errors, "ICMP error"),
    )
    return ", ".join(plain.counted(count, word) for count, word in parts if count)


def clock_offset(point: Vantage) -> str:
    """Return what to add to a vantage's times, with its error: "+1.25 ms ± 40 µs"."""
    if point.clock_offset_ns is None:
        return "unknown"
    if point.clock_offset_ns == 0 and point.clock_error_ns == 0:
        return "none, it is the reference"
    sign = "+" if point.clock_offset_ns > 0 else ""
    offset = f"{sign}{instants.duration(point.clock_offset_ns)}"
    if point.clock_error_ns is None:
        return f"{offset}, error unknown"
    return f"{offset} ± {instants.duration(point.clock_error_ns)}"


def file_span(file: CaptureFile) -> str:
    """Return from when to when a file holds packets, and for how long."""
    if file.first_ns is None or file.last_ns is None:
        return "no times"
    span = instants.span(file.first_ns, file.last_ns).removesuffix(" UTC")
    return f"{span} ({instants.duration(file.last_ns - file.first_ns)})"


def service(item: Service) -> str:
    """Return a virtual service as "tcp 203.0.113.10:80", "udp fwmark 3 (2001:db8::1)"."""
    if item.fwmark is not None:
        return f"{item.protocol} fwmark {item.fwmark} ({item.vip})"
    if item.port is None:
        return f"{item.protocol} {item.vip}"
    vip = f"[{item.vip}]" if ":" in item.vip else item.vip
    return f"{item.protocol} {vip}:{item.port}"


def method(item: Service) -> str:
    """Return the forwarding method with its encapsulation: "TUN (gue)"."""
    name = _METHODS[item.method]
    return f"{name} ({item.encapsulation})" if item.encapsulation else name
