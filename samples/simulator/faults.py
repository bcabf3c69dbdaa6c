"""Faults that several samples share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import wire
    from .cluster import Lab
    from .hosts import Verdict
    from .links import Interface


def drop_icmp_errors(lab: Lab, *, at_s: float) -> None:
    """Let the director's filter INPUT drop ICMP but for echo and, in IPv6, neighbour discovery."""

    def rule(header: wire.Header, _interface: Interface) -> Verdict | None:
        return "drop" if header.is_error else None

    lab.at(at_s, lambda: lab.director.input_rules.append(rule))
