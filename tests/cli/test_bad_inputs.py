"""Whatever is given as a capture, the answer is a line and an exit code, never a traceback."""

from __future__ import annotations

import builtins
import io
import json
import os
import socket
import threading

import pytest

QUIET = ("--no-html", "--json", "result.json")


def _packets(place, vantage=0):
    result = json.loads((place / "result.json").read_text())
    return result["vantages"][vantage]["files"][0]["packets"]


def _notes(place):
    result = json.loads((place / "result.json").read_text())
    return " ".join(result["vantages"][0]["files"][0]["notes"])


COMMANDS = [
    ("analyze", "--no-html"),
    ("inspect",),
    ("packets", "--csv", "packets.csv"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    "content", [b"", b"\n", b"just text, no capture\n" * 20, b"\xd4\xc3\xb2\xa1", b"\0" * 500]
)
def test_what_is_no_capture_is_unreadable(run, place, command, content):
    """An empty file, text, a bare magic number and zeros end with 3 and one line."""
    (place / "odd.pcap").write_bytes(content)
    ended = run(command[0], "odd.pcap", *command[1:])
    assert ended.code == 3
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1
    assert ended.errors[0].startswith("odd.pcap: ")
    assert not (place / "packets.csv").exists()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_missing_path_is_unreadable(run, place, command):
    """The path is named as it was given."""
    assert place.exists()
    ended = run(command[0], "no/such.pcap", *command[1:])
    assert ended.code == 3
    assert len(ended.errors) == 1
    assert ended.errors[0].startswith("no/such.pcap: ")


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_a_capture_cut_at_any_byte_is_read_up_to_there(run, place, captures, form):
    """Every prefix ends with a clear answer: too little for a header, or the whole frames in it."""
    content = getattr(captures, form)
    seen = set()
    for length in range(len(content) + 1):
        (place / "cut.pcap").write_bytes(content[:length])
        ended = run("packets", "cut.pcap", "--csv", "-")
        assert ended.code in {0, 3}
        if ended.code == 3:
            assert len(ended.errors) == 1
            assert length < 100
            continue
        seen.add(len(ended.out.splitlines()) - 1)
    assert seen == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_a_cut_capture_is_analysed_and_the_cut_is_noted(run, place, captures, form):
    """What was read counts, and the report says that it is not all."""
    content = getattr(captures, form)
    (place / "cut.pcap").write_bytes(content[:-30])
    assert run("analyze", "cut.pcap", *QUIET).code == 0
    assert _packets(place) == 4
    result = json.loads((place / "result.json").read_text())
    assert result["vantages"][0]["files"][0]["cut_short"] is True


def test_a_broken_block_in_the_middle_ends_the_reading(run, place, captures):
    """Frames before an impossible block length are analysed, the rest is noted."""
    content = bytearray(captures.pcapng)
    at = 0
    for _ in range(4):  # section, interface, two packets
        at += int.from_bytes(content[at + 4 : at + 8], "little")
    content[at + 4 : at + 8] = b"\xff\xff\xff\x7f"
    (place / "broken.pcapng").write_bytes(content)
    assert run("analyze", "broken.pcapng", *QUIET).code == 0
    assert _packets(place) == 2
    assert _notes(place) != ""


def test_a_link_type_that_nobody_decodes_is_analysed_to_nothing(run, place, captures):
    """Frames are counted, and no question is called clean."""
    (place / "odd.pcap").write_bytes(captures.user_linktype)
    assert run("analyze", "odd.pcap", *QUIET).code == 0
    result = json.loads((place / "result.json").read_text())
    assert _packets(place) == 5
    assert result["findings"] == []
    assert result["failed_rules"] == []
    ended = run("inspect", "odd.pcap")
    assert ended.code == 0
    assert "unknown-linktype 5" in ended.out


def test_a_capture_without_packets_is_analysed(run, place, captures):
    """A header alone is a capture: nothing is found, and nothing is clean."""
    (place / "empty.pcap").write_bytes(captures.pcap[:24])
    assert run("analyze", "empty.pcap", *QUIET).code == 0
    result = json.loads((place / "result.json").read_text())
    assert _packets(place) == 0
    assert result["findings"] == result["clean"] == result["failed_rules"] == []
    assert result["not_examined"] != []


def test_a_folder_without_captures_is_unreadable(run, place):
    """A folder is searched, and one that holds none is named."""
    (place / "folder").mkdir()
    (place / "folder" / "notes.txt").write_text("none here")
    ended = run("analyze", "folder", "--no-html")
    assert ended.code == 3
    assert len(ended.errors) == 1
    assert ended.errors[0].startswith("folder: ")


def test_the_same_file_twice_is_read_once(run, place):
    """A file named twice, by whatever path, would show every packet as seen twice."""
    (place / "link.pcap").symlink_to("director.pcap")
    inputs = ["director.pcap", "./director.pcap", "link.pcap"]
    assert run("analyze", *inputs, *QUIET).code == 0
    result = json.loads((place / "result.json").read_text())
    assert [each["name"] for each in result["vantages"]] == ["director"]
    assert _packets(place) == 5
    assert any("given more than once" in note for note in result["notes"])
    assert "given more than once" in run("inspect", *inputs).out


def test_two_names_for_one_file_are_a_contradiction(run, place):
    """One capture cannot have been taken at two places."""
    assert place.exists()
    ended = run("analyze", "director=director.pcap", "rs1=director.pcap", *QUIET)
    assert ended.code == 2
    assert len(ended.errors) == 1
    assert "director.pcap is given as" in ended.errors[0]


def test_a_file_without_permission_is_unreadable(run, place, monkeypatch):
    """The operating system's refusal is one line; the other captures are analysed."""

    def refusing(real):
        def opened(path, *arguments, **options):
            if os.fspath(path).endswith("rs1.pcap") if not isinstance(path, int) else False:
                raise PermissionError(13, "Permission denied", path)
            return real(path, *arguments, **options)

        return opened

    for module, name in ((builtins, "open"), (io, "open"), (os, "open")):
        monkeypatch.setattr(module, name, refusing(getattr(module, name)))
    ended = run("analyze", "director.pcap", "rs1.pcap", *QUIET)
    assert ended.code == 3
    assert len(ended.errors) == 1
    assert ended.errors[0].startswith("rs1.pcap: ")
    assert "ermission" in ended.errors[0]
    assert len(json.loads((place / "result.json").read_text())["vantages"]) == 1


@pytest.mark.parametrize(
    "name", ["a=b=c.pcap", "new\nline.pcap", "[red]x.pcap", "-dash.pcap", "ü.pcap", "\udcff.pcap"]
)
def test_a_file_name_may_hold_anything(run, place, captures, name):
    """A path that exists is a path; no output is broken by it."""
    (place / name).write_bytes(captures.pcap)
    ended = run("analyze", "--no-html", "--json", "result.json", "--markdown", "a.md", "--", name)
    assert ended.code == 0
    assert _packets(place) == 5
    assert run("inspect", "--", name).code == 0


@pytest.mark.parametrize("argument", ["", "=", "x=", "\0", "x=\0", "a" * 5000, "-="])
def test_an_argument_that_names_nothing_is_an_error(run, argument):
    """Empty names, NUL characters and endless paths are told from captures."""
    ended = run("analyze", "--no-html", "--", argument)
    assert ended.code in {2, 3}
    assert len(ended.errors) == 1


def test_a_capture_that_vanishes_is_unreadable(run, place, monkeypatch):
    """A file deleted between its listing and its reading is one line."""
    from pcapdiag.capture import vantages

    real = vantages.resolve

    def resolve_and_delete(arguments):
        found = real(arguments)
        (place / "rs1.pcap").unlink()
        return found

    monkeypatch.setattr(vantages, "resolve", resolve_and_delete)
    ended = run("analyze", "director.pcap", "rs1.pcap", *QUIET)
    assert ended.code == 3
    assert len(ended.errors) == 1
    assert _packets(place) == 5


def test_a_socket_or_a_device_is_unreadable(run, place):
    """What is neither file nor pipe ends in a line."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("odd.pcap")
        for special in ("odd.pcap", "/dev/null"):
            ended = run("analyze", special, "--no-html")
            assert ended.code == 3
            assert len(ended.errors) == 1
    assert (place / "odd.pcap").exists()


def test_a_named_pipe_is_a_capture(run, place, captures):
    """A capture that another program writes into a pipe is read as it comes, once."""
    os.mkfifo("live.pcap")
    writer = threading.Thread(target=(place / "live.pcap").write_bytes, args=(captures.pcap,))
    writer.start()
    ended = run("analyze", "director=live.pcap", *QUIET, "--evidence", "cited.pcapng")
    writer.join()
    assert ended.code == 0
    assert _packets(place) == 5


def test_a_named_pipe_cannot_be_indexed(run, place):
    """Nothing waits for a pipe that it would need twice."""
    os.mkfifo("live.pcap")
    ended = run("index", "live.pcap", "-o", "case.pcapidx")
    assert ended.code == 2
    assert len(ended.errors) == 1
    assert not (place / "case.pcapidx").exists()
