"""`pcapdiag index`, and what `analyze` makes of an index."""

from __future__ import annotations

import io
import json
import shutil
import zipfile

import polars as pl
import pytest

from pcapdiag import schema, spool
from pcapdiag.capture import indexed
from pcapdiag.export import index


def _result(run, *arguments):
    ended = run("analyze", *arguments, "--no-html", "--json", "-")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("given", [("director.pcap", "rs1.pcap"), ("lb=rs1.pcap",)])
def test_index_gives_the_result_of_its_captures(run, monkeypatch, given):
    """An index of captures gives what they give, whichever names they have."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1714557600")
    assert run("index", *given, "-o", "case.pcapidx").code == 0
    again = _result(run, "case.pcapidx")
    plain = _result(run, *given)
    assert plain["vantages"]
    assert again == plain


def test_index_beside_captures(run, place, monkeypatch):
    """Indexes and captures mix; without its capture an index lacks what only payload tells."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1714557600")
    plain = _result(run, "director.pcap", "rs1.pcap")
    assert run("index", "rs1.pcap", "-o", "x.pcapidx").code == 0
    assert _result(run, "director.pcap", "x.pcapidx") == plain
    (place / "rs1.pcap").unlink()
    alone = _result(run, "director.pcap", "x.pcapidx")
    for result in (alone, plain):
        for outcomes in ("not_examined", "clean"):
            result[outcomes] = [
                item for item in result[outcomes] if item["rule"] != "transport-checksum-burst"
            ]
    assert alone == plain


def test_tables_are_those_of_the_schema(run, place):
    """Any Parquet reader finds the documented columns, and the bytes of ICMP frames."""
    assert run("index", "director.pcap", "-o", "x.pcapidx", "--digest").code == 0
    with zipfile.ZipFile(place / "x.pcapidx") as archive:
        for name in ("packets", "icmp", "arp"):
            table = pl.read_parquet(io.BytesIO(archive.read(f"0/{name}.parquet")))
            assert table.columns == list(schema.dtypes(name))
        frames = pl.read_parquet(io.BytesIO(archive.read("0/frames.parquet")))
    capture = (place / "director.pcap").read_bytes()
    assert frames["frame"].to_list() == [4]
    assert len(frames["bytes"][0]) == 14 + 20 + 8 + 40
    assert frames["bytes"][0] in capture
    listed = _result(run, "x.pcapidx", "--digest")["vantages"][0]["files"][0]
    assert len(listed["sha256"]) == 64


def test_stale_index_is_refused_and_the_others_analysed(run, place):
    """A capture that was replaced makes its index an unreadable input, and no other."""
    run("index", "rs1.pcap", "-o", "x.pcapidx")
    shutil.copy(place / "director.pcap", place / "rs1.pcap")
    ended = run("analyze", "x.pcapidx", "director.pcap", "--no-html", "--json", "out.json")
    assert ended.code == 3
    assert "stale" in ended.errors[0]
    result = json.loads((place / "out.json").read_text())
    assert [item["name"] for item in result["vantages"]] == ["director"]
    assert any("stale" in note for note in result["notes"])


def _cut(archive):
    del archive["0/packets.parquet"]


def _other(archive):
    frame = pl.read_parquet(io.BytesIO(archive["0/packets.parquet"]))
    content = io.BytesIO()
    frame.drop("ttl").write_parquet(content)
    archive["0/packets.parquet"] = content.getvalue()


def _beyond(archive):
    frame = pl.read_parquet(io.BytesIO(archive["0/icmp.parquet"]))
    content = io.BytesIO()
    frame.with_columns(pl.lit(99, pl.UInt32).alias("row")).write_parquet(content)
    archive["0/icmp.parquet"] = content.getvalue()


def _out_of_order(archive):
    rows = pl.DataFrame({"row": [3, 2]}, schema={"row": pl.UInt32})
    content = io.BytesIO()
    schema.conform(rows, "sacks").write_parquet(content)
    archive["0/sacks.parquet"] = content.getvalue()


def _noise(archive):
    archive["0/flows.parquet"] = b""
    archive["0/tunnels.parquet"] = b"PAR1nothing"


