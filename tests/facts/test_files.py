"""--facts takes files by name or path, plain or gzip, and bounds what it reads."""

from __future__ import annotations

import gzip

import pytest

from pcapdiag.errors import UsageError
from pcapdiag.facts import files, load
from pcapdiag.kernel.ipvs_timeouts import Timeouts

LINE = "kernel: IPVS: Incoming ICMP: failed checksum from 192.0.2.1!\n"


@pytest.fixture
def log(tmp_path):
    """Return a kernel log of three lines that count."""
    path = tmp_path / "dmesg.txt"
    path.write_text(LINE * 3)
    return path


def test_a_name_says_whose_log_it_is(log):
    """Without one the file's stem does."""
    assert load([f"director={log}"]).log_lines("icmp-checksum") == {"director": 3}
    assert load([str(log)]).log_lines("icmp-checksum") == {"dmesg": 3}
    assert load([str(log)]).log_lines("icmp-checksum", "192.0.2.9") == {}


def test_a_path_that_exists_is_a_path(tmp_path):
    """Whatever it contains, "=" too."""
    path = tmp_path / "a=b"
    path.write_text(LINE)
    assert load([str(path)]).log_lines("icmp-checksum") == {"a=b": 1}


def test_logs_of_one_name_add_up(log, tmp_path):
    """Rotated logs, one of them compressed."""
    packed = tmp_path / "messages.1.gz"
    packed.write_bytes(gzip.compress(LINE.encode() * 2))
    facts = load([f"d={log}", f"d={packed}"])
    assert facts.log_lines("icmp-checksum") == {"d": 5}


def test_a_directory_gives_its_logs(log, tmp_path):
    """Names that begin like a log's; others are left alone, none at all is an error."""
    (tmp_path / "notes.txt").write_text(LINE)
    assert load([f"d={tmp_path}"]).log_lines("icmp-checksum") == {"d": 3}
    log.unlink()
    with pytest.raises(UsageError, match="no file in it has a known name"):
        load([str(tmp_path)])


def test_a_file_without_a_known_line_is_noted(tmp_path):
    """Not an error: most days a log holds none."""
    path = tmp_path / "dmesg"
    path.write_bytes(b"\xff\x00\x1b[2J no such line\n")
    facts = load([str(path)])
    assert facts.logs == ()
    assert "holds no line that pcapdiag knows" in facts.notes[0]


def test_ipvsadm_of_a_host_gives_its_timeouts(tmp_path):
    """By the host's name; what one host alone said holds for a host that goes by another name."""
    path = tmp_path / "timeouts.txt"
    path.write_text("Timeout (tcp tcpfin udp): 3600 60 300\n")
    facts = load([f"lb1={path}"])
    assert facts.timeouts_of("lb1") == facts.timeouts_of("director") == Timeouts(3600, 60, 300)
    assert facts.logs == ()
    assert "the timeouts of lb1 taken into account" in facts.notes[0]
    other = tmp_path / "ipvsadm.txt"
    other.write_text("Timeout (tcp tcpfin udp): 7200 60 300\n")
    both = load([f"lb1={path}", f"lb2={tmp_path}"])
    assert both.timeouts_of("lb2") == Timeouts(7200, 60, 300)
    assert both.timeouts_of("director") is None
    assert load([]).timeouts_of("lb1") is None


def test_what_is_longer_than_the_limit_is_cut_and_noted(log, monkeypatch):
    """Memory and time stay bounded, also for one line without an end."""
    monkeypatch.setattr(files, "MAX_BYTES", len(LINE) * 2)
    facts = load([str(log)])
    assert facts.log_lines("icmp-checksum") == {"dmesg": 2}
    assert any("were read" in note for note in facts.notes)


@pytest.mark.parametrize("argument", ["", "x\0y", "=x", "name=", "missing.txt", "d=missing.txt"])
def test_what_cannot_be_read_is_a_usage_error(argument):
    """One line that says what is wrong."""
    with pytest.raises(UsageError, match="--facts"):
        load([argument])


def test_a_broken_gzip_file_is_a_usage_error(tmp_path):
    """As is one that ends early."""
    path = tmp_path / "dmesg.gz"
    path.write_bytes(gzip.compress(LINE.encode() * 1000)[:-9])
    with pytest.raises(UsageError, match="cannot be read"):
        load([str(path)])
