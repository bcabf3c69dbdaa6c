"""Senders' timers and fallbacks."""

from __future__ import annotations

import pytest

from pcapdiag.kernel import tcp_sender


@pytest.mark.parametrize(
    ("waits", "answer"),
    [([200, 400, 800], True), ([200, 410, 1020], True), ([200, 200, 200], False), ([200], False)],
)
def test_a_timer_backs_off_by_two(waits, answer):
    """RFC 6298 (5.5); one wait alone says nothing."""
    assert tcp_sender.backs_off([wait * 1_000_000 for wait in waits]) is answer


@pytest.mark.parametrize(
    ("payload", "mss"), [(1024, 1024), (1012, 1024), (1011, None), (512, 512), (1025, None)]
)
def test_probing_falls_back_to_known_sizes(payload, mss):
    """tcp_base_mss and its halves, with and without timestamps; exact on both sides."""
    assert tcp_sender.probing_mss(payload) == mss
