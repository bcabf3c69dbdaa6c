"""What mends paths is pasted as root, too: it can be checked first and taken back."""

from __future__ import annotations

import shlex

import pytest

from pcapdiag.kernel import path_remedies

CHANGING = [
    path_remedies.no_receive_offload("director"),
    path_remedies.errors_from_inbound_address("the router 192.0.2.1"),
    path_remedies.accept_fragments("director", 4),
    path_remedies.accept_fragments("director", 6),
    path_remedies.larger_inside_mtu("director", 1480, 20),
    path_remedies.capture_again("director", "tcpdump -ni IFACE"),
    path_remedies.capture_without_offload("director"),
    path_remedies.synchronise_clock("director"),
    path_remedies.no_generic_checksum_offload("rs1"),
    path_remedies.drop_source_quench("router", "192.0.2.1"),
    path_remedies.keep_forged_errors_out("router"),
]
LOOKING = [
    path_remedies.find_rewriter("192.0.2.1"),
    path_remedies.name_next_hop_mtu("the router 192.0.2.1", 4),
    path_remedies.name_next_hop_mtu("the router 2001:db8::1", 6),
    path_remedies.avoid_fragments(),
    path_remedies.find_corrupter("192.0.2.1"),
]


@pytest.mark.parametrize("remedy", CHANGING, ids=lambda remedy: remedy.action[:30])
def test_every_change_can_be_checked_kept_and_undone(remedy):
    """Each names a check, the commands, how to keep them and how to take them back."""
    assert remedy.where
    assert remedy.check
    assert remedy.persist
    assert remedy.risk
    assert len(remedy.undo) == len(remedy.commands) > 0


@pytest.mark.parametrize("remedy", LOOKING, ids=lambda remedy: remedy.action[:30])
def test_what_only_looks_changes_nothing(remedy):
    """A check to run, and no command."""
    assert remedy.check
    assert remedy.commands == ()


@pytest.mark.parametrize("remedy", CHANGING + LOOKING, ids=lambda remedy: remedy.action[:30])
def test_commands_are_shell_words(remedy):
    """Nothing that a shell would stumble over."""
    for command in (*remedy.check, *remedy.commands, *remedy.persist, *remedy.undo):
        shlex.split(command, comments=True)
