"""The same Result without the addresses of hosts, to be shown to strangers.

Each IP address becomes `ip-N` and each MAC `mac-N`, numbered in the order of appearance and the
same everywhere in one result: titles, commands, filters, file names, host names made of an
address. Documentation addresses (RFC 5737, RFC 3849) would look real and are too few. Ports,
prefix lengths, times, file and host names stay, and so do addresses that mean the same everywhere:
unspecified, loopback, multicast, broadcast, netmasks.

What would give addresses away goes: finding ids and community ids are hashes of addresses, few
enough to try them all; dissections hold payload.
"""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any, Final, cast

from pcapdiag.result import Finding, Folded, Result, Tool

if TYPE_CHECKING:
    from collections.abc import Callable

NOTE: Final = (
    "Redacted: IP and MAC addresses are numbered in the order of appearance (ip-1, mac-1), and so "
    "are finding ids; community ids and dissections were removed."
)

_OCTET: Final = r"0{0,2}(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_PLAIN_OCTET: Final = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"  # a date has zeros: 2024-05-01-12
_QUAD: Final = re.compile(
    rf"(?<!\d)(?:{_OCTET}(?:\.{_OCTET}){{3}}|{_PLAIN_OCTET}(?:([-_]){_PLAIN_OCTET})"
    rf"(?:\1{_PLAIN_OCTET}){{2}})(?!\d)",
    re.ASCII,
)
_COLONS: Final = re.compile(  # IPv6, MAC, or a mere time of day: `_colons` decides
    rf"(?<![0-9a-z])(?:[0-9a-f]{{0,4}}:){{2,7}}(?:{_OCTET}(?:\.{_OCTET}){{3}}|[0-9a-f]{{0,4}})",
    re.IGNORECASE | re.ASCII,
)
_MAC: Final = re.compile(r"[0-9a-f]{1,2}(?::[0-9a-f]{1,2}){5}", re.IGNORECASE | re.ASCII)
_OTHER_MAC: Final = re.compile(
    r"(?<![0-9a-z])(?:[0-9a-f]{2}(?:-[0-9a-f]{2}){5}|[0-9a-f]{4}(?:\.[0-9a-f]{4}){2})(?![0-9a-z])",
    re.IGNORECASE | re.ASCII,
)
_HEX: Final = re.compile(  # as in filters: 0xcb00710a, cb:00:71:0a
    r"(?<![0-9a-z])(?:0x)?(?:[0-9a-f]{32}|[0-9a-f]{12}|[0-9a-f]{8})(?![0-9a-z])"
    r"|(?<![0-9a-z:])[0-9a-f]{2}(?::[0-9a-f]{2}){3}(?![0-9a-z:])",
    re.IGNORECASE | re.ASCII,
)
_FINDING_ID: Final = re.compile(
    r"(?<![0-9a-z-])[a-z][a-z0-9-]{0,80}-[0-9a-f]{12}(?![0-9a-z])", re.ASCII
)
_COMMUNITY_ID: Final = re.compile(r"(?<![0-9A-Za-z])1:[0-9A-Za-z+/]{27}=")
_SOLICITED: Final = IPv6Network("ff02::1:ff00:0/104")  # multicast, but holds 24 bits of an address


def redact(result: Result) -> Result:
    """Return `result` with every address replaced; everything else that is textual stays."""
    names = _Names()
    named = _walk(result, names.in_text)
    spelled = names.hexadecimal()
    ids = _new_ids(result)
    cleaned = cast("Result", _walk(named, partial(_known, spelled, ids)))
    notes = cleaned.notes if NOTE in cleaned.notes else (NOTE, *cleaned.notes)
    return replace(cleaned, notes=notes)


def _walk(value: Any, change: Callable[[str], str]) -> Any:
    """Return `value` with every string changed, and without what cannot be redacted."""
    if isinstance(value, Tool):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value,
            **{
                item.name: None
                if item.name in {"community_id", "dissection"}
                else _walk(getattr(value, item.name), change)
                for item in fields(value)
            },
        )
    if isinstance(value, tuple):
        return tuple(_walk(item, change) for item in value)
    if isinstance(value, dict):
        return {change(key): _walk(item, change) for key, item in value.items()}
    return change(value) if type(value) is str else value


