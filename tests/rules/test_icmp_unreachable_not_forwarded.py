"""icmp-unreachable-not-forwarded judges only what a director had to pass on and was seen doing."""

from __future__ import annotations

from pcapdiag.rules import icmp_unreachable_not_forwarded
from stories import case, cited, marked

from pcapdiag.result import Clean, Confidence, Finding, NotExamined

FORWARDING = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs
0.003 c>s PA seq=1 ack=1 len=100 mac=x>d
0.0031 copy 5 ttl=63 mac=d>rs
"""
ON = """
9.000 c>s A seq=101 ack=1461 mac=x>d
9.0001 copy {line} ttl=63 mac=d>rs
"""
REPLY = "0.0005 s>c A seq=1 ack=101 len=1460 mac=rs>x id=77\n"


def story(*errors, copies=True, on=True):
    """Return a director's capture with a reply in it to quote, errors about it and their copies."""
    lines = [line for line in (FORWARDING + REPLY).splitlines() if line]
    quoted = len(lines)
    for number, error in enumerate(errors):
        lines.append(
            f"{1 + number * 0.2:.4f} r>s {error} quote={quoted} mac=x>d ttl=60 id={900 + number}"
        )
        if copies:
            lines.append(f"{1 + number * 0.2 + 0.0001:.4f} copy {len(lines)} ttl=59 mac=d>rs")
    if on:
        lines += ON.format(line=len(lines) + 1).split("\n")[1:3]
    return "\n".join(lines) + "\n"


def judge(**texts):
    """Return the rule's findings, clean verdicts and questions not examined."""
    outcomes = list(icmp_unreachable_not_forwarded.check(case(**texts)))
    return (
        [item for item in outcomes if isinstance(item, Finding)],
        [item for item in outcomes if isinstance(item, Clean)],
        [item for item in outcomes if isinstance(item, NotExamined)],
    )


def test_errors_that_came_in_and_never_left():
    """Each swallowed error is cited at the director, with high confidence from three on."""
    text = story("icmp 3/1", "icmp 3/1", "icmp 3/1", copies=False)
    text = "\n".join(line + " !" * ("icmp" in line) for line in text.splitlines())
    (finding,), clean, _ = judge(director=text)
    assert finding.cause.code == "swallowed-by-director"
    assert finding.confidence is Confidence.HIGH
    assert cited(finding) == marked(director=text)
    assert finding.flow_count == 1
    assert clean == []


def test_a_single_missing_copy_is_at_most_low():
    """One packet may be missing from any capture."""
    (finding,), _, _ = judge(director=story("icmp 3/1", copies=False))
    assert finding.confidence is Confidence.LOW


def test_forwarded_errors_are_clean():
    """Errors with their copies on the way to the realserver are what IPVS must do."""
    findings, clean, _ = judge(director=story("icmp 3/4 mtu=1400", "icmp 11/0"))
    assert findings == []
    assert clean[0].examined.icmp_errors == 2


def test_redirects_and_parameter_problems_stay_with_the_director():
    """ip_vs_in_icmp looks at types 3, 4 and 11 only."""
    findings, _, _ = judge(director=story("icmp 5/1 gw=x", "icmp 12/0", copies=False))
    assert findings == []


def test_a_capture_that_ends_too_early_says_nothing():
    """Within the last second a copy may just not have been written yet."""
    findings, _, not_examined = judge(
        director=story("icmp 3/1", "icmp 3/1", "icmp 3/1", copies=False, on=False)
    )
    assert findings == []
    assert not_examined


def test_where_nothing_is_seen_leaving_nothing_is_claimed():
    """A capture of the outside interface only cannot show what went in."""
    whole = story("icmp 3/1", "icmp 3/1", "icmp 3/1", copies=False).splitlines()
    kept = [line for line in whole if "copy" not in line and "s>c" not in line]
    text = "\n".join(kept).replace("quote=7", "quote=3")
    findings, _, _ = judge(director=text)
    assert findings == []
