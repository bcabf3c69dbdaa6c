"""Rules judge groups, not rows: many suspects are no matter and fit into a finding."""

from __future__ import annotations

import floods
import pytest
from stories import case

from pcapdiag import registry
from pcapdiag.result import MAX_FLOWS, Finding

DR = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs
0.003 c>s PA seq=1 ack=1 len=100 mac=x>d
0.0031 copy 5 ttl=63 mac=d>rs
905.0 c>s PA seq=101 ack=401 len=100 mac=x>d
905.1 s>c R seq=401 id=0 mac=d>x
"""

REFUSED = DR + "906.0 c2>s S seq=0 mac=x>d\n906.1 s>c2 icmp 3/3 quote=9 mac=d>x\n"

UNREACHABLE = DR + "906.0 c2>s S seq=0 mac=x>d\n909.1 d>c2 icmp 3/1 quote=9 mac=d>x\n"

UNTRANSLATED = """
0.000 c>s S seq=0 mss=1460 mac=x>d ttl=60
0.0001 c>rs S seq=0 mss=1460 mac=d>rs ttl=59 id=1
0.001 rs>c SA seq=0 ack=1 mss=1460 mac=rs>d
0.0011 s>c SA seq=0 ack=1 mss=1460 mac=d>x ttl=63 id=1
0.002 c>s PA seq=1 ack=1 len=9 mac=x>d ttl=60
0.0021 c>rs PA seq=1 ack=1 len=9 mac=d>rs ttl=59 id=2
5.000 rs>c PA seq=1 ack=10 len=10 mac=rs>d id=9
5.0001 copy 7 ttl=63 mac=d>x
"""

LOOP = f"{DR}910.0 c2>s S seq=0 ttl=60 mac=x>d\n" + "".join(
    f"{910 + n / 1000} copy 9 ttl={60 - n} mac={'d>rs' if n % 2 else 'rs>d'}\n" for n in range(1, 8)
)
TWO_ANSWERS = DR + "906.0 d>x arp reply is=s\n906.001 rs>x arp reply is=s\n"

SUSPECTS = {
    "connection-expired-at-director": ("forgotten", DR),
    "service-refused": ("refused_requests", REFUSED),
    "realserver-gone": ("vanished", UNREACHABLE),
    "nat-reply-bypasses-director": ("detours", UNTRANSLATED),
    "forwarding-loop": ("loops", LOOP),
    "vip-arp-conflict": ("two_answers", TWO_ANSWERS),
}
"""Rule: the measurement of a case that holds its suspects, and a trace in which it has one."""


@pytest.mark.parametrize("name", SUSPECTS)
def test_many_suspects_become_few_findings(name):
    """The measurement's rows are repeated; the findings list some of them."""
    measured, text = SUSPECTS[name]
    judged = case(director=text)
    rows = getattr(judged, measured)
    judged.__dict__[measured] = floods.repeated(rows)
    findings = [item for item in registry.rules()[name].check(judged) if isinstance(item, Finding)]
    assert findings
    assert all(len(finding.flows) <= MAX_FLOWS for finding in findings)
