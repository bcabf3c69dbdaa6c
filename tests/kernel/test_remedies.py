"""Remedies are pasted as root: complete, undoable, free of anything captured."""

from __future__ import annotations

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
        command.replace(" -I ", " -D ")
        .replace(" -A ", " -D ")
        .replace(" INPUT 1 ", " INPUT ")
        .replace(" INPUT 2 ", " INPUT ")
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
