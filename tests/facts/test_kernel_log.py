"""Kernel logs are counted by kind and sender, whatever else stands in them."""

from __future__ import annotations

import pytest

from pcapdiag.facts import kernel_log
from pcapdiag.facts.kernel_log import LogCount, count


def counts(text):
    """Return {(kind, sender): lines}."""
    return {(item.kind, item.sender): item.lines for item in count(text.splitlines())}


@pytest.mark.parametrize(
    "line",
    [
        "Jun 17 22:16:19 wwc kernel: IP_MASQ:reverse ICMP: failed checksum from 192.0.2.1!",
        "kernel: IP_MASQ:reverse ICMP:failed checksum from 192.0.2.1!",
        "IP_MASQ:forward ICMP: failed checksum from 192.0.2.1!",
        "[12.5] ICMP: failed checksum from 192.0.2.1!",
        "[ 1234.567] IPVS: Incoming ICMP: failed checksum from 192.0.2.1!",
        "IPVS: Forward ICMP: failed checksum from 192.0.2.1!",
    ],
)
def test_each_kernels_words_for_a_bad_icmp_checksum(line):
    """From 2.0 to today, with and without a syslog head or a dmesg clock."""
    assert counts(line) == {("icmp-checksum", "192.0.2.1"): 1}


def test_last_message_repeated_means_so_many_more():
    """The 1522 of the HOWTO's report are 1523 messages in all."""
    text = """kernel: IP_MASQ:reverse ICMP:failed checksum from 192.0.2.1!
last message repeated 1522 times.
kernel: eth0: link up
last message repeated 9 times"""
    assert counts(text) == {("icmp-checksum", "192.0.2.1"): 1523}


def test_rsyslog_puts_the_repeated_line_in_brackets():
    """There the number is the whole of it."""
    text = "h kernel: message repeated 3 times: [ ICMP: failed checksum from 192.0.2.1!]"
    assert counts(text) == {("icmp-checksum", "192.0.2.1"): 3}


def test_a_line_without_an_address_counts_as_of_an_unknown_sender():
    """As in the HOWTO, where reports were redacted, and in conntrack's lines."""
    text = """IP_MASQ:reverse ICMP: failed checksum from!
IP_MASQ:reverse ICMP: failed checksum from 213.xxx.xxx.xxx!
nf_ct_proto_1: bad hw icmp checksum IN=eth0"""
    assert counts(text) == {("icmp-checksum", None): 3}


def test_other_kinds_are_told_apart():
    """UDP checksums, conntrack's INVALID and full table, ignored redirects."""
    text = """UDP: bad checksum. From 192.0.2.7:4789 to 192.0.2.8:4789 ulen 88
nf_ct_proto_6: SEQ is over the upper bound IN= OUT=
nf_conntrack: nf_conntrack: table full, dropping packet
host 203.0.113.11/if2 ignores redirects for 198.51.100.1 to 203.0.113.1
Redirect from 2001:db8::1 on eth0 about 2001:db8::2 ignored"""
    assert counts(text) == {
        ("udp-checksum", "192.0.2.7"): 1,
        ("tcp-out-of-window", None): 1,
        ("conntrack-full", None): 1,
        ("redirect-ignored", "203.0.113.11"): 1,
        ("redirect-ignored", "2001:db8::1"): 1,
    }


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (
            "nf_ct_tcp: SEQ is under the lower bound (already ACKed data retransmitted)",
            "out-of-window",
        ),
        ("nf_ct_proto_6: ACK is over upper bound 812 (ACKed data not seen yet)", "out-of-window"),
        ("nf_ct_proto_6: invalid new", "without-entry"),
        ("nf_ct_proto_6: packet (index 1) in dir 0 invalid, state SYN_SENT", "invalid"),
        ("nf_ct_proto_6: invalid packet ignored in state ESTABLISHED", "let-through"),
        ("nf_ct_tcp: bad TCP checksum", "bad-checksum"),
    ],
)
def test_conntracks_reasons_are_told_apart_with_whose_packet_it_was(words, kind):
    """In the words of old and of current kernels, which name the packet behind them."""
    packet = "IN=eth0 OUT= MAC=02:00 SRC=198.51.100.20 DST=203.0.113.10 LEN=60 PROTO=TCP SPT=1"
    assert counts(f"[1.5] {words} {packet}") == {(f"tcp-{kind}", "198.51.100.20"): 1}
    assert counts(words) == {(f"tcp-{kind}", None): 1}


def test_a_flood_of_senders_is_counted_in_bounded_memory(monkeypatch):
    """Beyond the limit lines count as of an unknown sender."""
    monkeypatch.setattr(kernel_log, "MAX_SENDERS", 2)
    text = "\n".join(f"ICMP: failed checksum from 192.0.2.{n}!" for n in range(5))
    assert counts(text) == {
        ("icmp-checksum", "192.0.2.0"): 1,
        ("icmp-checksum", "192.0.2.1"): 1,
        ("icmp-checksum", None): 3,
    }


def test_nothing_of_a_hostile_line_survives():
    """Only a parsed address is kept: no escapes, no shell, no zone."""
    text = "ICMP: failed checksum from 192.0.2.1;reboot!\nICMP: failed checksum from fe80::1%$(id)!"
    assert counts(text + "\nICMP: failed checksum from \x1b[31m1.2.3.4!") == {
        ("icmp-checksum", "192.0.2.1"): 1,
        ("icmp-checksum", "fe80::1"): 1,
        ("icmp-checksum", None): 1,
    }
    assert count(["x" * 10**6]) == ()
    assert count([]) == ()
    assert LogCount("a", None, 1) == LogCount("a", None, 1)
