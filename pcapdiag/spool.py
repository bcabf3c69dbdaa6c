"""Tables that outgrow memory: Arrow IPC files in a work directory, read when and where asked for.

A `Table` is a DataFrame or a Spooled one. Both have `lazy()`, which is how to ask for rows by what
is in them; `at()` takes rows by number. Files are written once, uncompressed, so that a scan reads
the columns it needs and nothing else. Names within a work directory are never used twice.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, TypeVar

import numpy as np
import polars as pl

from pcapdiag import beside, memory
from pcapdiag.errors import PcapdiagError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import IO

    from numpy.typing import NDArray

_Record = TypeVar("_Record", bound=np.generic)

IN_MEMORY_ROWS: Final = 1_750_000
"""Packets of all captures together that are held in memory: 0.25 GB of tables."""

CHUNK_ROWS: Final = 1 << 18
"""Rows of a file: 37 MB, so that two of them in memory are nothing to speak of."""

BATCH_ROWS: Final = 1 << 14
"""Rows of a record batch of a file: a slice holds the batches it touches, whole."""


class SpoolError(PcapdiagError):
    """The work directory cannot be used; the message names it, the reason and the remedy."""


class WorkDirectory:
    """A directory below `where` ($TMPDIR, or /tmp), made when first needed, removed at the end."""

    def __init__(self, where: str | None = None) -> None:
        """Make nothing yet."""
        self._where = where
        self._made: tempfile.TemporaryDirectory[str] | None = None

    @property
    def path(self) -> str:
        """Return the directory, which now exists. Raises SpoolError."""
        if self._made is None:
            try:
                self._made = tempfile.TemporaryDirectory(
                    prefix="pcapdiag-", dir=self._where, ignore_cleanup_errors=True
                )
            except OSError as error:
                raise _refused(self._where or error.filename or "$TMPDIR", error) from error
        return self._made.name

    def folder(self, capture: int) -> str:
        """Return where all that is made of a capture goes, which now exists. Raises SpoolError."""
        place = Path(self.path) / str(capture)
        try:
            place.mkdir(exist_ok=True)
        except OSError as error:
            raise _refused(self.path, error) from error
        return str(place)

    def __reduce__(self) -> tuple[Callable[[str], WorkDirectory], tuple[str]]:
        """Be the same directory in another process, which does not remove it."""
        return _existing, (self.path,)

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove it with all that is in it."""
        if self._made is not None:
            self._made.cleanup()
            self._made = None


class _Existing(WorkDirectory):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    @property
    def path(self) -> str:
        return self._path


def _existing(path: str) -> WorkDirectory:
    return _Existing(path)


