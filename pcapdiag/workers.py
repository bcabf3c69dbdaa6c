"""The work on each capture: from its path to decoded tables, here or wherever an executor runs it.

Only paths and tables travel. `distributed.Client.get_executor()` is an executor like any other.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
from concurrent.futures import (
    BrokenExecutor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

from pcapdiag import memory, spool
from pcapdiag.capture import indexed
from pcapdiag.capture.reader import open_capture
from pcapdiag.capture.source import STDIN
from pcapdiag.decode.alike_errors import FirstOfAlike
from pcapdiag.decode.gathered import filed, gather
from pcapdiag.decode.packets import GUE_PORTS
from pcapdiag.errors import CaptureError, UnreadableCapture
from pcapdiag.export import index
from pcapdiag.flows import partitions
from pcapdiag.processes import Processes
from pcapdiag.spool import SpoolError
from pcapdiag.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor

    from pcapdiag.capture.frames import CaptureInfo
    from pcapdiag.decode.packets import Decoded
    from pcapdiag.flows.partitions import Piece
    from pcapdiag.spool import WorkDirectory

_DIGEST_BLOCK = 1 << 20

_ONE_BATCH_BYTES: Final = 8 << 20
"""A capture of so many bytes is one batch: there is nothing to decode beside it."""


@dataclass(frozen=True, slots=True)
class ReadCapture:
    """One capture, read and decoded."""

    info: CaptureInfo
    decoded: Decoded
    sha256: str | None
    split: tuple[Piece, ...] | None = None
    """Of what was spooled, where that was asked for and could be done."""


def read_capture(
    path: str,
    capture: int,
    *,
    digest: bool = False,
    tunnel_ports: frozenset[int] = frozenset(),
    progress: Callable[[str, int, int | None], None] | None = None,
    work: WorkDirectory | None = None,
    in_memory_rows: int = spool.IN_MEMORY_ROWS,
    most_icmp: int | None = None,
    split: bool = False,
) -> ReadCapture:
    """Read and decode the capture at `path` as number `capture` of the case, or out of an index.

    With more than `in_memory_rows` packets they are spooled into `work`, if there is one. Of ICMP
    messages no more than `most_icmp` are kept (see decode.alike_errors). With `split` what is
    spooled is taken apart by five-tuple meanwhile, for a vantage that is this capture alone.

    `tunnel_ports` carry GUE beside the usual one. `progress(path, bytes_done, bytes_total)` is told
    of the start, of every batch and of the end. Raises CaptureError where nothing can be read; what
    is wrong further in stands in the notes.
    """
    alike = None if most_icmp is None else FirstOfAlike(most_icmp)
    found = indexed.member(path)
    if found is not None:
        try:
            entry, decoded = index.read(*found, capture, limit=in_memory_rows, work=work)
        except SpoolError as error:
            raise UnreadableCapture(path, str(error)) from error
        missing = sorted(tunnel_ports.difference(entry.tunnel_ports))
        if missing:
            message = f"was indexed without the tunnel ports {missing} of site.toml; "
            raise UnreadableCapture(path, f"{message}{indexed.AGAIN} --site")
        info = entry.info
        if alike is not None:
            (rest,) = alike.taken_from([decoded])
            decoded = replace(rest, icmp=alike.table())
            info = replace(info, icmp_share=alike.share)
        return ReadCapture(info, decoded, entry.sha256 if digest else None)
    size = _size(path)
    if progress:
        progress(path, 0, size)
    large = size is None or size > _ONE_BATCH_BYTES
    # Not from a pipe: nothing can call back a thread that waits for bytes which may never come.
    ahead = large and size is not None and pl.thread_pool_size() > 1
    splitting = partitions.Splitting(work, capture) if split and work is not None else None
    with (
        _digest_of(path if digest and size is not None else None) as sha256,
        open_capture(path, ahead=ahead) as reader,
    ):

        def tell() -> None:
            if progress:
                progress(path, reader.bytes_read, size)

        try:
            decoded = gather(
                reader,
                capture,
                gue_ports=GUE_PORTS | tunnel_ports,
                limit=in_memory_rows,
                work=work,
                first_of_alike=alike,
                along=None if splitting is None else splitting.add,
                tell=tell,
            )
        except SpoolError as error:
            raise UnreadableCapture(path, str(error)) from error
        info = replace(reader.info, icmp_share=alike.share if alike is not None else 1)
    if large:
        memory.give_back()
    if progress:
        progress(path, size or 0, size)
    pieces = splitting.made() if splitting is not None else None
    return ReadCapture(info, decoded, sha256.result() if sha256 else None, pieces)


def read_captures(
    paths: Sequence[str],
    executor: Executor | None = None,
    *,
    digest: bool = False,
    tunnel_ports: frozenset[int] = frozenset(),
    progress: Callable[[str, int, int | None], None] | None = None,
    work: WorkDirectory | None = None,
    most_icmp: int | None = None,
    split: Sequence[bool] = (),
) -> Iterator[ReadCapture | CaptureError]:
    """Yield, for each of `paths`, what read_capture returns or raises, numbered by place.

    Arguments as there; `split` has one of each path, or it is false of all. `executor` does the
    work; standard input and indexes, which are quickly read, stay here. Only processes of this host
    are told of `work`: what comes from others is spooled here.
    """
    each = spool.IN_MEMORY_ROWS // max(1, len(paths))
    theirs = work if isinstance(executor, ProcessPoolExecutor) and _exists(work) else None
    options = [
        Options(digest, tunnel_ports, theirs, each, most_icmp, whole)
        for whole in split or [False] * len(paths)
    ]
    pending = [
        _submitted(executor, path, number, options[number])
        if executor is not None and path != STDIN and indexed.member(path) is None
        else None
        for number, path in enumerate(paths)
    ]
    try:
        for number, path in enumerate(paths):
            future = pending.pop(0)
            try:
                if future is None:
                    here = options[number]._replace(work=work)
                    yield read_capture(path, number, progress=progress, **here._asdict())
                else:
                    read = _result(path, number, future, options[number])
                    yield _within_memory(path, number, read, each, work)
            except CaptureError as error:
                yield error
            if future is not None and progress:
                size = _size(path)
                progress(path, size or 0, size)
    finally:
        for future in pending:
            if future is not None:
                future.cancel()


def _exists(work: WorkDirectory | None) -> bool:
    """Whether there is a work directory; where not, only what does not fit into memory fails."""
    try:
        return work is not None and bool(work.path)
    except SpoolError:
        return False


def _submitted(executor: Executor, path: str, number: int, options: Options) -> Future[ReadCapture]:
    try:
        return executor.submit(_read_elsewhere, path, os.path.abspath(path), number, options)  # noqa: PTH100 - the path is the user's text
    except BrokenExecutor as error:  # as those will be that were submitted before
        broken: Future[ReadCapture] = Future()
        broken.set_exception(error)
        return broken


def _result(path: str, number: int, future: Future[ReadCapture], options: Options) -> ReadCapture:
    """Return what became of a capture; raises CaptureError.

    A process that dies breaks the work of all the others: what can be read again is, each capture
    in a process of its own, so that only one that kills its reader is missing.
    """
    try:
        try:
            return future.result()
        except BrokenExecutor:
            if _size(path) is None:
                raise
            with Processes(1) as alone:
                return _submitted(alone, path, number, options).result()
    except CaptureError:
        raise
    except Exception as error:
        reason = clean(f"{type(error).__name__}: {error}")
        message = f"the process that read it failed ({reason}); try --jobs 1, without --scheduler"
        raise UnreadableCapture(path, message) from error


def _within_memory(
    path: str, capture: int, read: ReadCapture, limit: int, work: WorkDirectory | None
) -> ReadCapture:
    """Spool what came from elsewhere and is too much to be held, and hold what is not."""
    packets = read.decoded.packets
    fits = len(packets) <= limit
    if isinstance(packets, spool.Spooled):
        if not fits:
            return read
        partitions.discard(read.split or ())
        return replace(read, decoded=read.decoded.kept(spool.loaded), split=None)
    if work is None or fits:
        return read
    try:
        return replace(read, decoded=filed(read.decoded, work.folder(capture)))
    except SpoolError as error:
        raise UnreadableCapture(path, str(error)) from error


class Options(NamedTuple):
    """What read_capture is asked for beside a path and a number."""

    digest: bool = False
    tunnel_ports: frozenset[int] = frozenset()
    work: WorkDirectory | None = None
    in_memory_rows: int = spool.IN_MEMORY_ROWS
    most_icmp: int | None = None
    split: bool = False


def _read_elsewhere(path: str, place: str, capture: int, options: Options) -> ReadCapture:
    """Do read_capture of the absolute path `place` where this runs, and call it `path`."""
    if not Path(place).exists():
        message = "no such file where it was to be read; every worker must see it under this path"
        raise UnreadableCapture(path, message)
    try:
        read = read_capture(place, capture, **options._asdict())
    except CaptureError as error:
        raise type(error)(path, error.message) from error
    decoded = read.decoded
    if options.work is not None and isinstance(decoded.packets, pl.DataFrame):
        # A file is handed over in a fifth of the time that it takes through a pipe.
        with contextlib.suppress(SpoolError):
            decoded = filed(decoded, options.work.folder(capture))
    return replace(read, info=replace(read.info, path=path), decoded=decoded)


def _size(path: str) -> int | None:
    """Return a regular file's size; None for what has none, as a pipe, or is not there."""
    try:
        status = Path(path).stat()
    except OSError:  # the reader says what is wrong with it
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


@contextlib.contextmanager
def _digest_of(path: str | None) -> Iterator[Future[str] | None]:
    """Lend the SHA-256 of a file, made beside the block; what ends the block early ends it, too."""
    if path is None:
        yield None
        return
    unwanted = threading.Event()
    with ThreadPoolExecutor(1) as beside:
        try:
            yield beside.submit(_sha256, path, unwanted)
        except BaseException:
            unwanted.set()
            raise


def _sha256(path: str, unwanted: threading.Event) -> str:
    result = hashlib.sha256()
    with Path(path).open("rb") as file:
        while not unwanted.is_set() and (block := file.read(_DIGEST_BLOCK)):
            result.update(block)
    return result.hexdigest()
