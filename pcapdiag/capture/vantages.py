"""From the arguments of the command line to vantages: which files were taken where.

`NAME=PATH` says it. Without NAME, the file's stem does, and in a directory the first-level folder.
"""

from __future__ import annotations

import itertools
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pcapdiag.capture import indexed
from pcapdiag.capture.naming import (
    clean_name,
    looks_like_capture,
    role_of,
    stem_and_ring,
    uncompressed_name,
    with_folders,
)
from pcapdiag.capture.reader import CaptureReader
from pcapdiag.capture.source import STDIN
from pcapdiag.errors import CaptureError, UnreadableCapture, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_FILES: Final = 10_000
"""Files of a directory that are looked at: more is a slip, such as the root directory."""

_MAX_DEPTH: Final = 8
_PROBE_BYTES: Final = 64 << 10
"""Bytes read of each file to see what it is and when it begins."""


@dataclass(frozen=True)
class VantageInput:
    """One vantage: a name and the captures taken there, in the order of time."""

    name: str
    """Clean, not empty, unique."""
    role: str | None
    """What the name's first word tells: "director", "realserver", "client", "router"."""
    labelled: bool
    """The name was given as NAME=PATH."""
    paths: tuple[str, ...]
    """As given, or below the directory that was given."""
    notes: tuple[str, ...] = ()
    """What was decided about the files, for the report."""


@dataclass
class _File:
    path: str
    label: str | None
    folder: Path
    """Absolute path of the folder that the base name stands in."""
    base: str
    """Name of the vantage where nothing else has it."""
    ring: int | None
    order: int
    identity: tuple[object, ...]
    """Equal for two names of one file."""
    first_ns: int | None = None


@dataclass
class _Group:
    base: str
    folder: Path
    labelled: bool
    files: list[_File] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def resolve(
    arguments: Sequence[str],
) -> tuple[tuple[VantageInput, ...], tuple[CaptureError, ...]]:
    """Return the vantages that `arguments` name, and the inputs that cannot be read.

    Decided here, beside what design and README say: a file given twice is read once, with a note;
    given under two labels it raises UsageError, as does an empty label. An unlabelled file whose
    stem is a label joins that vantage. A compressed copy beside its original (same name, same
    first packet) is left out with a note. In a directory, files that are no captures are passed
    over, unless their name says that they are; hidden ones always are.
    """
    errors: list[CaptureError] = []
    files: list[_File] = []
    for argument in arguments:
        label, path = _split(argument)
        if path != STDIN and Path(path).is_dir():
            files += _in_directory(path, label, errors, len(files))
            continue
        stem, ring = stem_and_ring(path) if path != STDIN else ("stdin", None)
        folder = Path(path).parent
        if path != STDIN and indexed.is_index(path):
            files += _in_index(path, label, _absolute(folder), errors, len(files))
            continue
        found = _file(path, label, _absolute(folder), stem, ring, len(files), errors)
        if found is not None:
            files.append(found)
    kept, notes = _once(files)
    groups = _group(kept)
    for group in groups:
        _leave_out_copies(group)
        group.notes += [note for file in group.files for note in notes.get(id(file), [])]
        group.files.sort(key=_time_order)
    return tuple(_named(groups)), tuple(errors)


def _split(argument: str) -> tuple[str | None, str]:
    """Return label and path of an argument; a path that exists is a path."""
    if argument == STDIN or "=" not in argument or os.path.lexists(argument):
        return None, argument
    places = [place for place, char in enumerate(argument) if char == "="]
    existing = [
        place
        for place in places
        if argument[place + 1 :] == STDIN or os.path.lexists(argument[place + 1 :])
    ]
    place = (existing or places)[0]
    name, path = argument[:place], argument[place + 1 :]
    if not name.strip():
        raise UsageError(f"{argument}: the name in front of = is missing; write NAME=PATH")
    return clean_name(name), path


def _file(
    path: str,
    label: str | None,
    folder: Path,
    base: str,
    ring: int | None,
    order: int,
    errors: list[CaptureError],
) -> _File | None:
    """Return what is known of one file, or None with the reason in `errors`."""
    found = _File(path, label, folder, base, ring, order, (path,))
    if path == STDIN:
        return found
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        status = None  # opening it says why
    if status is not None:
        found.identity = (status.st_dev, status.st_ino)
    if status is None or stat.S_ISREG(status.st_mode):  # others can be read only once
        try:
            found.first_ns = _first_time(path)
        except CaptureError as error:
            errors.append(error)
            return None
    return found


def _first_time(path: str) -> int | None:
    """Return the time of the first frame that has one soon; raises CaptureError for no capture."""
    with CaptureReader(path, _PROBE_BYTES) as reader:
        for _ in reader:
            break
        return reader.info.first_ns


def _in_index(
    path: str, label: str | None, folder: Path, errors: list[CaptureError], order: int
) -> list[_File]:
    """Return the captures of an index, at the vantages they were indexed under."""
    try:
        captures = indexed.captures(path)
    except CaptureError as error:
        errors.append(error)
        return []
    absolute = _absolute(Path(path))
    return [
        _File(
            f"{path}/{number}",
            label or (capture.vantage if capture.labelled else None),
            folder,
            capture.vantage,
            None,
            order + number,
            (absolute, number),
            capture.info.first_ns,
        )
        for number, capture in enumerate(captures)
    ]