@dataclass(frozen=True, slots=True)
class Spooled:
    """A table in files one behind the other; row numbers count through all of them."""

    paths: tuple[str, ...]
    heights: tuple[int, ...]
    more: tuple[str, ...] = ()
    """Files of further columns, if any: one for each of `paths`, with as many rows."""
    changes: tuple[pl.Expr, ...] = ()
    """Columns computed anew whenever they are read, from what stands in the same row."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return sum(self.heights)

    @property
    def height(self) -> int:
        """Return the number of rows."""
        return len(self)

    @property
    def folder(self) -> str:
        """Return where the files are."""
        return str(Path(self.paths[0]).parent)

    def lazy(self) -> pl.LazyFrame:
        """Return the table as a query: only the columns asked for are read."""
        return self._query(self.paths, self.more).with_columns(*self.changes)

    def with_columns(self, *changes: pl.Expr) -> Spooled:
        """Return the table with columns replaced by expressions over the same row."""
        return replace(self, changes=(*self.changes, *changes))

    def hstack(self, more: Spooled) -> Spooled:
        """Return the table with the columns of another, whose files are as high as its own."""
        return replace(self, more=more.paths)

    def files(self, some: slice) -> Spooled:
        """Return the table that some of the files are."""
        return replace(
            self, paths=self.paths[some], heights=self.heights[some], more=self.more[some]
        )

    def chunks(self, *names: str) -> Iterator[pl.DataFrame]:
        """Yield the rows file by file; columns `names`, or all."""
        for number in range(len(self.paths)):
            yield self._rows(number, names, None)

    def at(self, rows: NDArray[np.int64], names: Sequence[str]) -> pl.DataFrame:
        """Return the given rows in the given order; see the function of that name."""
        wanted, place = np.unique(rows, return_inverse=True)
        ends = np.cumsum(self.heights)
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < len(self):
            raise IndexError(f"row {wanted[-1]} of a table of {len(self)}")
        parts = [self._rows(0, names, wanted[:0])]
        for number, (end, height) in enumerate(zip(ends, self.heights, strict=True)):
            begin = end - height
            inside = slice(*np.searchsorted(wanted, (begin, end)))
            if inside.stop > inside.start:
                parts.append(self._rows(number, names, wanted[inside] - begin))
        return pl.concat(parts)[place]

    def _rows(
        self, number: int, names: Sequence[str], rows: NDArray[np.int64] | None
    ) -> pl.DataFrame:
        """Return rows of one file, which ascend, or all of them."""
        one = slice(number, number + 1)
        needed = dict.fromkeys(names)
        for change in self.changes if names else ():
            needed.update(dict.fromkeys(change.meta.root_names()))
        query = self._query(self.paths[one], self.more[one])
        if rows is not None:
            first, end = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
            query = query.slice(first, end - first)
            rows = rows - first
        # In one piece: rows are taken out of sixteen batches in four times as long.
        read = (query.select(*needed) if needed else query).collect().rechunk()
        read = read if rows is None else read[pl.Series(rows.astype(np.uint32))]
        read = read.with_columns(*self.changes)
        return read.select(names) if names else read

    @staticmethod
    def _query(paths: Sequence[str], more: Sequence[str]) -> pl.LazyFrame:
        layers = [pl.scan_ipc(list(files)) for files in (paths, more) if files]
        return layers[0] if len(layers) == 1 else pl.concat(layers, how="horizontal")


Table: TypeAlias = pl.DataFrame | Spooled


def at(table: Table, rows: pl.Series | Sequence[int], *names: str) -> pl.DataFrame:
    """Return rows of a table by number, in that order: columns `names`, or all. No row is null."""
    if isinstance(table, Spooled):
        return table.at(np.asarray(rows, dtype=np.int64), names)
    index = rows if isinstance(rows, pl.Series) else pl.Series(values=rows, dtype=pl.UInt32)
    return (table[list(names)] if names else table)[index]


def engine(table: Table) -> Literal["auto", "streaming"]:
    """Return the polars engine that groups all rows of a table without holding them all."""
    return "streaming" if isinstance(table, Spooled) else "auto"


def frames(table: Table, *names: str) -> Iterator[pl.DataFrame]:
    """Yield the rows of a table, at least one frame: of a file each, or of CHUNK_ROWS at most.

    Columns `names`, or all.
    """
    if isinstance(table, Spooled):
        yield from table.chunks(*names)
    elif table.is_empty():
        yield table.select(names) if names else table
    else:
        yield from (table.select(names) if names else table).iter_slices(CHUNK_ROWS)


def spooled(
    frames: Iterable[pl.DataFrame],
    folder: str,
    along: Callable[[pl.DataFrame], None] | None = None,
) -> Spooled:
    """Write frames of any heights to files of about CHUNK_ROWS rows.

    `along` is called with what goes to each file, in order. Raises SpoolError, and leaves nothing
    then.
    """
    return filed(_chunked(frames), folder, along)


class Pile:
    """A table written as its frames come, to files of about CHUNK_ROWS rows."""

    def __init__(self, folder: str) -> None:
        """Write nothing yet."""
        self._folder = folder
        self._held: list[pl.DataFrame] = []
        self._paths: list[str] = []
        self._heights: list[int] = []

    def add(self, table: pl.DataFrame) -> None:
        """Add rows at the end. Raises SpoolError."""
        for frame in frames(table):
            self._held.append(frame)
            if sum(map(len, self._held)) >= CHUNK_ROWS:
                self._put()

    def table(self) -> Spooled:
        """Return what was added; nothing can be afterwards. Raises SpoolError."""
        if sum(map(len, self._held)) or not self._paths:
            self._put()
        return Spooled(tuple(self._paths), tuple(self._heights))

    def _put(self) -> None:
        frame = _taken(self._held)
        self._paths.append(written(frame, self._folder))
        self._heights.append(len(frame))


def filed(
    frames: Iterable[pl.DataFrame],
    folder: str,
    along: Callable[[pl.DataFrame], None] | None = None,
) -> Spooled:
    """Write each frame to a file, and give it to `along`, beside the making of the next one.

    Raises SpoolError, and leaves nothing then.
    """
    paths: list[str] = []
    heights: list[int] = []

    def put(frame: pl.DataFrame) -> None:
        paths.append(written(frame, folder))
        heights.append(len(frame))
        if along is not None:
            along(frame)

    try:
        for _ in beside.mapped(put, frames):
            memory.give_back()
    except SpoolError:
        discard(Spooled(tuple(paths), ()))  # what others write finds room
        raise
    return Spooled(tuple(paths), tuple(heights))


def _chunked(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Join frames to such of CHUNK_ROWS and more, the last being shorter; yield at least one."""
    held: list[pl.DataFrame] = []
    rows, some = 0, False
    for frame in frames:
        if len(frame) or not (held or some):
            held.append(frame)
            rows += len(frame)
        if rows >= CHUNK_ROWS:
            yield _taken(held)
            rows, some = 0, True
    if held:
        yield _taken(held)


