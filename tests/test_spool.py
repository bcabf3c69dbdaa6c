"""Tables in files: rows by number, and a work directory that goes whatever happens."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pcapdiag import engine, spool, workers
from pcapdiag.capture.vantages import resolve
from pcapdiag.decode.packets import SPOOLED
from pcapdiag.errors import CaptureError

SAMPLE = Path(__file__).parents[1] / "samples" / "pmtud-blackhole-dr"

TABLE = pl.DataFrame({"a": range(10), "b": [str(number) for number in range(10)]})


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Return TABLE in files of four rows."""
    monkeypatch.setattr(spool, "CHUNK_ROWS", 4)
    return spool.spooled(TABLE.iter_slices(2), str(tmp_path))


def test_rows_by_number(kept):
    """Rows come in the order asked for, however often, out of whichever file."""
    assert (kept.heights, len(kept), kept.height) == ((4, 4, 2), 10, 10)
    for rows in ([9, 0, 5, 5, 3], [], pl.Series([4, 1], dtype=pl.UInt32)):
        assert_frame_equal(spool.at(kept, rows, "b"), spool.at(TABLE, rows, "b"))
        assert_frame_equal(spool.at(kept, rows), spool.at(TABLE, rows))
    with pytest.raises(IndexError):
        spool.at(kept, [10])


def test_columns_computed_anew(kept):
    """A changed column is what queries, rows and chunks show."""
    changed = kept.with_columns((pl.col("a") * 2).alias("b"))
    assert spool.at(changed, [7, 2], "b")["b"].to_list() == [14, 4]
    assert changed.lazy().collect()["b"].to_list() == [*range(0, 20, 2)]
    assert pl.concat(changed.chunks())["b"].to_list() == [*range(0, 20, 2)]


def test_further_columns(kept, tmp_path):
    """Columns that came later stand in files of their own, and nobody who asks sees that."""
    whole = TABLE.with_columns(pl.col("a").cast(pl.String).alias("c"))
    more = spool.spooled(whole.select("c").iter_slices(2), str(tmp_path))
    both = kept.hstack(more).with_columns((pl.col("c") + pl.col("b")).alias("b"))
    whole = whole.with_columns((pl.col("c") + pl.col("b")).alias("b"))
    assert_frame_equal(both.lazy().collect(), whole)
    assert_frame_equal(
        both.lazy().filter(pl.col("c") == "7").select("a").collect(), whole[[7], ["a"]]
    )
    assert_frame_equal(pl.concat(both.chunks()), whole)
    assert_frame_equal(pl.concat(both.chunks("c")), whole.select("c"))
    assert_frame_equal(spool.at(both, [9, 3], "b", "a"), whole[[9, 3], ["b", "a"]])
    spool.discard(both)
    assert not list(tmp_path.iterdir())


def test_records(tmp_path):
    """Numpy records are read back from any of them to any other."""
    made = np.array([(1, -1), (2, 5), (3, 7)], dtype=[("row", "u4"), ("flow", "i8")])
    path = spool.recorded(made, str(tmp_path))
    assert spool.records(path, made.dtype, 1, 3).tolist() == [(2, 5), (3, 7)]
    assert spool.records(path, made.dtype, 2, 2).tolist() == []


def test_a_full_disk_for_records(tmp_path, monkeypatch):
    """What numpy writes fails as the tables do, and leaves as little."""

    def full(self, _data):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(spool.SpoolError, match=r"No space left on device.*--work-dir"):
        spool.recorded(np.zeros(3, dtype=[("row", "u4")]), str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_table_without_rows(tmp_path):
    """Nothing is one empty file."""
    kept = spool.spooled([TABLE.clear()], str(tmp_path))
    assert_frame_equal(kept.lazy().collect(), TABLE.clear())


def test_a_work_directory_goes(tmp_path):
    """It is made when needed, is the same elsewhere, and removed here only."""
    with spool.WorkDirectory(str(tmp_path)) as work:
        assert not list(tmp_path.iterdir())
        place = Path(work.path)
        spool.spooled([TABLE], work.path)
        with pickle.loads(pickle.dumps(work)) as same:  # noqa: S301 - our own
            assert same.path == work.path
        assert list(place.iterdir())
    assert not list(tmp_path.iterdir())


def test_a_work_directory_that_is_not_there(tmp_path):
    """The message names the directory, the reason and the remedy."""
    with (
        spool.WorkDirectory(str(tmp_path / "none")) as work,
        pytest.raises(spool.SpoolError, match=r"none cannot .*No such file.*--work-dir"),
    ):
        spool.spooled([TABLE], work.path)


@pytest.mark.parametrize("column", ["tcp_seq", "outer_ttl"])
def test_a_full_disk_costs_one_capture(tmp_path, monkeypatch, column):
    """The others are read, and of its tables, of which one did not fit, nothing is left."""
    monkeypatch.setattr(spool, "IN_MEMORY_ROWS", 0)
    write = pl.DataFrame.write_ipc

    def full(self, file, **options):
        if column in self.columns and file.parent.name == "0":
            file.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, file, **options)

    monkeypatch.setattr(pl.DataFrame, "write_ipc", full)
    paths = [str(SAMPLE / "director.pcap"), str(SAMPLE / "rs1.pcap")]
    with spool.WorkDirectory(str(tmp_path)) as work:
        failure, read = workers.read_captures(paths, work=work)
        files = {str(path) for path in Path(work.path).rglob("*.arrow")}
        tables = [getattr(read.decoded, name) for name in SPOOLED]
        assert files == {path for table in tables for path in table.paths}
    assert isinstance(failure, CaptureError)
    assert failure.path == paths[0]
    assert "No space left on device" in failure.message
    assert "--work-dir" in failure.message


def test_a_full_disk_where_flows_are_built(tmp_path, monkeypatch):
    """Of the capture that is given up nothing is left, so that the others find room."""
    monkeypatch.setattr(spool, "IN_MEMORY_ROWS", 0)
    write = pl.DataFrame.write_ipc

    def full(self, file, **options):
        if "copy_of" in self.columns and file.parent.name == "0":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, file, **options)

    monkeypatch.setattr(pl.DataFrame, "write_ipc", full)
    inputs, _ = resolve([str(SAMPLE / "director.pcap"), str(SAMPLE / "rs1.pcap")])
    with spool.WorkDirectory(str(tmp_path)) as work:
        loaded = engine.load(inputs, work=work)
        assert [path.name for path in Path(work.path).iterdir()] == ["1"]
    (failure,) = loaded.failures
    assert failure.path == str(SAMPLE / "director.pcap")
    assert [vantage.name for vantage in loaded.case.vantages] == ["rs1"]
