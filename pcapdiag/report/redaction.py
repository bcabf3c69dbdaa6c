"""A result that may be shown to strangers: invented addresses, no folders, no dissected frames.

The same address has the same substitute everywhere in one result, so that the story still reads:
addresses of one /24 (IPv6: /64) stay together in one invented /24 (/64). Substitutes come from
ranges that no cluster uses: 240.0.0.0/4 (reserved, RFC 1112 section 4), 2001:db8::/32
(documentation, RFC 3849), and locally administered MACs. What has a meaning of its own stays:
multicast, broadcast, loopback, netmasks, VRRP's MACs. Names of vantages, hosts and files stay,
too: the user chose them.
"""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from pcapdiag.addresses import mac_text, pack_mac
from pcapdiag.result import Finding, FlowRef, Leg, Result, Scope, finding_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_T = TypeVar("_T")

NOTE: Final = (
    "Redacted: addresses are invented (240.0.0.0/4, 2001:db8::/32, 02:00:00:xx:xx:xx), the same "
    "address has the same substitute throughout; folders and dissected frames are left out."
)

_ADDRESS: Final = re.compile(
    r"(?P<mac>(?<![\w:-])[0-9A-Fa-f]{2}(?P<sep>[:-])(?:[0-9A-Fa-f]{2}(?P=sep)){4}[0-9A-Fa-f]{2}(?![\w:]))"
    r"|(?P<v6>(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?:(?:\.\d{1,3}){3})?(?!\w))"
    r"|(?P<v4>(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d))"
)

_VRRP_MACS: Final = frozenset({0x00005E0001, 0x00005E0002})
"""The first five bytes of virtual router MACs (RFC 9568 section 7.3): known to all the world."""


def redact(result: Result, paths: Iterable[str] = ()) -> Result:
    """Return `result` without real addresses; `paths` are further files whose folder is hidden.

    A pure function: equal results give equal substitutes. Ids of findings are made anew, because
    they are digests of addresses, and few enough addresses exist to try them all.
    """
    known = {file.path for vantage in result.vantages for file in vantage.files}
    known |= {item.file for finding in result.findings for item in finding.evidence}
    pseudonyms = _Pseudonyms({*known, *paths})
    hidden = pseudonyms.walk(replace(result, findings=tuple(map(_strip, result.findings))))
    return replace(
        hidden, findings=tuple(map(_identify, hidden.findings)), notes=(*hidden.notes, NOTE)
    )


def _strip(finding: Finding) -> Finding:
    """Remove what no substitute can be found for: dissections, digests of five-tuples."""
    return replace(
        finding,
        evidence=tuple(replace(item, dissection=None) for item in finding.evidence),
        flows=tuple(_strip_flow(flow) for flow in finding.flows),
    )


def _strip_flow(flow: FlowRef) -> FlowRef:
    legs: tuple[Leg, ...] = tuple(replace(leg, community_id=None) for leg in flow.legs)
    return replace(flow, community_id=None, legs=legs)


def _identify(finding: Finding) -> Finding:
    new = finding_id(finding.rule, finding.cause.code, finding.scope, finding.subject)
    return replace(
        finding,
        id=new,
        folded=tuple(
            replace(item, id=finding_id(item.rule, item.cause.code, Scope(), f"{new} {number}"))
            for number, item in enumerate(finding.folded)
        ),
    )


class _Pseudonyms:
    """Substitutes, handed out in the order in which addresses are met."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._networks: dict[tuple[int, int], int] = {}
        self._hosts: dict[tuple[int, int], dict[int, int]] = {}
        self._macs: dict[int, int] = {}
        folders = {str(PurePath(path).parent) for path in paths} - {".", "/"}
        # longest first, so that a folder is not cut in two by its own parent
        ordered = sorted(folders, key=lambda folder: (-len(folder), folder))
        self._folder = re.compile("|".join(re.escape(each) + "/+" for each in ordered) or r"(?!)")

    def walk(self, value: _T) -> _T:
        """Return `value` with every text in it redacted."""
        return cast("_T", self._walk(value))

    def _walk(self, value: Any) -> Any:
        if isinstance(value, Enum):
            return value
        if isinstance(value, str):
            return _ADDRESS.sub(self._substitute, self._folder.sub("", value))
        if isinstance(value, tuple):
            return tuple(map(self._walk, value))
        if isinstance(value, dict):
            return {self._walk(key): self._walk(item) for key, item in value.items()}
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **dict(self._changed(value)))
        return value

    def _changed(self, value: Any) -> Iterator[tuple[str, Any]]:
        for each in fields(value):
            yield each.name, self._walk(getattr(value, each.name))

    def _substitute(self, match: re.Match[str]) -> str:
        text = match[0]
        if match["mac"]:
            return self._mac(text)
        if match["v4"]:
            try:
                return str(self._v4(IPv4Address(text)))
            except AddressValueError:
                return text
        colons = len(text) - len(text.rstrip(":"))
        for cut in (0, 1) if colons else (0,):  # "2001:db8::1: no route" ends in a colon of prose
            body = text[: len(text) - cut]
            try:
                return self._v6(IPv6Address(body)) + text[len(body) :]
            except AddressValueError:
                continue
        return text

    def _mac(self, text: str) -> str:
        mac = pack_mac(text)
        if mac >> 40 & 1 or mac >> 8 in _VRRP_MACS or mac == 0:  # group address: not a machine's
            return text
        number = self._macs.setdefault(mac, len(self._macs) + 1)
        return mac_text(0x0200_0000_0000 + number).replace(":", text[2])

    def _v4(self, address: IPv4Address) -> IPv4Address:
        value = int(address)
        if address.is_multicast or address.is_loopback or not value or value >> 24 == 255:
            return address
        network, host = self._place(4, value >> 8, value & 0xFF)
        return IPv4Address(0xF000_0000 + (network << 8) + host)

    def _v6(self, address: IPv6Address) -> str:
        if address.ipv4_mapped is not None:
            return f"::ffff:{self._v4(address.ipv4_mapped)}"
        if address.is_multicast or address.is_loopback or not int(address):
            return str(address)
        network, host = self._place(6, int(address) >> 64, int(address) & (1 << 64) - 1)
        return str(IPv6Address((0x2001_0DB8_0000_0000 + network << 64) + host))

    def _place(self, version: int, network: int, host: int) -> tuple[int, int]:
        """Return numbers for a network and a host in it, from 1 on; host 0, the prefix, stays 0."""
        number = self._networks.setdefault((version, network), len(self._networks) + 1)
        hosts = self._hosts.setdefault((version, network), {0: 0})
        return number, hosts.setdefault(host, len(hosts))
