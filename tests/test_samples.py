"""The samples say what they must and nothing else; the makers make them again byte for byte.

`PCAPDIAG_LAB=DIR pytest tests/test_samples.py` checks further sets of the same form: each folder in
DIR holds captures and a truth.json.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pcapdiag import engine, registry
from pcapdiag.capture.vantages import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pcapdiag.result import Finding, Result

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "samples"
NOW_NS = 1_800_000_000 * 10**9
LARGEST_BYTES = 300_000
CLOCK_GRAIN_NS = 2_000  # pcap keeps microseconds

ALIASES = {
    "icmp-port-unreachable-expired": "connection-expired-at-director",
    "rst-from-director-expired": "connection-expired-at-director",
    "redirect-to-realserver": "redirect-to-router",
    "fragments-dropped": "fragments-lost",
}
"""Words of older truth files for what is a rule now."""

ALWAYS_ALLOWED = {"capture-quality"}
"""A remark on the captures themselves is never wrong about the cluster."""

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

ROLE_WORDS = ("director", "lb", "rs", "realserver", "real", "client", "router", "fw")


def _folders() -> Iterator[Any]:
    roots = [SAMPLES]
    if "PCAPDIAG_LAB" in os.environ:
        roots.append(Path(os.environ["PCAPDIAG_LAB"]))
    for root in roots:
        for truth in sorted(root.glob("*/truth.json")):
            yield pytest.param(truth.parent, id=f"{root.name}-{truth.parent.name}")


FOLDERS = list(_folders())
SYNTHETIC = [item for item in FOLDERS if (item.values[0] / "make.py").exists()]


@cache
def _truth(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "truth.json").read_text())


def _vantage(truth: dict[str, Any], capture: dict[str, Any]) -> str:
    """Return the label of a capture: its vantage, or a name that begins with the host's role."""
    if "vantage" in capture:
        return capture["vantage"]
    host = capture["host"]
    first = re.split(r"[-_.\d]", host)[0]
    return host if first in ROLE_WORDS else f"{truth['hosts'][host]['role']}-{host}"


@cache
def _result(folder: Path) -> Result:
    truth = _truth(folder)
    labelled = [f"{_vantage(truth, item)}={folder / item['file']}" for item in truth["captures"]]
    inputs, errors = resolve(labelled)
    assert not errors
    loaded = engine.load(inputs)
    assert not loaded.failures
    return engine.analyze(loaded, now_ns=NOW_NS)


def _rule(entry: dict[str, Any]) -> str:
    return ALIASES.get(entry["id"], entry["id"])


def _demands(folder: Path) -> list[dict[str, Any]]:
    """Return what must be reported, as far as there is a rule for it."""
    return [entry for entry in _truth(folder)["must_report"] if _rule(entry) in registry.rules()]


def _findings(result: Result, rule: str) -> list[Finding]:
    """Return the findings of a rule, and those that it folded into."""
    return [
        finding
        for finding in result.findings
        if finding.rule == rule or any(item.rule == rule for item in finding.folded)
    ]


def _reported(result: Result) -> set[str]:
    folded = {item.rule for finding in result.findings for item in finding.folded}
    return folded | {finding.rule for finding in result.findings}


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _clients(truth: dict[str, Any], ids: list[int]) -> set[str]:
    wanted = set(ids)
    return {_endpoint(*flow["client"]) for flow in truth["flows"] if flow["id"] in wanted}


def _names(truth: dict[str, Any], host: str) -> set[str]:
    """Return what a finding may call a host: name, addresses, MACs, names of its captures."""
    interfaces = truth["hosts"][host]["ifaces"].values()
    names = {host}
    names |= {item["mac"] for item in interfaces if "mac" in item}
    names |= {address.split("/")[0] for item in interfaces for address in item["addrs"]}
    names |= {_vantage(truth, item) for item in truth["captures"] if item["host"] == host}
    return names - set(truth["vips"])


