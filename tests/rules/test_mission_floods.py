"""The five rules of the LVS-HOWTO's chapter on ICMP, each on half a million suspects."""

from __future__ import annotations

import floods
import polars as pl
import pytest
from pcapdiag.rules import (
    host_prohibited_established,
    icmp_checksum_burst,
    icmp_unreachable_not_forwarded,
    pmtud_blackhole,
    redirect_to_router,
)

from pcapdiag.result import MAX_EVIDENCE, MAX_FLOWS, Finding

OPEN = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs
0.003 c>s PA seq=1 ack=1 len=100 mac=x>d
0.0031 copy 5 ttl=63 mac=d>rs
0.010 s>c A seq=1 ack=101 len=1460 mac=rs>x id=7
"""
AFTER = "60 c2>s S seq=0 mac=x>d\n60.0001 copy {line} ttl=63 mac=d>rs\n"


def flooded(line, before=OPEN, **changed):
    """Return a director's capture that ends with half a million of the packet of `line`."""
    after = AFTER.format(line=len(before.strip().splitlines()) + 1)
    return floods.case(before + after + line, **changed)


CLIENTS = {"quoted_dst_port": 1024 + pl.col("n") % 60000, "quoted_ip_id": pl.col("n") % 65535 + 1}
ERROR = "1.0 r>s icmp {code} quote=7 mac=x>d ttl=60{more}"
RULES = {
    "checksum": (
        icmp_checksum_burst,
        ERROR.format(code="3/1", more=" sum=8000"),
        {"icmp_residual": (pl.col("n") % 60000 + 1), **CLIENTS},
    ),
    "prohibited": (host_prohibited_established, "1.0 s>c icmp 3/10 quote=5 mac=d>x", {}),
    "unreachable": (icmp_unreachable_not_forwarded, ERROR.format(code="3/1", more=""), {}),
    "pmtud": (pmtud_blackhole, ERROR.format(code="3/4", more=" mtu=1400"), {}),
    "redirect": (redirect_to_router, "1.0 d>x icmp 5/1 gw=rs quote=1 mac=d>x", {}),
}


@pytest.mark.parametrize("name", RULES)
def test_half_a_million_suspects_make_one_bounded_finding(name):
    """All are counted; frames, connections and replays are capped, whatever they say."""
    module, line, changed = RULES[name]
    findings = [
        item for item in module.check(flooded(line, **changed)) if isinstance(item, Finding)
    ]
    assert len(findings) == 1
    (finding,) = findings
    assert finding.count >= floods.COUNT // 2
    assert len(finding.evidence) <= MAX_EVIDENCE
    assert len(finding.flows) <= MAX_FLOWS
