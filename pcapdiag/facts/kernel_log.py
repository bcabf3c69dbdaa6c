"""Lines of kernel logs about ICMP: dmesg, syslog and `journalctl -k` text, from Linux 2.0 on.

Such files come from strangers and hold whatever their senders could make a kernel print. Nothing of
a line is kept but a parsed address, a count, and which of the known lines it is.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LINE: Final = 2048
"""Characters looked at in a line: no kernel message of these kinds comes near."""

MAX_SENDERS: Final = 10_000
"""Different senders counted apart for a kind of line; further ones count as of an unknown one."""

_FROM: Final = r"from\s*(?P<address>[0-9A-Fa-f.:]*)"
_TRACKER: Final = "nf_ct_(?:tcp|proto_6): "
_OF: Final = r"(?:.*?\bSRC=(?P<address>[0-9A-Fa-f.:]+))?"
"""Whose packet it was: nf_log's own words behind the message."""
_KINDS: Final = (
    # ip_masq.c (2.2), ip_vs_core.c (debug level 1), icmp.c (2.0)
    ("icmp-checksum", rf"IP_MASQ:\s?(?:reverse|forward) ICMP:\s?failed checksum {_FROM}"),
    ("icmp-checksum", rf"(?:IPVS:\s?)?(?:Incoming|Forward) ICMP: failed checksum {_FROM}"),
    ("icmp-checksum", rf"\bICMP: failed checksum {_FROM}"),
    # nf_conntrack_proto_icmp.c, only with nf_conntrack_log_invalid
    ("icmp-checksum", r"nf_ct_(?:icmp|icmpv6|proto_1|proto_58): bad hw icmp(?:v6)? checksum"),
    # udp.c: also the outer header of VXLAN
    ("udp-checksum", rf"UDP: bad checksum\. {_FROM}"),
    # nf_conntrack_proto_tcp.c, likewise; the second is let through
    ("tcp-out-of-window", rf"{_TRACKER}(?:SEQ|ACK) is (?:over|under) (?:the )?[ul]{_OF}"),
    ("tcp-let-through", rf"{_TRACKER}invalid packet ignored{_OF}"),
    ("tcp-without-entry", rf"{_TRACKER}invalid new{_OF}"),
    ("tcp-bad-checksum", rf"{_TRACKER}bad (?:TCP )?checksum{_OF}"),
    ("tcp-invalid", rf"{_TRACKER}{_OF}"),
    ("conntrack-full", r"nf_conntrack: table full, dropping packet"),
    # route.c, CONFIG_IP_ROUTE_VERBOSE and log_martians
    ("redirect-ignored", r"host (?P<address>[0-9A-Fa-f.:]+)/if\d+ ignores redirects for "),
    ("redirect-ignored", r"Redirect from (?P<address>[0-9A-Fa-f.:]+) on \S+ about \S+ ignored"),
)
_LINE: Final = [(kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _KINDS]

_REPEATED: Final = re.compile(r"last message repeated (?P<times>\d{1,9}) times?\b", re.IGNORECASE)
"""syslogd: so many *more* of the line before."""

_REPEATED_HERE: Final = re.compile(r"message repeated (?P<times>\d{1,9}) times: \[(?P<text>.*)\]")
"""rsyslog: so many of the line in brackets."""


class LogCount(NamedTuple):
    """How often a host's log holds a kind of line about one sender."""

    kind: str
    sender: str | None
    """An IP address as parsed; None where the line names none."""
    lines: int


def count(lines: Iterable[str]) -> tuple[LogCount, ...]:
    """Return the known lines counted by kind and sender, sorted; "repeated" lines included."""
    counts: dict[tuple[str, str | None], int] = {}
    before: tuple[str, str | None] | None = None
    for line in lines:
        text = line[:MAX_LINE]
        again = _REPEATED.search(text)
        bracket = _REPEATED_HERE.search(text)
        times = 1
        if bracket:
            key, times = _known(bracket["text"]), int(bracket["times"])
        elif again:
            key, times = before, int(again["times"])
        else:
            key = before = _known(text)
        if key is None:
            continue
        if key not in counts and len(counts) >= MAX_SENDERS:
            key = (key[0], None)
        counts[key] = counts.get(key, 0) + times
    return tuple(
        LogCount(kind, sender, lines)
        for (kind, sender), lines in sorted(counts.items(), key=lambda item: str(item[0]))
    )


def _known(text: str) -> tuple[str, str | None] | None:
    """Return the kind of a line and the address it names; None for all others."""
    for kind, pattern in _LINE:
        found = pattern.search(text)
        if found:
            return kind, _address(found.groupdict().get("address") or "")
    return None


def _address(text: str) -> str | None:
    """Return an address as parsed, without the port or the stop that may follow it."""
    for candidate in (text, text.rstrip(".:"), text.rpartition(":")[0]):
        try:
            return str(ipaddress.ip_address(candidate))
        except ValueError:
            continue
    return None
