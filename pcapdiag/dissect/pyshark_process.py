"""What the process for Wireshark's dissectors does: frames in, one line of JSON a frame out.

pyshark's traps, and how this stays clear of them: JSON mode, since in XML mode a commented packet's
`frame_info` is the comment; every frame has a time, since JSON mode raises on one without and loses
the rest; an event loop of its own; `sniff_time`, which is local, is never asked for; `close()` is
always called.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

from pcapdiag.dissect.layers import lines

_PREFERENCES: Final = {
    "tcp.relative_sequence_numbers": "FALSE",  # cited as they are on the wire
    "tcp.analyze_sequence_numbers": "FALSE",  # a slice has holes that the capture had not
    "tcp.desegment_tcp_streams": "FALSE",
    "ip.defragment": "FALSE",
    "ip.check_checksum": "TRUE",
}


def run(slice_path: str, answers_path: str, tshark: str) -> None:
    """Dissect the pcapng at `slice_path`; append [frame number, lines] to `answers_path`.

    What was written stays where a later frame fails. Raises whatever pyshark raises.
    """
    import pyshark

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    capture = pyshark.FileCapture(
        slice_path,
        use_json=True,
        keep_packets=False,
        eventloop=loop,
        tshark_path=tshark,
        override_prefs=_PREFERENCES,
    )
    try:
        with Path(answers_path).open("w", encoding="utf-8") as answers:
            for packet in capture:
                layers = [
                    (layer.layer_name, [layer._all_fields, *_repeats(layer)])  # noqa: SLF001
                    for layer in packet.layers
                ]
                answers.write(json.dumps([int(packet.number), lines(layers)]) + "\n")
                answers.flush()
    finally:
        capture.close()


def _repeats(layer: object) -> list[object]:
    """Return the fields of further layers of the same name, as of IP in IP."""
    return [each._all_fields for each in getattr(layer, "duplicate_layers", ())]  # noqa: SLF001
