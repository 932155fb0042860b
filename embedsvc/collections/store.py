"""The store of one collection: a SQLite file that holds everything; all else can be rebuilt from it."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from embedsvc.collections.lexical import ANALYZER
from embedsvc.collections.migrations import migrate, rebuild_lexical
from embedsvc.collections.options import CollectionOptions
from embedsvc.collections.schema import FORMAT_VERSION, PAGE_BYTES, Identity, create_tables
from embedsvc.collections.views import View
from embedsvc.collections.writer import Writer
from embedsvc.errors import EmbedsvcError, NotFoundError, StorageError, UnavailableError
from indexing.durable import sync_folder

_BUSY_SECONDS = 30.0
_MAPPED_BYTES = 1 << 30
_LOG_BYTES = 64 << 20  # that the write-ahead log keeps on disk once it has been merged
_READABLE = (1, FORMAT_VERSION)


class _Connection(sqlite3.Connection):
    """A connection that knows what it was opened on: see `_moment`."""

    moment: tuple[str, int, int] = ("", 0, 0)


class Store:
    """Connections to one SQLite file, and transactions on it. Safe to use from several threads.

    A file or folder that may not be written is opened for reading only.
    """

    def __init__(self, path: Path) -> None:
        """Open an existing file; raise NotFoundError or StorageError naming it."""
        if not path.is_file():
            raise NotFoundError(f"no collection at {path.parent}")
        self.path = path
        self.read_only = not _may_be_written(path)
        self._file = path.stat().st_ino
        self._idle: list[_Connection] = []
        self._write_lock = threading.Lock()
        self._closed = False
        try:
            self._bring_up_to_date()
            with self.reading() as view:
                self.options = CollectionOptions(**json.loads(view.meta("options")))
                self.created = float(view.meta("created"))
        except (EmbedsvcError, TypeError, ValueError) as error:
            self.close()
            if isinstance(error, EmbedsvcError):
                raise
            raise StorageError(f"{path}: its options cannot be read: {error}") from error

    @classmethod
    def create(cls, path: Path, identity: Identity, options: CollectionOptions) -> Store:
        """Make the file unless another process just did, and open it."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            sync_folder(path.parent.parent)
        except OSError as error:
            raise StorageError(f"{path.parent}: cannot be made: {error.strerror}") from error
        with translated_errors(path), contextlib.closing(connect(path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchone():
                create_tables(connection, identity, options)
            connection.execute("COMMIT")
        return cls(path)

    def identity(self) -> Identity:
        """Return whose vectors the collection holds now; `reindex` changes it."""
        with self.reading() as view:
            return identity_of(view)

    def reading(self) -> Reading:
        """Give a view of one moment, that of the first read; what others write meanwhile is not seen."""
        return Reading(self)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writer]:
        """Give the exclusive writer; all its changes are on disk after the block, or none."""
        self.check_writable()
        with self._write_lock, self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Writer(connection)
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def check_writable(self) -> None:
        """Raise StorageError when the file or its folder may not be written."""
        if self.read_only:
            raise StorageError(f"{self.path}: the collection is read-only: its folder may not be written")

    @property
    def size_bytes(self) -> int:
        """Bytes of the database and its write-ahead log."""
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def is_current(self) -> bool:
        """Whether the path still names the file that was opened: not deleted, not replaced."""
        try:
            return self.path.stat().st_ino == self._file
        except OSError:
            return False

    def backup(self, path: Path) -> None:
        """Copy the database of this moment into a new file, durably; writers go on meanwhile.

        In one step: between two, each change by another process would make SQLite begin again.
        """
        with (
            translated_errors(path),
            self.connection() as source,
            contextlib.closing(sqlite3.connect(path)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
        with path.open("rb") as file:
            os.fsync(file.fileno())

    def check_integrity(self) -> list[str]:
        """Return what SQLite's own check finds wrong; empty when nothing is."""
        with self.connection() as connection:
            found = [line for (line,) in connection.execute("PRAGMA integrity_check(20)")]
        return [] if found == ["ok"] else found

    def close(self) -> None:
        """Close all connections; later calls raise StorageError."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _bring_up_to_date(self) -> None:
        """Bring an older file to the present format, and the words to the present analysis."""
        with self.reading() as view:
            version = view.meta("format_version")
            stale = version == FORMAT_VERSION and view.meta("analyzer") != ANALYZER
        if version not in _READABLE:
            raise StorageError(
                f"{self.path}: format version {version!r}; this version reads {FORMAT_VERSION}"
            )
        if version != FORMAT_VERSION:
            with self.writing() as writer:
                migrate(writer)
        elif stale and not self.read_only:
            with self.writing() as writer:
                rebuild_lexical(writer)

    @contextlib.contextmanager
    def connection(self) -> Iterator[_Connection]:
        """Lend a connection; errors of sqlite3 become ours."""
        with translated_errors(self.path):
            connection = self.take()
            try:
                yield connection
            finally:
                self.give_back(connection)

    def take(self) -> _Connection:
        """Return a connection that nobody uses; `give_back` it."""
        if self._closed:
            raise StorageError(f"{self.path}: the collection is closed")
        with contextlib.suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if not self.read_only or connection.moment == _moment(self.path):
                    return connection
                connection.close()
        if not self.is_current():
            raise StorageError(f"{self.path}: the collection has been deleted") from None
        return connect(self.path, read_only=self.read_only)

    def give_back(self, connection: _Connection) -> None:
        """Take a connection back, or close it when the store has been closed meanwhile."""
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)


class Reading:
    """One view, opened by ``with``. A class of its own: generators cost as much as the reads of a search."""

    __slots__ = ("_connection", "_store")
    _connection: _Connection

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> View:
        try:
            self._connection = self._store.take()
            self._connection.execute("BEGIN")
        except sqlite3.Error as error:
            raise _translated(error, self._store.path) from error
        return View(self._connection)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        finally:
            self._store.give_back(self._connection)
        if isinstance(error, sqlite3.Error):
            raise _translated(error, self._store.path) from error


def identity_of(view: View) -> Identity:
    """Return whose vectors the collection holds at this moment."""
    return Identity(
        str(view.meta("model")),
        str(view.meta("fingerprint")),
        int(view.meta("dimension")),
        int(view.meta("epoch")),
    )


def is_empty(path: Path) -> bool:
    """Whether there is no file, or one without any table: its creation was killed."""
    if not path.is_file():
        return True
    if not _may_be_written(path):
        return False
    with translated_errors(path), contextlib.closing(connect(path)) as connection:
        return connection.execute("SELECT 1 FROM sqlite_schema").fetchone() is None


@contextlib.contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Turn errors of sqlite3 into StorageError naming the file; a lock held too long is UnavailableError."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translated(error, path) from error


def _translated(error: sqlite3.Error, path: Path) -> EmbedsvcError:
    if "locked" in str(error):
        return UnavailableError(f"{path}: another process has been writing for {_BUSY_SECONDS:.0f} s")
    return StorageError(f"{path}: {error}")


def connect(path: Path, *, read_only: bool = False) -> _Connection:
    """Open a file that must exist: sqlite3 alone would make an empty one."""
    moment = _moment(path) if read_only else ("mode=rw", 0, 0)
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{moment[0]}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        factory=_Connection,
    )
    connection.moment = moment
    try:
        if not read_only:
            connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")
        connection.execute(f"PRAGMA mmap_size={_MAPPED_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def _may_be_written(path: Path) -> bool:
    """SQLite makes files of its own beside the database."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _moment(path: Path) -> tuple[str, int, int]:
    """Return how a file that may not be written can be read, and for how long.

    SQLite reads a file that has a write-ahead log only with the log's index, which it cannot make here.
    Without a log nobody has the file open for writing: it is read as one that never changes, until it does.
    """
    log, log_index = (path.with_name(path.name + end) for end in ("-wal", "-shm"))
    try:
        if log.exists() and log_index.exists():
            return "mode=ro", 0, 0
        unmerged = log.exists() and log.stat().st_size > 0
        found = path.stat()
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
    if unmerged:
        raise StorageError(
            f"{log}: holds changes that are not merged yet, without {log_index.name}, and the folder may not "
            "be written; open the collection once where it may be"
        )
    return "mode=ro&immutable=1", found.st_mtime_ns, found.st_size
