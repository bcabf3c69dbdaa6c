"""icmp-unreachable-not-forwarded judges only what a director had to pass on and was seen doing."""

from __future__ import annotations

import polars as pl
import pytest
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


def test_what_passes_meanwhile_argues_for_a_filter_in_front_of_ip_vs():
    """The same connection's data is forwarded after the errors: the entry was there."""
    (finding,), _, _ = judge(director=story("icmp 3/1", "icmp 3/1", "icmp 3/1", copies=False))
    assert finding.facts["packets_forwarded_meanwhile"] == 1
    assert "accepts the service's port and not ICMP" in finding.summary


def test_one_kind_that_passes_and_another_that_does_not_is_a_filter_by_type():
    """ip_vs treats types 3 and 11 alike, a firewall rule need not; both sides of three."""
    passing = story(*["icmp 11/0"] * 3, on=False)
    for count, code in ((3, "dropped-by-firewall-suspected"), (2, "swallowed-by-director")):
        lines = passing.splitlines()[: 7 + 2 * count]
        lines += [f"{2 + n:.1f} r>s icmp 3/4 mtu=1400 quote=7 mac=x>d ttl=60" for n in range(3)]
        lines += [
            "9.0 c>s A seq=101 ack=1461 mac=x>d",
            f"9.1 copy {len(lines) + 1} ttl=63 mac=d>rs",
        ]
        (finding,), _, _ = judge(director="\n".join(lines))
        assert finding.cause.code == code


def test_the_price_is_counted_at_the_realserver():
    """Its repetitions after the first error, and how many errors each packet got."""
    director = story(*["icmp 3/1"] * 3, copies=False)
    rs1 = """
0.0002 c>s S seq=0 mss=1460 ttl=63 mac=d>rs
0.0022 c>s A seq=1 ack=1 ttl=63 mac=d>rs
0.0032 c>s PA seq=1 ack=1 len=100 ttl=63 mac=d>rs
0.0033 s>c A seq=1 ack=101 len=1460 mac=rs>x id=77
1.2 s>c A seq=1 ack=101 len=1460 mac=rs>x id=78
1.6 s>c A seq=1 ack=101 len=1460 mac=rs>x id=79
9.0002 c>s A seq=101 ack=1461 ttl=63 mac=d>rs
"""
    (finding,), _, _ = judge(director=director, rs1=rs1)
    assert finding.facts["repeated_after_the_error"] == 2
    assert finding.facts["errors_for_each_packet"] == 3.0
    assert "2 packets sent again after the first error, 3 errors for 1 packets" in finding.summary


TWO = """
0.000 c>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs
0.003 c:40001>s S seq=0 mss=1460 mac=x>d id=50
0.0031 copy 5 ttl=63 mac=d>rs2
0.004 c:40001>s A seq=1 ack=1 mac=x>d id=51
0.0041 copy 7 ttl=63 mac=d>rs2
0.005 s>c A seq=1 ack=1 len=1460 mac=rs>x id=77
0.006 s>c:40001 A seq=1 ack=1 len=1460 mac=rs2>x id=78
"""


def two(first, second):
    """Return errors about a client's two connections, each handed to the named realserver."""
    lines = TWO.strip().splitlines()
    for number, receiver in enumerate([first, second] * 3):
        quoted = 9 + number % 2
        lines.append(
            f"{1 + number / 10} r>s icmp 3/1 quote={quoted} mac=x>d ttl=60 id={90 + number}"
        )
        lines.append(f"{1.0001 + number / 10} copy {len(lines)} ttl=59 mac=d>{receiver}")
    lines += ["9.0 c>s A seq=1 ack=1 mac=x>d id=60", f"9.1 copy {len(lines) + 1} ttl=63 mac=d>rs"]
    return "\n".join(lines)


def test_two_connections_of_one_client_get_each_its_own():
    """The quote decides, not the client's address: both ways round."""
    findings, clean, _ = judge(director=two("rs", "rs2"))
    assert findings == []
    assert clean[0].examined.icmp_errors == 6
    (finding,), _, _ = judge(director=two("rs", "rs"))
    assert finding.cause.code == "wrong-realserver"
    assert finding.flow_count == 1
    assert finding.facts["messages"] == 3


