"""The samples say what they must and nothing else; the makers make them again byte for byte.

`PCAPDIAG_LAB=DIR pytest tests/test_samples.py` checks further sets of the same form: each folder in
DIR holds captures and a truth.json.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import sampled
import truths

from pcapdiag import engine
from pcapdiag.report import json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pcapdiag.result import Result

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "samples"
NOW_NS = 1_800_000_000 * 10**9
LARGEST_BYTES = 300_000
CLOCK_GRAIN_NS = 2_000  # pcap keeps microseconds

KNOWN = {
    *("pmtud-blackhole", "icmp-unreachable-not-forwarded", "redirect-to-router"),
    *("host-prohibited-established", "icmp-checksum-burst", "connection-expired-at-director"),
    *("realserver-gone", "realserver-ignores-vip", "service-refused", "icmp-error-unusable"),
    *("fragments-lost", "tunnel-mss-too-large", "nat-reply-bypasses-director", "vip-arp-conflict"),
    *("forwarding-loop", "transport-checksum-burst", "icmp-spoofed", "source-quench"),
    "capture-quality",
}
"""All rules that a truth may speak of, whether they are written yet or not."""

METHODS = {"-m": "nat", "-g": "dr", "-i": "tun"}
"""As ipvsadm calls them."""


def _folders() -> Iterator[Any]:
    roots = [SAMPLES]
    if "PCAPDIAG_LAB" in os.environ:
        roots.append(Path(os.environ["PCAPDIAG_LAB"]))
    for root in roots:
        for truth in sorted(root.glob("*/truth.json")):
            folder = truth.parent
            name = f"{root.name}-{folder.name}"
            yield pytest.param(folder, id=name, marks=sampled.alone(folder))


FOLDERS = list(_folders())
SOME = 16
"""Of so many samples one is analysed by another engine, too."""

SYNTHETIC = [item for item in FOLDERS if (item.values[0] / "make.py").exists()]


@cache
def _result(folder: Path) -> Result:
    return engine.analyze(sampled.loaded(folder), now_ns=NOW_NS)


def _reported(result: Result) -> set[str]:
    folded = {item.rule for finding in result.findings for item in finding.folded}
    return folded | {finding.rule for finding in result.findings}


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_rule_fails(folder):
    """Every rule comes to an end."""
    assert _result(folder).failed_rules == ()


@pytest.mark.parametrize("folder", FOLDERS[1::SOME])
def test_both_of_polars_engines_say_the_same(folder):
    """What judges large captures, the streaming engine, and what judges small ones agree."""
    with pl.Config() as config:
        config.set_engine_affinity("streaming")
        streamed = engine.analyze(sampled.load(folder), now_ns=NOW_NS)
    assert json.dumps(streamed) == json.dumps(_result(folder))


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_must_be_reported_is(folder):
    """Each demanded rule reports, by itself or folded into the finding that explains it."""
    wanted = {truths.rule(entry) for entry in truths.demands(truths.read(folder))}
    assert wanted - _reported(_result(folder)) == set()


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_truth_names_rules_that_are_known(folder):
    """No demand is lost by a misspelt rule."""
    truth = truths.read(folder)
    lists = ("must_report", "may_report", "must_not_report")
    named = {truths.rule(entry) for name in lists for entry in truth.get(name, [])}
    assert named - KNOWN == set()


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_else_is_reported(folder):
    """A finding that the truth neither demands nor allows is wrong."""
    truth = truths.read(folder)
    entries = [*truth["must_report"], *truth.get("may_report", [])]
    allowed = {truths.rule(entry) for entry in entries} | truths.ALWAYS_ALLOWED
    forbidden = {truths.rule(entry) for entry in truth["must_not_report"]}
    assert forbidden & allowed == set()
    said = {
        finding.rule: finding.summary
        for finding in _result(folder).findings
        if finding.rule not in allowed
    }
    assert said == {}
    assert _reported(_result(folder)) - allowed == set()


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_connections_hit_are_named(folder):
    """A demanded finding names every connection that was hit, and none that was not."""
    truth = truths.read(folder)
    for entry in truths.demands(truth):
        found = truths.findings(_result(folder), truths.rule(entry))
        named = {flow.client for finding in found for flow in finding.flows}
        hit = truths.clients(truth, entry.get("flows", []))
        also = truths.clients(truth, entry.get("may_flows", []))
        assert hit - named == set(), entry["id"]
        if hit:
            assert named - hit - also == set(), entry["id"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_cause_is_the_true_one(folder):
    """A rule that reports names a cause that the fault implies, and no other."""
    entries = truths.allowances(truths.read(folder))
    right: dict[str, set[str]] = {}
    for entry in entries:
        right.setdefault(truths.rule(entry), set()).update(truths.causes(entry))
    open_ones = {truths.rule(entry) for entry in entries if not truths.causes(entry)}
    findings = _result(folder).findings
    said = {(item.rule, item.cause.code) for finding in findings for item in finding.folded}
    said |= {(finding.rule, finding.cause.code) for finding in findings}
    judged = {item for item in said if item[0] in right.keys() - open_ones}
    assert {item for item in judged if item[1] not in right[item[0]]} == set()


@pytest.mark.parametrize("folder", [item for item in FOLDERS if "-lab-" in item.id])
def test_the_lab_names_the_cause_of_all_that_it_allows(folder):
    """What was done is known, and so is the cause of whatever may be said about it."""
    entries = truths.allowances(truths.read(folder))
    assert [truths.rule(entry) for entry in entries if not truths.causes(entry)] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_hosts_involved_are_named(folder):
    """A finding says on which hosts the fault shows, by name, address or MAC."""
    truth = truths.read(folder)
    for entry in truths.demands(truth):
        found = truths.findings(_result(folder), truths.rule(entry))
        if not any(finding.rule == truths.rule(entry) for finding in found):
            continue  # folded: the leading finding's hosts are the leading rule's
        words = {word for finding in found for word in truths.words(finding)}
        for host in entry.get("hosts", []):
            assert words & truths.names(truth, host), (entry["id"], host, words)


@pytest.mark.parametrize("folder", FOLDERS)
def test_facts_agree(folder):
    """What the truth says in numbers and words, the finding's facts say, too."""
    for entry in truths.demands(truths.read(folder)):
        for finding in _result(folder).findings:
            if finding.rule == truths.rule(entry):
                facts = {name: finding.facts.get(name) for name in entry.get("facts", {})}
                assert facts == entry.get("facts", {})


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_frames_that_prove_it_are_cited(folder):
    """At least one of the frames known to be proof is primary evidence."""
    for entry in truths.demands(truths.read(folder)):
        proof = {
            (file, frame) for file, frames in entry.get("cited", {}).items() for frame in frames
        }
        cited = {
            (Path(item.file).name, item.frame)
            for finding in truths.findings(_result(folder), truths.rule(entry))
            for item in finding.evidence
            if item.role == "primary" or finding.rule != truths.rule(entry)
        }
        assert not proof or proof & cited, entry["id"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_cited_frames_exist(folder):
    """No evidence lies beyond the end of its file or at another vantage than the file's."""
    truth = truths.read(folder)
    lengths = {item["file"]: item["frames"] for item in truth["captures"]}
    vantages = {item["file"]: truths.vantage(truth, item) for item in truth["captures"]}
    for finding in _result(folder).findings:
        for item in finding.evidence:
            name = Path(item.file).name
            assert 1 <= item.frame <= lengths[name]
            assert item.vantage == vantages[name]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_services_are_recognised(folder):
    """Each virtual service is inferred with its method and the realservers that were used."""
    truth = truths.read(folder)
    cluster = _result(folder).cluster
    inferred = {(item.protocol, item.vip, item.port): item for item in cluster.services}
    for service in truth["services"]:
        if service.get("port") is None:
            continue
        found = inferred[service["proto"], service["vip"], service["port"]]
        assert found.method == METHODS[service["method"]]
        assert found.realservers
        assert set(found.realservers) <= set(service["rips"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_clocks_are_aligned(folder):
    """Each vantage's offset is the true one within the error that is stated with it."""
    truth = truths.read(folder)
    true_ns = {
        truths.vantage(truth, item): round(item.get("clock_offset_s", 0) * 1e9)
        for item in truth["captures"]
    }
    vantages = {item.name: item for item in _result(folder).vantages}
    reference = next(name for name, item in vantages.items() if item.clock_offset_ns == 0)
    for name, item in vantages.items():
        if item.clock_offset_ns is not None and item.clock_error_ns is not None:
            wanted = true_ns[reference] - true_ns[name]
            assert abs(item.clock_offset_ns - wanted) <= item.clock_error_ns + CLOCK_GRAIN_NS


@pytest.mark.parametrize("folder", [item for item in FOLDERS if "samples" in item.id])
def test_a_sample_is_complete(folder):
    """A sample has its captures, none of them large, and a README that tells where to look."""
    truth = truths.read(folder)
    files = {item["file"] for item in truth["captures"]}
    kept = {path.name for path in folder.iterdir() if path.is_file()}
    assert kept - {"make.py"} == files | {"truth.json", "README.md"}
    assert all((folder / name).stat().st_size < LARGEST_BYTES for name in files)
    readme = (folder / "README.md").read_text()
    assert truth["look_at"]
    assert all(f"| {item['file']} | {item['frames'][0]}" in readme for item in truth["look_at"])
    assert all(f"=samples/{folder.name}/{name}" in readme for name in files)
    assert all(f"`{entry['id']}`" in readme for entry in truth["must_report"])
    assert f"[{folder.name}]({folder.name}/)" in (SAMPLES / "README.md").read_text()


def test_every_maker_makes_the_same_bytes_again():
    """`samples/make.py --check` finds no difference."""
    done = subprocess.run(
        [sys.executable, SAMPLES / "make.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


TSHARK = (
    *("-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"),
    *("-o", "udp.check_checksum:TRUE", "-o", "tcp.desegment_tcp_streams:FALSE"),
    *("-o", "ip.defragment:FALSE"),  # the next capture holds the same fragments
)
BAD = "0"
"""Of tshark's checksum status fields; 1 is good, 2 unverified."""


TOGETHER = 9
"""Samples that one tshark reads: it starts slower than it reads them."""


def _groups() -> Iterator[Any]:
    """Yield the samples that were made, for one worker those that one tshark reads."""
    for number, item in enumerate(SYNTHETIC):
        group = number // TOGETHER
        mark = pytest.mark.xdist_group(f"tshark-reads-{group}")
        yield pytest.param(group, item.values[0], id=item.id, marks=mark)


@lru_cache(maxsize=1)
def _seen(group: int) -> dict[Path, list[dict[str, str]]]:
    """Return the frames of all captures of each sample of a group as tshark reads them."""
    folders = [item.values[0] for item in SYNTHETIC[group * TOGETHER :][:TOGETHER]]
    listed = {folder: truths.read(folder)["captures"] for folder in folders}
    rest = iter(
        _tshark([folder / item["file"] for folder, items in listed.items() for item in items])
    )
    counts = {folder: sum(item["frames"] for item in items) for folder, items in listed.items()}
    seen = {folder: list(itertools.islice(rest, count)) for folder, count in counts.items()}
    assert list(rest) == []
    return seen


@pytest.mark.needs("tshark", "mergecap")
@pytest.mark.parametrize(("group", "folder"), list(_groups()))
def test_tshark_finds_only_the_intended_faults(group, folder):
    """An independent dissector sees as many frames, none malformed, and the same bad checksums."""
    captures = truths.read(folder)["captures"]
    every = _seen(group)[folder]
    assert len(every) == sum(capture["frames"] for capture in captures)
    for capture in captures:
        rows, every = every[: capture["frames"]], every[capture["frames"] :]
        whole = [row for row in rows if row["frame.len"] == row["frame.cap_len"]]
        assert {row["_ws.malformed"] for row in whole} == {""}
        count = {"tcp": 0, "icmp": 0}
        for row in whole:
            icmp = row["icmp.checksum.status"] or row["icmpv6.checksum.status"]
            count["icmp"] += icmp == BAD
            if icmp:  # the last IP header is quoted, and so is what follows it
                assert BAD not in row["ip.checksum.status"].split(",")[:-1]
                continue
            count["tcp"] += row["tcp.checksum.status"] == BAD
            assert BAD not in row["ip.checksum.status"].split(",")
            assert row["udp.checksum.status"] != BAD
        assert count == capture["bad_checksums"], capture["file"]


def _tshark(paths: list[Path]) -> list[dict[str, str]]:
    """Return the frames of one capture after another: tshark starts slower than it reads."""
    names = ["frame.len", "frame.cap_len", "_ws.malformed"]
    names += [f"{name}.checksum.status" for name in ("ip", "tcp", "udp", "icmp", "icmpv6")]
    wanted = [word for name in names for word in ("-e", name)]
    together = subprocess.run(
        ["mergecap", "-a", "-w", "-", *paths], capture_output=True, check=True
    )
    done = subprocess.run(
        ["tshark", "-n", "-r", "-", *TSHARK, "-T", "fields", *wanted],
        input=together.stdout,
        capture_output=True,
        check=True,
    )
    lines = done.stdout.decode().split("\n")[:-1]
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines]