class _Names:
    """The labels given so far."""

    def __init__(self) -> None:
        self._ips: dict[IPv4Address | IPv6Address, str] = {}
        self._macs: dict[str, str] = {}

    def in_text(self, text: str) -> str:
        """Return `text` with every written address replaced."""
        text = _COLONS.sub(lambda match: self._colons(match[0]), text)
        text = _OTHER_MAC.sub(lambda match: self._mac(match[0]), text)
        return _QUAD.sub(lambda match: self._quad(match[0]), text)

    def hexadecimal(self) -> dict[str, str]:
        """Return the labels by the digits under which a filter may hold their addresses."""
        spelled: dict[str, str] = {}
        for address, name in self._ips.items():
            digits = address.packed.hex()
            words = {digits, *(digits[at : at + 8] for at in range(0, len(digits), 8))}
            for word in words - {"00000000", "ffffffff"}:
                spelled.setdefault(word, name)
        for digits, name in self._macs.items():
            for word in (digits, digits[:8], digits[4:]):
                spelled.setdefault(word, name)
        return spelled

    def _colons(self, run: str) -> str:
        """Replace the longest address in what looks like groups of hexadecimal digits."""
        edges = [0, *(match.end() for match in re.finditer(":", run))]
        ends = [len(run), *(match.start() for match in reversed(list(re.finditer(":", run))))]
        for start in edges:
            for end in ends:
                part = run[start:end]
                if _MAC.fullmatch(part):
                    return self._rest(run[:start]) + self._mac(part) + self._rest(run[end:])
                if part.count(":") == 7 or "::" in part or "." in part:
                    address = _ipv6(part)
                    if address:
                        return self._rest(run[:start]) + self._ip(address) + self._rest(run[end:])
        return run

    def _rest(self, run: str) -> str:
        return self._colons(run) if run.count(":") > 1 else run

    def _quad(self, text: str) -> str:
        octets = [int(octet) for octet in re.split(r"[.\-_]", text)]
        name = self._ip(IPv4Address(bytes(octets)))
        return text if _QUAD.fullmatch(name) else name

    def _ip(self, address: IPv4Address | IPv6Address) -> str:
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if _means_the_same_everywhere(address):
            return str(address)
        return self._ips.setdefault(address, f"ip-{len(self._ips) + 1}")

    def _mac(self, text: str) -> str:
        if ":" in text:
            digits = "".join(part.zfill(2) for part in text.lower().split(":"))
        else:
            digits = re.sub(r"[-.]", "", text.lower())
        if digits in {"0" * 12, "f" * 12}:
            return text
        return self._macs.setdefault(digits, f"mac-{len(self._macs) + 1}")


def _ipv6(text: str) -> IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address if isinstance(address, IPv6Address) else None


def _means_the_same_everywhere(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and address in _SOLICITED:
        return False
    if isinstance(address, IPv4Address):
        host_bits = ~int(address) & 0xFFFF_FFFF
        if int(address) >= 1 << 31 and host_bits & (host_bits + 1) == 0:
            return True  # a netmask, or the broadcast address
    return address.is_unspecified or address.is_loopback or address.is_multicast


def _new_ids(result: Result) -> dict[str, str]:
    """Return a numbered id for each finding and each folded one, of the same form."""
    found: list[Finding | Folded] = []
    for finding in result.findings:
        found += [finding, *finding.folded]
    fresh: dict[str, str] = {}
    for item in found:
        if item.id:
            fresh.setdefault(item.id, f"{item.rule}-{len(fresh) + 1:012x}")
    return fresh


def _known(spelled: dict[str, str], ids: dict[str, str], text: str) -> str:
    """Return `text` without known addresses in hexadecimal, finding ids and community ids."""
    if text in ids:
        return ids[text]
    text = _FINDING_ID.sub(lambda match: ids.get(match[0], match[0]), text)
    text = _COMMUNITY_ID.sub("(community id removed)", text)
    return _HEX.sub(
        lambda match: spelled.get(match[0].lower().removeprefix("0x").replace(":", ""), match[0]),
        text,
    )
