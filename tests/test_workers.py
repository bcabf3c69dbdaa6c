"""Captures read one after the other, in other processes, and on a cluster: the same tables."""

from __future__ import annotations

import copy
import multiprocessing
import os
import select
import signal
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pytest

from pcapdiag import spool, workers
from pcapdiag.capture.reader import CaptureReader
from pcapdiag.cli import cores
from pcapdiag.decode.packets import SPOOLED
from pcapdiag.errors import CaptureError, UnreadableCapture, UsageError
from pcapdiag.processes import Processes

HERE_ONLY = 900
"""A descriptor that no other process has."""

SAMPLE = Path(__file__).parents[1] / "samples" / "pmtud-blackhole-dr"


def _same(found, plain):
    for one, other in zip(found, plain, strict=True):
        assert replace(one.info, mtime_ns=0) == replace(other.info, mtime_ns=0)
        assert one.sha256 == other.sha256
        for item in fields(one.decoded):
            table = getattr(one.decoded, item.name)
            assert table.equals(getattr(other.decoded, item.name)), item.name


@pytest.fixture
def paths(monkeypatch):
    """Name captures as a user in their folder would."""
    monkeypatch.chdir(SAMPLE)
    return ["director.pcap", "rs1.pcap"]


def test_other_processes_give_the_same(paths):
    """A spawned process reads what this one reads, and a failure there is one here."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        *found, failure = workers.read_captures([*paths, "README.md"], pool, digest=True)
    plain = list(workers.read_captures(paths, digest=True))
    assert plain[0].sha256
    assert [item.decoded.packets["capture"][0] for item in plain] == [0, 1]
    _same(found, plain)
    assert isinstance(failure, CaptureError)
    assert str(failure).startswith("README.md: ")


def test_tables_come_from_other_processes_in_files(paths, tmp_path):
    """They are in memory here, as others are, and their files are gone."""
    spawn = multiprocessing.get_context("spawn")
    with spool.WorkDirectory(str(tmp_path)) as work, ProcessPoolExecutor(1, spawn) as pool:
        options = workers.Options(work=work)
        sent = pool.submit(workers._read_elsewhere, paths[0], paths[0], 0, options).result()
        assert list(Path(work.path).rglob("*.arrow"))
        for name in SPOOLED:
            assert isinstance(getattr(sent.decoded, name), spool.Spooled)
            spool.discard(getattr(sent.decoded, name))
        found = list(workers.read_captures(paths, pool, work=work))
        assert not list(Path(work.path).rglob("*.arrow"))
    _same(found, list(workers.read_captures(paths)))


def test_errors_cross_processes():
    """What a user is told of a capture survives the way back."""
    error = copy.copy(UnreadableCapture("a.pcap", "is gone"))  # as pickle does
    assert (type(error), error.path, str(error)) == (
        UnreadableCapture,
        "a.pcap",
        "a.pcap: is gone",
    )


class _Broken:
    """An executor that fails in its own ways."""

    def __init__(self):
        self.futures = []

    def submit(self, *_):
        """Fail the first work, and leave the others waiting."""
        self.futures.append(Future())
        if len(self.futures) == 1:
            self.futures[0].set_exception(MemoryError("no more"))
        return self.futures[-1]


def test_a_dead_process_costs_its_capture_only(paths):
    """A process that died is a capture that could not be read, and what waits is cancelled."""
    executor = _Broken()
    found = workers.read_captures([*paths, "-"], executor)
    first = next(found)
    assert isinstance(first, UnreadableCapture)
    assert "MemoryError" in str(first)
    assert "--jobs 1" in str(first)
    assert len(executor.futures) == 2  # standard input cannot travel
    found.close()
    assert executor.futures[1].cancelled()


class _Dying(Processes):
    """Processes of which the first dies of its first capture, as where memory is short."""

    def submit(self, *_):
        """Put death in the place of the first work."""
        self.submit = super().submit
        return self.submit(os._exit, 9)


def test_a_process_that_dies_costs_time_only(paths):
    """Each capture that was lost with it is read in a process of its own."""
    with _Dying(1) as pool:
        found = list(workers.read_captures(paths, pool))
    _same(found, list(workers.read_captures(paths)))


def test_a_capture_that_kills_its_reader_is_missing(paths, monkeypatch):
    """It is tried once more, and told of with the remedy; the others are there."""
    retried = []

    class OnceMore(Processes):
        def submit(self, *given):
            retried.append(given[1])
            return super().submit(*((os._exit, 9) if given[1] == paths[0] else given))

    monkeypatch.setattr(workers, "Processes", OnceMore)
    with _Dying(1) as pool:
        lost, read = workers.read_captures(paths, pool)
    assert retried == paths
    assert isinstance(lost, UnreadableCapture)
    assert "terminated abruptly" in str(lost)
    assert "--jobs 1" in str(lost)
    assert read.info.path == paths[1]


def test_a_worker_without_the_file_says_so():
    """The remedy for a path that only this host knows is named."""
    with pytest.raises(UnreadableCapture, match=r"rs1\.pcap: no such file where.*every worker"):
        workers._read_elsewhere("rs1.pcap", "/nowhere/rs1.pcap", 0, workers.Options())


def test_progress_is_told_of_every_batch(paths, monkeypatch):
    """A reader of small blocks tells more and more of the file's bytes."""
    monkeypatch.setattr(
        workers, "open_capture", lambda path, *, ahead: CaptureReader(path, 1 << 12, ahead=ahead)
    )
    told = []
    workers.read_capture(paths[0], 0, progress=lambda *given: told.append(given))
    size = Path(paths[0]).stat().st_size
    assert told[0] == (paths[0], 0, size)
    assert told[-1] == (paths[0], size, size)
    done = [each for _, each, _ in told]
    assert any(0 < each < size for each in done)
    assert done == sorted(done)