def _taken(held: list[pl.DataFrame]) -> pl.DataFrame:
    whole = pl.concat(held, rechunk=True)
    held.clear()
    return whole


def written(frame: pl.DataFrame, folder: str) -> str:
    """Write one file and return its path. Raises SpoolError, and leaves nothing half-written."""
    path = Path(folder) / f"{uuid.uuid4().hex}.arrow"
    try:
        frame.write_ipc(path, compat_level=pl.CompatLevel.newest(), record_batch_size=BATCH_ROWS)
    except (OSError, pl.exceptions.PolarsError) as error:
        path.unlink(missing_ok=True)
        raise _refused(folder, error) from error
    return str(path)


def recorded(records: NDArray[Any], folder: str) -> str:
    """Write numpy records to a file of nothing else; as written() for what is read once."""
    path = Path(folder) / f"{uuid.uuid4().hex}.records"
    try:
        path.write_bytes(records.data)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _refused(folder, error) from error
    return str(path)


def records(path: str, dtype: np.dtype[_Record], begin: int, end: int) -> NDArray[_Record]:
    """Return records `begin` to `end` of what recorded() wrote."""
    return np.fromfile(path, dtype, end - begin, offset=begin * dtype.itemsize)


def loaded(table: Table) -> pl.DataFrame:
    """Return a table in memory, and remove its files."""
    whole = pl.concat(frames(table), rechunk=True)
    discard(table)
    return whole


def replaced(table: Table, how: Callable[[pl.DataFrame], pl.DataFrame]) -> Table:
    """Return what `how` makes of the rows, kept as they were; files of the old are removed."""
    if isinstance(table, pl.DataFrame):
        return how(table)
    made = spooled(map(how, table.chunks()), table.folder)
    discard(table)
    return made


def copied(file: IO[bytes], place: Path) -> None:
    """Write what is still to come of a file to another. Raises SpoolError, and leaves nothing."""
    try:
        with place.open("wb") as copy:
            while block := file.read(1 << 20):
                copy.write(block)
    except OSError as error:
        place.unlink(missing_ok=True)
        raise _refused(str(place.parent), error) from error


def discard(table: Table) -> None:
    """Remove the files of a table that is needed no more."""
    for path in (*table.paths, *table.more) if isinstance(table, Spooled) else ():
        with contextlib.suppress(OSError):  # the work directory goes as a whole later
            Path(path).unlink()


def folders(tables: Iterable[Table]) -> frozenset[str]:
    """Return where the files of some tables are, and of all that is made of them."""
    return frozenset(table.folder for table in tables if isinstance(table, Spooled))


def clear(folders: Iterable[str]) -> None:
    """Remove all that was made of captures that are given up."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _refused(where: str, error: Exception) -> SpoolError:
    reason = str(error).partition("\n")[0]
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    return SpoolError(
        f"the work directory {where} cannot hold what does not fit into memory ({reason}); give "
        "another with --work-dir, which takes up to 350 bytes a packet"
    )
