"""site.toml: what an operator knows of the cluster and captures cannot show.

```toml
[[service]]
protocol = "tcp"                # tcp, udp or sctp
vip = "203.0.113.10"
port = 80                       # left out: every port of the VIP
method = "nat"                  # nat, dr or tun
encapsulation = "ipip"          # of tun: ipip, gre or gue
tunnel_port = 6080              # of gue: the UDP port, ipvsadm's --tun-port; 6080 if left out
realservers = ["192.0.2.11:8080", "192.0.2.12"]

[[service]]                     # a firewall-mark service has a mark where others have a port
fwmark = 7
method = "dr"
realservers = ["192.0.2.11"]

[host.rs1]
role = "realserver"             # director, realserver, client or router
addresses = ["192.0.2.11"]
macs = ["02:00:00:00:00:11"]
```

Every key but `vip` (or `fwmark`) is optional. An unknown key or an impossible value is an error
that names the key and what is valid: a file that is half understood would mislead every verdict.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pcapdiag.addresses import endpoint_text, ip_text, mac_text, pack_ip, pack_mac
from pcapdiag.errors import SiteError
from pcapdiag.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Address = tuple[int, int]
"""An IP address as (hi, lo), see addresses.py."""

ROLES: Final = ("director", "realserver", "client", "router")
METHODS: Final = ("nat", "dr", "tun")
ENCAPSULATIONS: Final = ("ipip", "gre", "gue")
PROTOCOLS: Final = {"tcp": 6, "udp": 17, "sctp": 132}

MAX_SITE_BYTES: Final = 1 << 20
"""A site file of a thousand services has some 200 kB; a capture given by mistake has more."""

_TOP_KEYS: Final = ("service", "host")
_SERVICE_KEYS: Final = (
    "protocol",
    "vip",
    "port",
    "fwmark",
    "method",
    "encapsulation",
    "tunnel_port",
    "realservers",
)
_HOST_KEYS: Final = ("role", "addresses", "macs")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+\Z")


@dataclass(frozen=True, slots=True)
class SiteService:
    """One virtual service. `vip` is None only for a firewall mark; `port` None means every port.

    `realservers` are (address, port), the port None where it equals the service's.
    """

    ip_proto: int
    vip: Address | None
    port: int | None = None
    fwmark: int | None = None
    method: str | None = None
    encapsulation: str | None = None
    realservers: tuple[tuple[Address, int | None], ...] = ()
    tunnel_port: int | None = None


@dataclass(frozen=True, slots=True)
class SiteHost:
    """One host: its name is what reports call it, and what a vantage of that name is."""

    name: str
    role: str | None = None
    addresses: tuple[Address, ...] = ()
    macs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """A whole site.toml."""

    services: tuple[SiteService, ...] = ()
    hosts: tuple[SiteHost, ...] = ()

    @property
    def tunnel_ports(self) -> frozenset[int]:
        """Return the UDP ports that carry GUE, beside the usual one."""
        return frozenset(item.tunnel_port for item in self.services if item.tunnel_port is not None)


def load(path: str) -> Site:
    """Return the site that the file at `path` describes; SiteError where it cannot be used."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_SITE_BYTES + 1)
    except OSError as error:
        raise SiteError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_SITE_BYTES:
        raise SiteError(f"{path}: larger than {MAX_SITE_BYTES} bytes, so it is no site.toml")
    try:
        return parse(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise SiteError(f"{path}: not UTF-8 at byte {error.start}, TOML must be") from error
    except SiteError as error:
        raise SiteError(f"{path}: {error}") from error


def parse(text: str) -> Site:
    """Return the site that TOML text describes; SiteError where it cannot be used."""
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise SiteError(f"not TOML: {clean(str(error))}") from error
    _only("at the top", table, _TOP_KEYS)
    services = table.get("service", [])
    if not isinstance(services, list):
        raise SiteError("service: written [[service]], one block for each service")
    hosts = table.get("host", {})
    if not isinstance(hosts, dict):
        raise SiteError("host: written [host.NAME], one table for each host")
    return Site(
        services=tuple(_service(number, item) for number, item in enumerate(services, 1)),
        hosts=tuple(_host(name, item) for name, item in hosts.items()),
    )


def dump(site: Site) -> str:
    """Return the TOML text of a site; `parse` gives the same site back."""
    blocks = [_service_text(service) for service in site.services]
    blocks += [_host_text(host) for host in site.hosts]
    return "\n".join(blocks)


def _only(where: str, table: Mapping[str, Any], valid: Iterable[str]) -> None:
    """Refuse keys that nobody would read."""
    names = tuple(valid)
    for key in table:
        if key not in names:
            raise SiteError(f"unknown key {clean(key)!r} {where}; valid are {', '.join(names)}")


def _word(where: str, key: str, value: object, valid: Iterable[str]) -> str | None:
    """Return a word out of `valid`, None where the key is missing."""
    names = tuple(valid)
    if value is None:
        return None
    if not isinstance(value, str) or value not in names:
        raise SiteError(f"{where}: {key} = {_shown(value)}; valid are {', '.join(names)}")
    return value


def _number(where: str, key: str, value: object, lowest: int, highest: int) -> int | None:
    """Return an integer within bounds, None where the key is missing."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise SiteError(f"{where}: {key} = {_shown(value)}; valid are {lowest} to {highest}")
    return value


def _texts(where: str, key: str, value: object) -> tuple[str, ...]:
    """Return a list of strings, empty where the key is missing."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SiteError(f"{where}: {key} = {_shown(value)}; valid is a list of strings")
    return tuple(value)


def _address(where: str, key: str, value: object) -> Address:
    if not isinstance(value, str):
        raise SiteError(f"{where}: {key} = {_shown(value)}; valid is an IP address in quotes")
    try:
        return pack_ip(value)
    except ValueError as error:
        raise SiteError(
            f"{where}: {key} = {_shown(value)} is no IP address; valid are 192.0.2.1, 2001:db8::1"
        ) from error


def _endpoint(where: str, key: str, value: str) -> tuple[Address, int | None]:
    """Return address and port of "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]:80"."""
    bracketed = re.fullmatch(r"\[(.+)\](?::([0-9]{1,5}))?", value)
    plain = re.fullmatch(r"([^:]+):([0-9]{1,5})", value)
    found = bracketed or plain
    if not found:
        return _address(where, key, value), None
    port = None if found[2] is None else int(found[2])
    return _address(where, key, found[1]), _number(where, f"port in {key}", port, 1, 65535)


def _service(number: int, table: object) -> SiteService:
    where = f"service {number}"
    if not isinstance(table, dict):
        raise SiteError(f"{where}: written [[service]], one block for each service")
    _only(f"in {where}", table, _SERVICE_KEYS)
    fwmark = _number(where, "fwmark", table.get("fwmark"), 1, 0xFFFF_FFFF)
    vip = None if table.get("vip") is None else _address(where, "vip", table["vip"])
    port = _number(where, "port", table.get("port"), 1, 65535)
    if vip is None and fwmark is None:
        raise SiteError(f"{where}: neither vip nor fwmark; one of them says which service it is")
    if fwmark is not None and port is not None:
        raise SiteError(f"{where}: port and fwmark exclude each other; give one of them")
    method = _word(where, "method", table.get("method"), METHODS)
    encapsulation = _word(where, "encapsulation", table.get("encapsulation"), ENCAPSULATIONS)
    if encapsulation is not None and method not in {None, "tun"}:
        raise SiteError(f'{where}: encapsulation belongs to method "tun", not to "{method}"')
    tunnel_port = _number(where, "tunnel_port", table.get("tunnel_port"), 1, 65535)
    if tunnel_port is not None and encapsulation != "gue":
        raise SiteError(f'{where}: tunnel_port belongs to encapsulation "gue"')
    protocol = _word(where, "protocol", table.get("protocol", "tcp"), PROTOCOLS)
    return SiteService(
        ip_proto=PROTOCOLS[protocol or "tcp"],
        vip=vip,
        port=port,
        fwmark=fwmark,
        method="tun" if encapsulation is not None else method,
        encapsulation=encapsulation,
        realservers=tuple(
            _endpoint(where, "realservers", text)
            for text in _texts(where, "realservers", table.get("realservers"))
        ),
        tunnel_port=tunnel_port,
    )


def _host(name: str, table: object) -> SiteHost:
    where = f"host {clean(name)!r}"
    if not isinstance(table, dict):
        raise SiteError(f"{where}: written [host.NAME], with {', '.join(_HOST_KEYS)} below it")
    _only(f"in {where}", table, _HOST_KEYS)
    macs = []
    for text in _texts(where, "macs", table.get("macs")):
        try:
            macs.append(pack_mac(text))
        except ValueError as error:
            raise SiteError(
                f"{where}: macs = {_shown(text)} is no MAC; valid is 02:00:00:00:00:01"
            ) from error
    return SiteHost(
        name=clean(name),
        role=_word(where, "role", table.get("role"), ROLES),
        addresses=tuple(
            _address(where, "addresses", text)
            for text in _texts(where, "addresses", table.get("addresses"))
        ),
        macs=tuple(macs),
    )


def _shown(value: object) -> str:
    """Return a value as an error message may show it."""
    return clean(repr(value), 60)


def _quoted(text: str) -> str:
    """Return a TOML basic string; JSON's escapes are a subset of TOML's, but for DEL."""
    return json.dumps(text).replace("\x7f", "\\u007f")


def _service_text(service: SiteService) -> str:
    names = {number: name for name, number in PROTOCOLS.items()}
    lines = ["[[service]]", f"protocol = {_quoted(names[service.ip_proto])}"]
    if service.vip is not None:
        lines.append(f"vip = {_quoted(ip_text(*service.vip))}")
    for key, number in (("port", service.port), ("fwmark", service.fwmark)):
        if number is not None:
            lines.append(f"{key} = {number}")
    for key, word in (("method", service.method), ("encapsulation", service.encapsulation)):
        if word is not None:
            lines.append(f"{key} = {_quoted(word)}")
    if service.tunnel_port is not None:
        lines.append(f"tunnel_port = {service.tunnel_port}")
    if service.realservers:
        texts = (_quoted(endpoint_text(*address, port)) for address, port in service.realservers)
        lines.append(f"realservers = [{', '.join(texts)}]")
    return "\n".join(lines) + "\n"


def _host_text(host: SiteHost) -> str:
    name = host.name if _BARE_KEY.match(host.name) else _quoted(host.name)
    lines = [f"[host.{name}]"]
    if host.role is not None:
        lines.append(f"role = {_quoted(host.role)}")
    if host.addresses:
        lines.append(f"addresses = [{', '.join(_quoted(ip_text(*a)) for a in host.addresses)}]")
    if host.macs:
        lines.append(f"macs = [{', '.join(_quoted(mac_text(mac)) for mac in host.macs)}]")
    return "\n".join(lines) + "\n"
