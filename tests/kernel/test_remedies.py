"""Remedies are pasted as root: complete, undoable, free of anything captured."""

from __future__ import annotations

import re
import shlex

import pytest

from pcapdiag.kernel import remedies

EXAMPLES = [
    remedies.accept_icmp_errors("director", 4),
    remedies.accept_icmp_errors("director", 6),
    remedies.probe_mtu("rs1"),
    remedies.clamp_mss("rs1", 4, 1400),
    remedies.clamp_mss("rs1", 6, 1400),
    remedies.stop_redirects("director"),
    remedies.forget_redirects("rs1"),
    remedies.accept_before_state("rs1", 4, "203.0.113.10", 80, "tcp"),
    remedies.accept_before_state("rs1", 6, "2001:db8::10", 80, "tcp"),
    remedies.accept_before_state_nft("rs1", 4, "203.0.113.10", 80, "tcp"),
    remedies.exempt_from_tracking("rs1", 4, "203.0.113.10", 80, "tcp"),
    remedies.exempt_from_tracking_nft("rs1", 6, "2001:db8::10", 80, "tcp"),
    remedies.loosen_tracking("rs1"),
]


@pytest.mark.parametrize("remedy", EXAMPLES, ids=lambda remedy: remedy.action[:30])
def test_every_remedy_can_be_checked_kept_and_undone(remedy):
    """Each names a check, the commands, how to keep them and how to take them back."""
    assert remedy.where
    assert remedy.check
    assert remedy.commands
    assert remedy.persist
    assert remedy.undo
    for command in (*remedy.check, *remedy.commands, *remedy.persist, *remedy.undo):
        assert shlex.split(command)


@pytest.mark.parametrize("remedy", EXAMPLES, ids=lambda remedy: remedy.action[:30])
def test_undo_takes_back_each_inserted_rule(remedy):
    """For each rule that is added or inserted the same one is deleted."""
    added = sorted(
        re.sub(r" -[IA] ([A-Z]+)(?: \d+)?", r" -D \1", command)
        for command in remedy.commands
        if "tables" in command
    )
    assert added == sorted(command for command in remedy.undo if "tables" in command)


def test_ipv6_remedies_use_ip6tables_and_its_own_mss():
    """An MTU of 1400 leaves an MSS of 1360 in IPv4 and 1340 in IPv6 (RFC 9293 section 3.7.1)."""
    (four,) = remedies.clamp_mss("rs1", 4, 1400).commands
    (six,) = remedies.clamp_mss("rs1", 6, 1400).commands
    assert four.startswith("iptables ")
    assert four.endswith("--set-mss 1360")
    assert six.startswith("ip6tables ")
    assert six.endswith("--set-mss 1340")


@pytest.mark.parametrize(
    "hostile", ["eth0;reboot", "-z sh", "a\nreboot", "$(id)", "\u202eeth0", ""]
)
def test_only_what_was_parsed_enters_a_command(hostile):
    """Names, addresses and protocols that are none become placeholders; prose is cleaned."""
    made = [
        remedies.accept_before_state(hostile, 4, hostile, 80, hostile),
        remedies.accept_before_state_nft(hostile, 6, hostile, 80, hostile),
        remedies.exempt_from_tracking(hostile, 4, hostile, 80, hostile),
        remedies.exempt_from_tracking_nft(hostile, 4, hostile, 80, hostile),
        remedies.stop_redirects(hostile, hostile),
        remedies.forget_redirects(hostile, hostile),
        remedies.find_checksum_breaker(hostile),
        remedies.find_checksum_breaker(f"fe80::1%{hostile}"),
    ]
    for remedy in made:
        lines = (*remedy.check, *remedy.commands, *remedy.persist, *remedy.undo)
        assert all(line.isprintable() for line in (*lines, remedy.where))
        assert not hostile or not any(hostile in line for line in lines)


def test_an_interface_with_a_dot_is_one_part_of_a_sysctl_key():
    """sysctl(8): a slash stands for the dot of a VLAN interface's name."""
    assert "net.ipv4.conf.eth0/100.send_redirects=0" in "".join(
        remedies.stop_redirects("director", "eth0.100").commands
    )
