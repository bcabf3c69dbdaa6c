"""Cited frames in a dissector's words: Wireshark's where tshark is installed, else scapy's.

Both are slow to start and eat hostile bytes. Wireshark's dissectors therefore run in a process of
their own, under a time limit, and are given only a slice: the cited frames.
"""

from pcapdiag.dissect.frame import MAX_LINES, Frame
from pcapdiag.dissect.scapy_words import by_scapy
from pcapdiag.dissect.wireshark import TIME_LIMIT_S, Words, by_wireshark

__all__ = ["MAX_LINES", "TIME_LIMIT_S", "Frame", "Words", "by_scapy", "by_wireshark"]