NAT = """
0.000 c>s S seq=0 mss=1460 mac=x>d id=1
0.0001 c>rs S seq=0 mss=1460 mac=d>rs ttl=63 id=1
0.001 rs>c SA seq=0 ack=1 mac=rs>d id=7
0.0011 s>c SA seq=0 ack=1 mac=d>x ttl=63 id=7
0.002 c>s A seq=1 ack=1 mac=x>d id=2
0.0021 c>rs A seq=1 ack=1 mac=d>rs ttl=63 id=2
0.003 c>s PA seq=1 ack=1 len=100 mac=x>d id=3
0.0031 c>rs PA seq=1 ack=1 len=100 mac=d>rs ttl=63 id=3
"""


def nat(leaving):
    """Return three errors of a NAT realserver about its client's packets, and what left."""
    lines = NAT.strip().splitlines()
    for number in range(3):
        lines.append(f"{1 + number} rs>c icmp 3/3 quote=8 mac=rs>d id={70 + number}")
        lines += [f"{1.0001 + number} {leaving} mac=d>x ttl=63 id={70 + number}"] * bool(leaving)
    lines += [
        "8.9 rs>c A seq=1 ack=101 mac=rs>d id=9",
        "8.9001 s>c A seq=1 ack=101 mac=d>x ttl=63 id=9",
        "9.0 c>s A seq=101 ack=1 mac=x>d id=4",
        "9.0001 c>rs A seq=101 ack=1 mac=d>rs ttl=63 id=4",
    ]
    return "\n".join(lines) + "\n"


def test_a_nat_realservers_own_errors_must_leave_as_the_vip():
    """Translated outside and in the quote, or a fault: swallowed, or the quote left as it was."""
    findings, clean, _ = judge(director=nat("s>c icmp 3/3 quote=7"))
    assert findings == []
    assert clean
    (finding,), _, _ = judge(director=nat(""))
    assert finding.cause.code == "swallowed-by-director"
    assert finding.scope.direction == "to-client"
    (finding,), _, _ = judge(director=nat("s>c icmp 3/3 quote=8"))
    assert finding.cause.code == "wrong-translation"
    assert finding.scope.direction == "to-client"


AT_ANOTHER = """
0.000 c2>s S seq=0 mss=1460 mac=x>d
0.0001 copy 1 ttl=63 mac=d>rs
0.002 c2>s A seq=1 ack=1 mac=x>d
0.0021 copy 3 ttl=63 mac=d>rs
1.0 s>c A seq=1 ack=6001 len=1460 id=77 unseen
1.1 r>s icmp 3/4 mtu=1400 quote=5 mac=x>d ttl=60 id=901 !
1.2 r>s icmp 3/4 mtu=1400 quote=5 mac=x>d ttl=60 id=902 !
1.4 r>s icmp 3/4 mtu=1400 quote=5 mac=x>d ttl=60 id=903 !
9.0 c2>s A seq=1 ack=1 mac=x>d id=40
9.0001 copy 9 ttl=63 mac=d>rs
"""


@pytest.mark.parametrize(("packets", "found"), [(60, 1), (2, 0)])
def test_errors_at_a_director_that_never_had_the_connection(packets, found):
    """ECMP: the client's packets go by another director. Few packets would prove nothing."""
    rs1 = "".join(
        (
            "0.0002 c2>s S seq=0 mss=1460 ttl=63 mac=d>rs\n",
            "0.0022 c2>s A seq=1 ack=1 ttl=63 mac=d>rs\n",
            *(
                f"{0.1 + n / 100:.2f} c>s PA seq={1 + 100 * n} ack=1 len=100 ttl=63 mac=x>rs\n"
                for n in range(packets)
            ),
            f"1.0 s>c A seq=1 ack={1 + 100 * packets} len=1460 mac=rs>x id=77\n",
            "9.0002 c2>s A seq=1 ack=1 ttl=63 mac=d>rs id=40\n",
        )
    )
    findings, _, not_examined = judge(director=AT_ANOTHER, rs1=rs1)
    assert [item.cause.code for item in findings] == ["no-connection-entry"] * found
    if found:
        assert cited(findings[0]) == marked(director=AT_ANOTHER)
    else:
        assert "was seen to pass this director" in not_examined[0].reason


