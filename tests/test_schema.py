"""The column dictionary keeps its own promises."""

from __future__ import annotations

import re
from typing import Final

import polars as pl
import pytest

from pcapdiag import schema
from pcapdiag.decode_note import DecodeNote

DECODED: Final = ("packets", "tunnels", "sacks", "icmp", "arp", "vrrp", "ipvs_sync")
"""Tables that a decoder makes; the others are pcapdiag's own conclusions."""

WIRESHARK_FIELD: Final = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")

NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


@pytest.mark.parametrize("table", schema.TABLES)
def test_names_are_unique_and_plain(table: str) -> None:
    """No table has a column twice, and names are lower-case words."""
    names = [column.name for column in schema.TABLES[table]]
    assert len(set(names)) == len(names)
    assert [name for name in names if not NAME.fullmatch(name)] == []


@pytest.mark.parametrize("table", schema.TABLES)
def test_an_address_is_two_columns_side_by_side(table: str) -> None:
    """Each `*_hi` is followed by its `*_lo`, both UInt64, and neither stands alone."""
    columns = schema.TABLES[table]
    halves = [column for column in columns if column.name.endswith(("_hi", "_lo"))]
    pairs = zip(halves[::2], halves[1::2], strict=True)
    for high, low in pairs:
        assert high.name.removesuffix("_hi") == low.name.removesuffix("_lo")
        assert columns.index(low) == columns.index(high) + 1
        assert high.dtype == low.dtype == pl.UInt64


@pytest.mark.parametrize("column", schema.PACKETS, ids=lambda column: column.name)
def test_a_packets_column_names_its_wireshark_field(column: schema.Column) -> None:
    """A column says which field it must equal and which occurrence, or n/a where none exists."""
    if column.occurrence == "n/a":
        assert column.wireshark == ""
        assert column.meaning, "what no dissector knows needs a sentence"
    else:
        assert isinstance(column.occurrence, int)
        assert WIRESHARK_FIELD.search(column.wireshark)


@pytest.mark.parametrize("table", DECODED)
def test_occurrences_are_known_words(table: str) -> None:
    """An occurrence is a position from either end, "a" for all of them, or "n/a"."""
    for column in schema.TABLES[table]:
        assert column.occurrence in {"a", "n/a"} or isinstance(column.occurrence, int)
        assert column.occurrence != "n/a" or not column.wireshark


@pytest.mark.parametrize("table", schema.TABLES)
def test_the_empty_table_has_the_columns(table: str) -> None:
    """`empty` has every column in order and dtype, and no row."""
    empty = schema.empty(table)
    assert empty.height == 0
    assert dict(empty.schema) == {column.name: column.dtype for column in schema.TABLES[table]}
    assert list(empty.columns) == list(schema.dtypes(table))


@pytest.mark.parametrize("table", schema.TABLES)
def test_side_tables_begin_with_their_row(table: str) -> None:
    """What stands beside `packets` points into it with `row` first, as UInt32."""
    columns = schema.TABLES[table]
    if table in {*DECODED[1:], "icmp_errors"}:
        assert (columns[0].name, columns[0].dtype) == ("row", pl.UInt32)


def test_an_unknown_table_is_an_error() -> None:
    """Nothing is guessed for a name that is not in the dictionary."""
    with pytest.raises(KeyError):
        schema.dtypes("packet")


def test_conform_orders_casts_and_fills() -> None:
    """`conform` brings columns into order and dtype, adds missing ones as null, drops others."""
    loose = pl.DataFrame(
        {"stranger": [1, 2], "depth": [1, 2], "kind": ["ipip", None], "row": [0, 7]}
    )
    table = schema.conform(loose, "tunnels")
    assert dict(table.schema) == schema.dtypes("tunnels")
    assert table["row"].to_list() == [0, 7]
    assert table["kind"].to_list() == ["ipip", None]
    assert table["overhead"].null_count() == 2
    assert schema.conform(table, "tunnels").equals(table)


def test_conform_refuses_what_does_not_fit() -> None:
    """A value outside the column's range or enumeration is an error, never a wrap-around."""
    with pytest.raises(pl.exceptions.InvalidOperationError):
        schema.conform(pl.DataFrame({"row": [-1]}), "tunnels")
    with pytest.raises(pl.exceptions.InvalidOperationError):
        schema.conform(pl.DataFrame({"row": [1], "kind": ["ipsec"]}), "tunnels")


def test_icmp_errors_carry_the_whole_quote() -> None:
    """`icmp_errors` has every column of `icmp` but those of echoes, in the same dtype."""
    ours = schema.dtypes("icmp_errors")
    echoes = {"icmp_ident", "icmp_sequence"}
    theirs = {name: kind for name, kind in schema.dtypes("icmp").items() if name not in echoes}
    assert {name: ours.get(name) for name in theirs} == theirs
    assert echoes.isdisjoint(ours)


def test_both_sides_of_a_flow_have_the_same_columns() -> None:
    """What is counted for the originator is counted for the responder, in the same dtype."""
    flows = schema.dtypes("flows")
    orig = {
        name.removeprefix("orig_"): kind for name, kind in flows.items() if name.startswith("orig_")
    }
    resp = {
        name.removeprefix("resp_"): kind for name, kind in flows.items() if name.startswith("resp_")
    }
    assert orig == resp
    assert len(orig) > 30


def test_notes_are_single_bits_that_fit_the_column() -> None:
    """Each DecodeNote is one bit, and all of them fit UInt32."""
    for note in DecodeNote.__members__.values():
        assert note.value.bit_count() == 1
        assert note.value < 1 << 32


def test_notes_are_spelt_out() -> None:
    """`note_names` gives lower-case words with dashes, in the order of the bits."""
    both = DecodeNote.QUOTE_CUT | DecodeNote.LINK_CUT
    assert schema.note_names(both) == "link-cut;quote-cut"
    assert schema.note_names(0) == ""
    assert schema.note_names(1 << 31) == ""
    every = schema.note_names(sum(DecodeNote))
    assert every.count(";") == len(DecodeNote) - 1