def test_a_process_of_this_host_spools(paths, monkeypatch, tmp_path):
    """What it cannot hold it leaves in files, and only their names come back."""
    monkeypatch.setattr(spool, "IN_MEMORY_ROWS", 0)
    spawn = multiprocessing.get_context("spawn")
    with spool.WorkDirectory(str(tmp_path)) as work, ProcessPoolExecutor(1, spawn) as pool:
        found = list(workers.read_captures(paths, pool, work=work))
        for number, item in enumerate(found):
            tables = [getattr(item.decoded, name) for name in SPOOLED]
            assert [table.folder for table in tables] == 3 * [f"{work.path}/{number}"]
        plain = list(workers.read_captures(paths))
        _same([replace(item, decoded=item.decoded.kept(spool.loaded)) for item in found], plain)


def test_what_a_cluster_sends_is_spooled_here(paths, monkeypatch, tmp_path):
    """Another host's disk is not this one's."""
    monkeypatch.setattr(spool, "IN_MEMORY_ROWS", 0)
    with spool.WorkDirectory(str(tmp_path)) as work, ThreadPoolExecutor(1) as elsewhere:
        found = list(workers.read_captures(paths, elsewhere, work=work))
        tables = [getattr(item.decoded, name) for item in found for name in SPOOLED]
        assert all(isinstance(table, spool.Spooled) for table in tables)


@pytest.mark.xdist_group("cluster")
@pytest.mark.filterwarnings("ignore")  # of tornado's and distributed's own
def test_cluster_gives_the_same_though_a_worker_dies(cluster, paths, tmp_path):
    """A worker that is killed while it reads costs time only: another one reads the capture."""
    pipe = tmp_path / "slow.pcap"
    os.mkfifo(pipe)

    with cores.lent((), scheduler=cluster.scheduler_address) as executor:
        found = workers.read_captures([*paths, str(pipe)], executor)
        _same([next(found), next(found)], list(workers.read_captures(paths)))
        with pipe.open("wb"):  # as soon as a worker has opened it, too
            busy = {item.address for item in cluster.scheduler.workers.values() if item.processing}
            (reader,) = (item for item in cluster.workers.values() if item.worker_address in busy)
            ended = os.pidfd_open(reader.pid)
            os.kill(reader.pid, signal.SIGKILL)
            select.select([ended], [], [])
            os.close(ended)
        pipe.write_bytes(Path("rs2.pcap").read_bytes())
        piped = next(found)
    assert piped.info.path == str(pipe)
    assert piped.info.packets == next(workers.read_captures(["rs2.pcap"])).info.packets


@pytest.mark.xdist_group("cluster")
@pytest.mark.filterwarnings("ignore")
def test_worker_of_a_cluster_without_the_file(cluster, paths):
    """A path that means something here only costs its capture, and the remedy is named."""
    here = f"/proc/self/fd/{HERE_ONLY}"  # each process has its own
    with Path(paths[0]).open("rb") as file:
        os.dup2(file.fileno(), HERE_ONLY)
    try:
        with cores.lent((), scheduler=cluster.scheduler_address) as executor:
            lost, read = workers.read_captures([here, paths[1]], executor)
    finally:
        os.close(HERE_ONLY)
    assert isinstance(lost, UnreadableCapture)
    assert str(lost).startswith(f"{here}: no such file where")
    assert "every worker must see it" in str(lost)
    assert read.info.path == paths[1]


@pytest.mark.filterwarnings("ignore")
def test_unreachable_scheduler_is_one_line(monkeypatch):
    """Nobody at the address is a usage error with the remedy."""
    monkeypatch.setattr(cores, "ANSWER_S", 0.1)
    message = r"tcp://127\.0\.0\.1:1: no Dask.*check"
    with pytest.raises(UsageError, match=message), cores.lent((), scheduler="tcp://127.0.0.1:1"):
        pass


def test_scheduler_without_dask(monkeypatch):
    """Without the extra the option says how to get it."""

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(cores.importlib, "import_module", missing)
    with pytest.raises(UsageError, match=r"pip install.*cluster"), cores.lent((), scheduler="x"):
        pass