def test_a_connection_older_than_the_directors_capture_is_not_a_strangers():
    """Its packets may have passed before the capture began."""
    earlier = "".join(
        f"{0.1 + n / 100:.2f} c>s PA seq={1 + 100 * n} ack=1 len=100 ttl=63 mac=x>rs\n"
        for n in range(60)
    )
    rs1 = earlier + "3.0 s>c A seq=1 ack=6001 len=1460 mac=rs>x id=77\n"
    later = "\n".join(
        f"{float(line.split()[0]) + 2:.4f} {line.split(maxsplit=1)[1]}"
        for line in AT_ANOTHER.strip().splitlines()
    )
    assert judge(director=later, rs1=rs1)[0] == []


def two_directors(errors_at, apart):
    """Return captures of a stranger and of the owner (MAC of `r`) of the connection of `c`.

    Three errors about it reach one of the two. `apart`: seconds that the owner's clock is ahead.
    """
    stranger, owner = AT_ANOTHER.strip().splitlines()[:4], ["0.05 c>s S seq=0 mss=1460 mac=x>r"]
    owner += ["0.0501 copy 1 ttl=63 mac=r>rs"]
    rs1 = ["0.0002 c2>s S seq=0 mss=1460 ttl=63 mac=d>rs", "0.0502 c>s S mss=1460 ttl=63 mac=r>rs"]
    for number in range(60):
        at, data = 0.1 + number / 100, f"c>s PA seq={1 + 100 * number} ack=1 len=100"
        owner += [f"{at:.4f} {data} mac=x>r", f"{at + 0.0001:.4f} copy {len(owner) + 1} mac=r>rs"]
        owner[-1] += " ttl=63"
        rs1 += [f"{at + 0.0002:.4f} {data} ttl=63 mac=r>rs"]
    rs1 += ["1.0 s>c A seq=1 ack=6001 len=1460 mac=rs>x id=77"]
    told, mac = (owner, "r") if errors_at == "owner" else (stranger, "d")
    told += [rs1[-1].replace("mac=rs>x", "unseen")]
    quoted = len(told)
    told += [
        f"{at} r>s icmp 3/4 mtu=1400 quote={quoted} mac=x>{mac} ttl=60 id={number} !"
        for number, at in enumerate((1.1, 1.2, 1.4))
    ]
    for lines, client, mac in ((stranger, "c2", "d"), (owner, "c", "r")):
        lines += [f"9.0 {client}>s A seq=1 ack=1 mac=x>{mac} id=400"]
        lines += [f"9.0001 copy {len(lines)} ttl=63 mac={mac}>rs"]
        rs1 += [f"9.0002 {client}>s A seq=1 ack=1 ttl=63 mac={mac}>rs id=400"]
    ahead = [
        f"{float(time) + apart:.4f} {rest}"
        for time, rest in (line.split(maxsplit=1) for line in owner)
    ]
    captures = {"director": stranger, "director2": ahead, "rs1": rs1}
    return {name: "\n".join(lines) for name, lines in captures.items()}


@pytest.mark.parametrize("apart", [0, 3, -3])
@pytest.mark.parametrize(
    ("errors_at", "code"),
    [("stranger", "no-connection-entry"), ("owner", "swallowed-by-director")],
)
def test_of_two_directors_the_one_without_the_connection_is_a_stranger(errors_at, code, apart):
    """Each is asked what it forwarded itself, however far the clocks of the two are apart."""
    texts = two_directors(errors_at, apart)
    (finding,), clean, _ = judge(**texts)
    assert finding.cause.code == code
    assert cited(finding) == marked(**texts)
    assert clean == []


def test_of_reasons_that_are_as_frequent_always_the_same_is_named():
    """Which of two groups comes first is chance; what is said of them is not."""
    errors = pl.DataFrame(
        {
            "message": [0, 1],
            "director_vantage": [0, 0],
            "service_name": ["tcp 203.0.113.10:80"] * 2,
            "verdict": ["unknown"] * 2,
            "reason": ["checksum-bad", "capture-ends-too-early"],
            "connection": [1, 2],
        }
    )
    none = errors.select("message", "director_vantage").clear()
    said = [icmp_unreachable_not_forwarded._rest(errors, none) for _ in range(30)]
    assert len({outcome.reason for outcomes in said for outcome in outcomes}) == 1