@pytest.mark.parametrize("rows", [0, spool.IN_MEMORY_ROWS], ids=["spooled", "in memory"])
@pytest.mark.parametrize("damage", [_cut, _other, _beyond, _out_of_order, _noise])
def test_damaged_index_is_one_line(run, place, monkeypatch, damage, rows):
    """Whatever an archive lacks or holds, it is named as damaged, with the remedy."""
    monkeypatch.setattr(spool, "IN_MEMORY_ROWS", rows)
    run("index", "director.pcap", "-o", "x.pcapidx")
    with zipfile.ZipFile(place / "x.pcapidx") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    damage(content)
    with zipfile.ZipFile(place / "x.pcapidx", "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    ended = run("analyze", "x.pcapidx", "--no-html")
    assert ended.code == 3
    assert len(ended.errors) == 1
    assert "damaged index" in ended.errors[0]
    assert "pcapdiag index" in ended.errors[0]


@pytest.mark.parametrize("kept", [60, 3_000])
def test_index_that_is_cut_short_is_named_as_one(run, place, kept):
    """A copy that was not complete is no archive to unpack: it has to be made, or copied, anew."""
    run("index", "director.pcap", "-o", "x.pcapidx")
    whole = (place / "x.pcapidx").read_bytes()
    assert len(whole) > kept
    (place / "x.pcapidx").write_bytes(whole[:kept])
    ended = run("analyze", "x.pcapidx", "--no-html")
    assert ended.code == 3
    assert len(ended.errors) == 1
    assert "damaged index" in ended.errors[0]
    assert "pcapdiag index" in ended.errors[0]


def test_index_of_another_version_is_refused_and_the_others_analysed(run, place):
    """An archive laid out otherwise is named as such, with the remedy."""
    run("index", "rs1.pcap", "-o", "x.pcapidx")
    with zipfile.ZipFile(place / "x.pcapidx", "w") as archive:
        archive.writestr(indexed.MANIFEST, json.dumps({"layout": indexed.LAYOUT + 1}))
    ended = run("analyze", "x.pcapidx", "director.pcap", "--no-html", "--json", "out.json")
    assert ended.code == 3
    (line,) = ended.errors
    assert line.startswith(f"x.pcapidx: is an index of layout {indexed.LAYOUT + 1}")
    assert "pcapdiag index" in line
    result = json.loads((place / "out.json").read_text())
    assert [item["name"] for item in result["vantages"]] == ["director"]


@pytest.mark.parametrize("change", ["grows", "is replaced"])
def test_a_capture_that_changes_while_it_is_indexed(run, place, monkeypatch, change):
    """No index is made of what is not all, or of two captures at once."""
    keep = index.kept_frames

    def changing(path, decoded):
        kept = keep(path, decoded)
        if change == "grows":
            with (place / "rs1.pcap").open("ab") as file:
                file.write(b"more")
        else:
            shutil.copy(place / "director.pcap", place / "new.pcap")
            (place / "new.pcap").replace(place / "rs1.pcap")
        return kept

    monkeypatch.setattr(index, "kept_frames", changing)
    ended = run("index", "rs1.pcap", "-o", "x.pcapidx")
    assert ended.code == 3
    (line,) = ended.errors
    assert line == "rs1.pcap: changed while it was indexed; index it again once it is complete"
    assert sorted(path.name for path in place.iterdir()) == ["director.pcap", "rs1.pcap"]


def test_nothing_half_written(run, place, monkeypatch):
    """A full disk and a capture that cannot be read leave no file behind."""
    before = sorted(place.iterdir())
    (place / "bad.pcap").write_bytes(b"no capture at all, whatever its name says")

    def full(*_):
        raise OSError(28, "No space left on device")

    assert run("index", "bad.pcap", "-o", "x.pcapidx").code == 3
    monkeypatch.setattr(index, "_put", full)
    ended = run("index", "rs1.pcap", "-o", "x.pcapidx")
    assert ended.code == 2
    assert "No space left" in ended.errors[0]
    (place / "bad.pcap").unlink()
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-",), "made of files"),
        (("x.pcapidx",), "in an index already"),
        (("rs1.pcap", "-o", "rs1.pcap"), "overwrite"),
    ],
)
def test_what_cannot_be_indexed(run, place, arguments, words):
    """Standard input, an index, and a target that is an input are refused."""
    run("index", "rs1.pcap", "-o", "x.pcapidx")
    ended = run("index", "-o", "y.pcapidx", *arguments, stdin=(place / "rs1.pcap").read_bytes())
    assert ended.code == 2
    assert words in ended.errors[0]
    assert not (place / "y.pcapidx").exists()