def _in_directory(
    directory: str, label: str | None, errors: list[CaptureError], order: int
) -> list[_File]:
    """Return the captures in a directory: those at its top by stem, deeper ones by folder."""
    files: list[_File] = []
    failed = len(errors)
    top = _absolute(Path(directory))
    for path in _walk(directory, errors):
        parts = Path(path).relative_to(directory).parts
        stem, ring = stem_and_ring(path)
        base = stem if len(parts) == 1 else clean_name(parts[0])
        problems: list[CaptureError] = []
        found = _file(path, label, top, base, ring, order + len(files), problems)
        if found is not None:
            files.append(found)
        elif looks_like_capture(path):
            errors += problems
    if not files and len(errors) == failed:
        message = "there is no capture in this directory; give the files themselves"
        errors.append(UnreadableCapture(directory, message))
    return files


def _walk(directory: str, errors: list[CaptureError]) -> Iterator[str]:
    """Yield the regular files below `directory` by name; links to directories are not followed."""
    seen = 0
    waiting = [(directory, _MAX_DEPTH)]
    while waiting:
        folder, left = waiting.pop()
        deeper: list[tuple[str, int]] = []
        try:
            with os.scandir(folder) as entries:
                found = sorted(itertools.islice(entries, MAX_FILES + 1 - seen), key=_name)
        except OSError as error:
            message = f"the directory cannot be read: {error.strerror or error}"
            errors.append(UnreadableCapture(folder, message))
            continue
        seen += len(found)
        if seen > MAX_FILES:
            message = f"more than {MAX_FILES} files; give the captures themselves"
            errors.append(UnreadableCapture(directory, message))
            return
        for entry in found:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if left:
                    deeper.append((entry.path, left - 1))
            elif _is_file(entry):
                yield entry.path
        waiting += reversed(deeper)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a loop of links
        return False


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _absolute(folder: Path) -> Path:
    try:
        return folder.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name that cannot be
        return folder.absolute()


def _once(files: list[_File]) -> tuple[list[_File], dict[int, list[str]]]:
    """Return each file once, and by id(file) the notes on what was given again.

    Raises UsageError where two labels claim one file.
    """
    kept: dict[tuple[object, ...], _File] = {}
    notes: dict[int, list[str]] = {}
    for file in sorted(files, key=lambda file: (file.label is None, file.order)):
        other = kept.setdefault(file.identity, file)
        if other is file:
            continue
        if file.label is not None and file.label != other.label:
            raise UsageError(
                f"{file.path} is given as {other.label} and as {file.label}: a capture is taken "
                "at one vantage; give it once"
            )
        again = "" if file.path == other.path else f", also as {file.path}"
        note = f"{other.path} was given more than once{again}; it was read once"
        notes.setdefault(id(other), []).append(clean_name(note))
    return sorted(kept.values(), key=lambda file: file.order), notes


def _group(files: list[_File]) -> list[_Group]:
    """Return the files by vantage: one label, or one base name in one folder."""
    labels = {file.label for file in files if file.label is not None}
    groups: dict[tuple[str, Path | None], _Group] = {}
    for file in files:
        label = file.label or (file.base if file.base in labels else None)
        base = label or file.base
        key = (base, None if label else file.folder)
        group = groups.setdefault(key, _Group(base, file.folder, label is not None))
        group.files.append(file)
    return list(groups.values())


def _leave_out_copies(group: _Group) -> None:
    """Leave out compressed copies that stand beside their originals.

    `tcpdump -z` with a ring leaves older files beside newer ones of the same name, so the first
    packet decides.
    """
    kept: dict[tuple[Path, str, int], _File] = {}
    for file in sorted(group.files, key=lambda file: len(Path(file.path).name)):
        if file.first_ns is None:
            continue
        folder = _absolute(Path(file.path).parent)
        other = kept.setdefault((folder, uncompressed_name(file.path), file.first_ns), file)
        if other is not file:
            group.files.remove(file)
            note = f"{file.path} was left out as a compressed copy of {other.path}"
            group.notes.append(clean_name(note))


def _time_order(file: _File) -> tuple[bool, int, int, int]:
    """Sort by the first packet's time, then by ring number; files without either come last."""
    ring = -1 if file.ring is None else file.ring
    return file.first_ns is None, file.first_ns or 0, ring, file.order


def _named(groups: list[_Group]) -> Iterator[VantageInput]:
    """Yield the groups under names that are unique."""
    taken: set[str] = {group.base for group in groups if group.labelled}
    bases = [group.base for group in groups]
    for group in groups:
        name = group.base
        if not group.labelled:
            if bases.count(name) > 1:
                rivals = [(other.base, other.folder) for other in groups if other is not group]
                name = with_folders(group.base, group.folder, rivals)
            number = 2
            unique = name
            while unique in taken:
                unique = f"{name}-{number}"
                number += 1
            name = unique
            taken.add(name)
        yield VantageInput(
            name=name,
            role=role_of(name) or role_of(group.base),
            labelled=group.labelled,
            paths=tuple(file.path for file in group.files),
            notes=tuple(group.notes),
        )
