"""Samples with their truth written down: realservers, MACs, roles and verdicts, in every subset."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

import pytest
import sampled

from pcapdiag import engine
from pcapdiag.addresses import ip_text, mac_text, pack_mac
from pcapdiag.capture.vantages import resolve
from pcapdiag.case import Case

SAMPLES = Path(__file__).parents[2] / "samples"
NAMES = sorted(path.parent.name for path in SAMPLES.glob("*/truth.json"))

SUBSETS = {
    "all": ("client", "director", "router", "rs"),
    "director": ("director",),
    "director and realservers": ("director", "rs"),
    "realservers": ("rs",),
    "router": ("router",),
}


LAB = {
    "lab-dr-healthy": ("dr", {"forwarded"}),
    "lab-nat-healthy": ("nat", {"forwarded"}),
    "lab-dr-icmp-dropped-at-director": ("dr", {"swallowed"}),
    "lab-rs-host-prohibited": ("dr", {"forwarded"}),
}

COMBINATIONS = [(subset, labels) for subset in SUBSETS for labels in (True, False)]


def _case(name, subset, labels):
    words = f"{name}-{subset}-{'labelled' if labels else 'unlabelled'}"
    return pytest.param((name, subset, labels), id=words, marks=sampled.alone(SAMPLES / name))


def _cases():
    """Yield each sample in all combinations, those of the lab in one of them, another for each."""
    whole = os.environ.get("PCAPDIAG_DEGRADATIONS") == "all"
    for number, name in enumerate(NAMES):
        few = name.startswith("lab-") and name not in LAB and not whole
        picked = [COMBINATIONS[number % len(COMBINATIONS)]] if few else COMBINATIONS
        for subset, labels in picked:
            yield _case(name, subset, labels)


@cache
def truth(name: str) -> dict:
    """Return what is true of a sample."""
    return json.loads((SAMPLES / name / "truth.json").read_text(encoding="utf-8"))


def _taken(inputs):
    """Return what is taken where: what an analysis rests on."""
    return {(one.name, one.role, one.paths) for one in inputs}


@lru_cache(maxsize=1)
def whole(name: str) -> Case:
    """Return the case of a sample as its files are named."""
    inputs, failures = resolve([str(SAMPLES / name)])
    assert not failures
    if _taken(inputs) == _taken(sampled.inputs(SAMPLES / name)):
        return sampled.loaded(SAMPLES / name).case
    return engine.load(inputs).case


@lru_cache(maxsize=8)  # no more than are asked for again: different subsets of few captures
def analysed(name: str, kept: tuple[int, ...], labels: bool) -> Case:
    """Return the case of some vantages, renamed where labels are to be gone."""
    vantages = whole(name).vantages
    if labels and len(kept) == len(vantages):
        return whole(name)
    some = (vantages[number] for number in kept)
    return Case(
        tuple(
            replace(
                one,
                index=index,
                name=one.name if labels else f"v{index}",
                role_given=one.role_given if labels else None,
            )
            for index, one in enumerate(some)
        )
    )


@pytest.fixture(scope="module")
def subset(request):
    """Return the sample's name, the names of a subset and labels, and its case, or None.

    Its scope lets pytest put tests of one subset one behind the other, so that it is made once.
    """
    name, group, labels = request.param
    names = [item.name for item in whole(name).vantages]
    kept = tuple(at for at, own in enumerate(names) if own.startswith(SUBSETS[group]))
    return (*request.param, analysed(name, kept, labels) if kept else None)


@pytest.mark.parametrize("subset", list(_cases()), indirect=True)
def test_no_subset_of_captures_names_a_wrong_realserver(subset) -> None:
    """Every realserver that is named is the true one; so is the role of every MAC."""
    name, _, _, found = subset
    if found is None:
        return
    hosts = truth(name)["hosts"]
    owners = {
        address.split("/")[0]: host
        for host, entry in hosts.items()
        for interface, link in entry["ifaces"].items()
        for address in link["addrs"]
        if interface != "lo"
    }
    of_mac = {
        pack_mac(link["mac"]): host
        for host, entry in hosts.items()
        for link in entry["ifaces"].values()
        if "mac" in link
    }
    served: dict[tuple[str, int], set[str | None]] = {}
    for flow in truth(name)["flows"]:
        served.setdefault(tuple(flow["client"]), set()).add(flow["rs"])
    for row in found.connections.connections.iter_rows(named=True):
        client = (ip_text(row["client_hi"], row["client_lo"]), row["client_port"])
        true = served.get(client, {None})
        if row["realserver_lo"] is not None and None not in true:
            address = ip_text(row["realserver_hi"], row["realserver_lo"])
            # one that answers ARP for the VIP may be named by it: its MAC says which host is meant
            by_vip = address in truth(name)["vips"] and row["realserver_mac"] is not None
            assert (of_mac[row["realserver_mac"]] if by_vip else owners[address]) in true, client
    macs = {
        pack_mac(link["mac"]): {entry["role"], entry.get("also")}
        for entry in hosts.values()
        for link in entry["ifaces"].values()
        if "mac" in link
    }
    for mac, roles in macs.items():
        assert found.topology.mac_role(mac) in roles | {None}, mac_text(mac)
    two_roles = {host for host, entry in hosts.items() if "also" in entry}
    refuted = {role.name for role in found.topology.roles if role.source == "refuted"}
    assert refuted <= two_roles


@pytest.mark.parametrize(
    "subset",
    [
        _case(name, group, labels)
        for name in LAB
        if name in NAMES
        for group in SUBSETS
        if group != "router"
        for labels in (True, False)
    ],
    indirect=True,
)
def test_captures_of_a_real_kernel_are_read_completely(subset) -> None:
    """Every connection has its realserver, and every error at the director the right verdict."""
    name, group, labels, found = subset
    method, verdicts = LAB[name]
    clients = {tuple(flow["client"]): flow["rs"] for flow in truth(name)["flows"]}
    rows = found.connections.connections.rows(named=True)
    seen = {(ip_text(row["client_hi"], row["client_lo"]), row["client_port"]): row for row in rows}
    for client in clients:
        assert seen[client]["realserver_lo"] is not None
    alone = group == "realservers" and method == "nat"
    split = method == "nat" and not labels  # one capture an interface, and nothing says one host
    if not alone:
        assert [service.method for service in found.topology.services] == [method]
    if group != "realservers" and not split:
        judged = found.contract.get_column("verdict").to_list()
        assert set(judged) == verdicts
        assert len(judged) >= 25
