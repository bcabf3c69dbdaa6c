"""What `pcapdiag inspect` prints and writes."""

from __future__ import annotations


def test_it_says_what_is_in_a_capture(run, place):
    """Format, link type, span, packets, protocols, services and ICMP errors by sender."""
    assert place.exists()
    ended = run("inspect", "director.pcap")
    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.startswith("Captured at director\n  role      director (given)\n")
    for words in (
        "director.pcap: pcap; ETHERNET; 5 packets; 2024-05-01 10:00:00 to 10:00:02 UTC (2.5 s)",
        "\n  packets   5",
        "\n  protocols tcp 4, icmp 1\n",
    ):
        assert words in ended.out
    line = next(line for line in ended.out.splitlines() if "fragmentation needed (3/4)" in line)
    assert "192.0.2.254" in line
    assert "next-hop MTU 1400" in line


def test_each_inference_says_how_sure_it_is(run, place):
    """A role that only a label gives is less sure than one that packets show."""
    assert place.exists()
    reasons = [
        line for line in run("inspect", "director.pcap").out.splitlines() if "because" in line
    ]
    assert reasons
    for line in reasons:
        assert line.endswith((" (low confidence)", " (medium confidence)", " (high confidence)"))


def test_it_gives_no_verdict(run, place):
    """No finding, no report."""
    before = sorted(place.iterdir())
    ended = run("inspect", "director.pcap", "rs1.pcap")
    assert ended.code == 0
    assert sorted(place.iterdir()) == before
    assert "Captured at rs1\n  role      realserver" in ended.out


def test_the_site_that_it_writes_is_one_that_analyze_reads(run, place):
    """What was inferred can be corrected and given back; a second run does not overwrite it."""
    assert run("inspect", "director.pcap", "rs1.pcap", "--write-site", "site.toml").code == 0
    written = (place / "site.toml").read_text()
    assert written.startswith("# Written by `pcapdiag inspect --write-site`")
    ended = run("analyze", "director.pcap", "rs1.pcap", "--site", "site.toml", "--no-html")
    assert ended.code == 0
    again = run("inspect", "director.pcap", "--write-site", "site.toml")
    assert again.code == 2
    assert "exists: it may have been corrected by hand" in again.errors[0]
    assert (place / "site.toml").read_text() == written


def test_a_capture_may_not_be_overwritten(run, place, captures):
    """--write-site does not take an input's place."""
    ended = run("inspect", "director.pcap", "--write-site", "director.pcap")
    assert ended.code == 2
    assert (place / "director.pcap").read_bytes() == captures.pcap


def test_what_cannot_be_read_is_told_and_the_rest_shown(run, place):
    """Exit code 3, with the others inspected all the same."""
    assert place.exists()
    ended = run("inspect", "director.pcap", "missing.pcap")
    assert ended.code == 3
    assert len(ended.errors) == 1
    assert "protocols" in ended.out
