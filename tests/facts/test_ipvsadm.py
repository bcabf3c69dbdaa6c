"""ipvsadm's words about time are read as it prints them, and nothing else is."""

from __future__ import annotations

import pytest

from pcapdiag.facts import ipvsadm
from pcapdiag.kernel.ipvs_timeouts import DEFAULT, Timeouts

LISTED = """IPVS connection entries
pro expire state       source             virtual            destination
TCP 59:58  ESTABLISHED 198.51.100.20:40000 203.0.113.10:80   203.0.113.11:80
TCP 14:07  ESTABLISHED 198.51.100.21:40000 203.0.113.10:80   203.0.113.12:80
TCP 01:51  FIN_WAIT    [2001:db8::20]:40001 [2001:db8:1::10]:80 [2001:db8:1::11]:80
UDP 04:59  UDP         198.51.100.20:5353 203.0.113.10:53    203.0.113.11:53
TCP 99:01  NONE        198.51.100.20:0    203.0.113.10:80    203.0.113.11:80
"""


def read(*texts):
    """Return the outputs that texts are, each read through."""
    outputs = []
    for text in texts:
        output = ipvsadm.Output()
        assert list(output.watched(text.splitlines())) == text.splitlines()
        outputs.append(output)
    return outputs


def test_the_timeouts_are_read_as_stated():
    """The one line of `ipvsadm -l --timeout`; the last of several counts."""
    (output,) = read("# ipvsadm -l --timeout\nTimeout (tcp tcpfin udp): 300 60 30\n")
    assert ipvsadm.together([output]) == Timeouts(300, 60, 30)
    later = read("Timeout (tcp tcpfin udp): 300 60 30", "Timeout (tcp tcpfin udp): 400 60 30")
    assert ipvsadm.together(later).established_s == 400


def test_entries_show_that_a_timeout_is_at_least_as_long():
    """Longer than the default only; persistence templates (NONE) have a time of their own."""
    (output,) = read(LISTED)
    assert output.entries == 4
    assert ipvsadm.together([output]) == Timeouts(59 * 60 + 58, 120, 300)


def test_what_is_stated_wins_over_entries():
    """An entry may be older than the last `ipvsadm --set`."""
    assert ipvsadm.together(read(LISTED, "Timeout (tcp tcpfin udp): 300 60 30")) == Timeouts(
        300, 60, 30
    )


@pytest.mark.parametrize(
    "text",
    [
        "Timeout (tcp tcpfin udp): 900 120",
        "Timeout (tcp tcpfin udp): 900 120 -1",
        "Timeout (tcp tcpfin udp): 99999999999 120 300",
        "kernel: Timeout (tcp tcpfin udp): 900 120 300",
        "TCP 14:99  ESTABLISHED 198.51.100.20:40000",
        "TCP 14:59  ESTABLISHED",
        "\x1b[2J",
        "",
    ],
)
def test_other_lines_say_nothing(text):
    """Neither broken numbers nor a line that somebody made a kernel print."""
    (output,) = read(text)
    assert (output.stated, output.entries) == (None, 0)
    assert ipvsadm.together([output]) == DEFAULT
