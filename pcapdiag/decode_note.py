"""What was wrong with a frame.

Apart from schema.py, so that files can be opened before polars is imported: it starts its threads
then, and how many is known once the files are.
"""

from __future__ import annotations

from enum import IntFlag


class DecodeNote(IntFlag):
    """What was wrong with a frame, as bits of `decode_note`; exports name them, ";" between."""

    NO_PACKET = 1 << 0  # a pcapng block that Wireshark numbers but that holds no packet
    UNKNOWN_LINKTYPE = 1 << 1  # no decoder, and scapy found no network layer either
    LINK_CUT = 1 << 2  # caplen ends inside the link header
    NOT_IP = 1 << 3  # another network protocol; not a fault
    IP_CUT = 1 << 4  # caplen ends inside the IP header
    IP_BAD_HEADER = 1 << 5  # version, header length or total length contradict each other
    IP_BEYOND_FRAME = 1 << 6  # the IP length is larger than the frame on the wire
    IP_LENGTH_ZERO = 1 << 7  # length 0: TSO or BIG TCP; the frame's length was taken
    EXTENSIONS_TOO_DEEP = 1 << 8  # more IPv6 extension headers than are followed
    TUNNEL_TOO_DEEP = 1 << 9  # more tunnel headers than are followed
    TRANSPORT_CUT = 1 << 10  # caplen or IP length ends inside the transport header
    TCP_BAD_HEADER = 1 << 11  # data offset below 5 or beyond the segment
    TCP_BAD_OPTIONS = 1 << 12  # an option's length contradicts the header's
    UDP_BAD_LENGTH = 1 << 13  # the UDP length contradicts the IP length
    QUOTE_CUT = 1 << 14  # an ICMP error whose quote ends before the ports
    LATER_FRAGMENT = 1 << 15  # not the first fragment: no transport header
    TUNNEL_BAD_HEADER = 1 << 16  # a tunnel header that contradicts itself; not followed
    TIME_MISSING = 1 << 17  # a simple packet block has no time
    BEYOND_SCAPY_LIMIT = 1 << 18  # a rare link type, past the frames that scapy was asked about
    QUOTE_BAD_HEADER = 1 << 19  # the IP header that an ICMP error quotes contradicts itself
