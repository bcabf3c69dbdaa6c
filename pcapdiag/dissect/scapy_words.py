"""scapy's words, for what Wireshark was not asked about or did not answer."""

from __future__ import annotations

import importlib
import logging
import warnings
from typing import Any, Final

from pcapdiag.dissect.frame import MAX_LINES, Frame

_LAYERS: Final = ("l2", "inet", "inet6", "ppp", "vrrp")
_ENDS: Final = frozenset({"Raw", "Padding", "NoPayload"})
"""Layers that are payload, or nothing."""
_PAYLOAD_FIELDS: Final = frozenset({"ext", "load"})


def by_scapy(frame: Frame) -> list[str]:
    """Return scapy's lines for a frame; none where it cannot read the link type, or fails."""
    logger = logging.getLogger("scapy")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # its warnings are about hostile bytes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _lines(frame)
    except Exception:  # noqa: BLE001 - its dissectors raise anything
        return []
    finally:
        logger.setLevel(level)


def _lines(frame: Frame) -> list[str]:
    for name in _LAYERS:
        importlib.import_module(f"scapy.layers.{name}")
    first: Any = importlib.import_module("scapy.config").conf.l2types.num2layer.get(frame.linktype)
    if first is None:
        return []
    found: list[str] = []
    layer = first(frame.data)
    while type(layer).__name__ not in _ENDS and len(found) < MAX_LINES:
        found.append(str(layer.name))
        for field in layer.fields_desc:
            conditional = hasattr(field, "_evalcond")
            if field.name in _PAYLOAD_FIELDS or (conditional and not field._evalcond(layer)):  # noqa: SLF001
                continue
            value = layer.getfieldval(field.name)
            if value not in (None, b"", []):
                found.append(f"    {field.name}: {field.i2repr(layer, value)}")
        layer = layer.payload
    return found[:MAX_LINES]