def _words(finding: Finding) -> set[str]:
    """Return the words in which a finding names hosts."""
    values: list[object] = [finding.scope.realserver, *(flow.realserver for flow in finding.flows)]
    for value in (*finding.hosts.values(), *finding.facts.values()):
        values.extend(value if isinstance(value, tuple) else [value])
    tokens = re.findall(r"[\w.:-]+", " ".join(str(value) for value in values))
    return {*tokens, *(re.sub(r":\d+$", "", token) for token in tokens)}


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_rule_fails(folder):
    """Every rule comes to an end."""
    assert _result(folder).failed_rules == ()


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_must_be_reported_is(folder):
    """Each demanded rule reports, by itself or folded into the finding that explains it."""
    wanted = {_rule(entry) for entry in _demands(folder)}
    assert wanted - _reported(_result(folder)) == set()


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_truth_names_rules_that_are_known(folder):
    """No demand is lost by a misspelt rule."""
    truth = _truth(folder)
    lists = ("must_report", "may_report", "must_not_report")
    named = {_rule(entry) for name in lists for entry in truth.get(name, [])}
    assert named - KNOWN == set()


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_else_is_reported(folder):
    """A finding that the truth neither demands nor allows is wrong."""
    truth = _truth(folder)
    entries = [*truth["must_report"], *truth.get("may_report", [])]
    allowed = {_rule(entry) for entry in entries} | ALWAYS_ALLOWED
    forbidden = {_rule(entry) for entry in truth["must_not_report"]}
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
    truth = _truth(folder)
    for entry in _demands(folder):
        found = _findings(_result(folder), _rule(entry))
        named = {flow.client for finding in found for flow in finding.flows}
        hit = _clients(truth, entry.get("flows", []))
        also = _clients(truth, entry.get("may_flows", []))
        assert hit - named == set(), entry["id"]
        if hit:
            assert named - hit - also == set(), entry["id"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_hosts_involved_are_named(folder):
    """A finding says on which hosts the fault shows, by name, address or MAC."""
    truth = _truth(folder)
    for entry in _demands(folder):
        found = _findings(_result(folder), _rule(entry))
        if not any(finding.rule == _rule(entry) for finding in found):
            continue  # folded: the leading finding's hosts are the leading rule's
        words = {word for finding in found for word in _words(finding)}
        for host in entry.get("hosts", []):
            assert words & _names(truth, host), (entry["id"], host, words)


@pytest.mark.parametrize("folder", FOLDERS)
def test_facts_agree(folder):
    """What the truth says in numbers and words, the finding's facts say, too."""
    for entry in _demands(folder):
        for finding in _result(folder).findings:
            if finding.rule == _rule(entry):
                facts = {name: finding.facts.get(name) for name in entry.get("facts", {})}
                assert facts == entry.get("facts", {})


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_frames_that_prove_it_are_cited(folder):
    """At least one of the frames known to be proof is primary evidence."""
    for entry in _demands(folder):
        proof = {
            (file, frame) for file, frames in entry.get("cited", {}).items() for frame in frames
        }
        cited = {
            (Path(item.file).name, item.frame)
            for finding in _findings(_result(folder), _rule(entry))
            for item in finding.evidence
            if item.role == "primary" or finding.rule != _rule(entry)
        }
        assert not proof or proof & cited, entry["id"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_cited_frames_exist(folder):
    """No evidence lies beyond the end of its file or at another vantage than the file's."""
    truth = _truth(folder)
    lengths = {item["file"]: item["frames"] for item in truth["captures"]}
    vantages = {item["file"]: _vantage(truth, item) for item in truth["captures"]}
    for finding in _result(folder).findings:
        for item in finding.evidence:
            name = Path(item.file).name
            assert 1 <= item.frame <= lengths[name]
            assert item.vantage == vantages[name]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_services_are_recognised(folder):
    """Each virtual service is inferred with its method and the realservers that were used."""
    truth = _truth(folder)
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
    truth = _truth(folder)
    true_ns = {
        _vantage(truth, item): round(item.get("clock_offset_s", 0) * 1e9)
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
    truth = _truth(folder)
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
)
BAD = "0"
"""Of tshark's checksum status fields; 1 is good, 2 unverified."""


@pytest.mark.needs("tshark")
@pytest.mark.parametrize("folder", SYNTHETIC)
def test_tshark_finds_only_the_intended_faults(folder):
    """An independent dissector sees as many frames, none malformed, and the same bad checksums."""
    for capture in _truth(folder)["captures"]:
        rows = _tshark(folder / capture["file"])
        assert len(rows) == capture["frames"]
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


def _tshark(path: Path) -> list[dict[str, str]]:
    names = ["frame.len", "frame.cap_len", "_ws.malformed"]
    names += [f"{name}.checksum.status" for name in ("ip", "tcp", "udp", "icmp", "icmpv6")]
    wanted = [word for name in names for word in ("-e", name)]
    done = subprocess.run(
        ["tshark", "-n", "-r", path, *TSHARK, "-T", "fields", *wanted],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.split("\n")[:-1]
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines]
