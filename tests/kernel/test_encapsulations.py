"""Encapsulations explain an MTU only between a size that passed and one that did not."""

from __future__ import annotations

from pcapdiag.kernel import encapsulations


def test_bounds_select_the_encapsulations_between_them():
    """An MTU in [1476, 1481) is IPIP's 1480 or GRE's 1476, nothing else."""
    names = [row.name for row in encapsulations.explain_mtu(1476, 1481)]
    assert names == ["IPIP (LVS-TUN) or 6in4", "GRE (LVS-TUN)"]


def test_each_row_is_found_at_its_own_mtu_and_not_one_byte_beside():
    """Both bounds are exact: the delivered size is included, the lost one is not."""
    for row in encapsulations.ENCAPSULATIONS:
        mtu = encapsulations.ETHERNET_MTU - row.overhead
        assert row in encapsulations.explain_mtu(mtu, mtu + 1)
        assert row not in encapsulations.explain_mtu(mtu + 1, mtu + 2)
        assert row not in encapsulations.explain_mtu(mtu - 1, mtu)


def test_without_a_lower_bound_nothing_is_named():
    """Every row would fit, so none is."""
    assert encapsulations.explain_mtu(None, 1500) == ()


def test_one_name_is_given_only_within_four_bytes():
    """Wider bounds leave room for several, and are worded as a guess."""
    assert encapsulations.worded(1478, 1482).startswith("IPIP (LVS-TUN) or 6in4 on a path")
    assert encapsulations.worded(1477, 1482).startswith("could be IPIP")
    assert "or GRE" in encapsulations.worded(1476, 1482)
    assert encapsulations.worded(None, 1482) == ""
    assert encapsulations.candidates(1000, 1500) == ()
    assert encapsulations.layers(1480) == ("IPIP (LVS-TUN) or 6in4",)
    assert encapsulations.layers(1479) == ()


def test_the_tunnel_that_is_known_to_be_there_comes_first():
    """Between wide bounds it alone is named, as a guess; where it does not fit it is no answer."""
    gre = encapsulations.of_lvs("gre", 4)
    name = "the director's own GRE header (24 bytes)"
    assert encapsulations.candidates(1476, 1481, gre) == (name, "IPIP (LVS-TUN) or 6in4")
    assert encapsulations.candidates(400, 1500, gre) == (name,)
    assert encapsulations.candidates(None, 1500, gre) == (name,)
    assert encapsulations.worded(400, 1500, gre).startswith(f"could be {name}, on a path")
    assert encapsulations.candidates(1477, 1500, gre) == encapsulations.candidates(1477, 1500)
    assert encapsulations.candidates(400, 1476, gre) == ()
    assert encapsulations.layers(1476, gre) == (name,)
    assert encapsulations.of_lvs("ipip", 6).overhead == 40
