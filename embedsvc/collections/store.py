"""The store of one collection: a SQLite file that holds everything; all else can be rebuilt from it.

A row number is never used twice and a row never changes: an update deletes the old row and inserts a
new one. Whoever has seen the rows up to r, and the removals up to generation g, therefore knows what
is new (rows above r) and what is gone (removals above g).

    documents  row, id, text, language, metadata (JSON), vector (float16, little-endian)
    removed    row, generation: rows that are gone, until the saved index no longer holds them
    snapshot   the one saved index that may be used: its hash, and the row number of each position
    meta       format version, model, dimension, created, generation, pruned
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from embedsvc.collections.views import View, Writer
from embedsvc.errors import EmbedsvcError, NotFoundError, StorageError, UnavailableError

FORMAT_VERSION = 1
_BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    text TEXT NOT NULL,
    language TEXT NOT NULL,
    metadata TEXT,
    vector BLOB NOT NULL
);
CREATE INDEX documents_language ON documents (language);
CREATE TABLE removed (row INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
CREATE TABLE snapshot (sha256 TEXT NOT NULL, generation INTEGER NOT NULL, rows BLOB NOT NULL);
"""


class Store:
    """Connections to one SQLite file, and transactions on it. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """Open an existing file; raise NotFoundError or StorageError naming it."""
        if not path.is_file():
            raise NotFoundError(f"no collection at {path.parent}")
        self.path = path
        self._file = path.stat().st_ino
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._write_lock = threading.Lock()
        self._closed = False
        try:
            with self.reading() as view:
                version = view.meta("format_version")
                self.model = str(view.meta("model"))
                self.fingerprint = str(view.meta("fingerprint"))
                self.dimension = int(view.meta("dimension"))
                self.created = float(view.meta("created"))
        except (EmbedsvcError, ValueError):
            self.close()
            raise
        if version != FORMAT_VERSION:
            self.close()
            raise StorageError(f"{path}: format version {version!r}; this version reads {FORMAT_VERSION}")

    @classmethod
    def create(cls, path: Path, *, model: str, fingerprint: str, dimension: int) -> Store:
        """Make the file unless another process just did, and open it."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{path.parent}: cannot be made: {error.strerror}") from error
        path.touch()
        with translated_errors(path), contextlib.closing(_connect(path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchone():
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                meta = {
                    "format_version": FORMAT_VERSION,
                    "model": model,
                    "fingerprint": fingerprint,
                    "dimension": dimension,
                    "created": time.time(),
                    "generation": 0,
                    "pruned": 0,
                }
                connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            connection.execute("COMMIT")
        return cls(path)

    @contextlib.contextmanager
    def reading(self) -> Iterator[View]:
        """Give a view of one moment; what others write meanwhile is not seen."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            try:
                yield View(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writer]:
        """Give the exclusive writer; all its changes are on disk after the block, or none."""
        with self._write_lock, self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Writer(connection)
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

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

    def close(self) -> None:
        """Close all connections; later calls raise StorageError."""
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if self._closed:
            raise StorageError(f"{self.path}: the collection is closed")
        with translated_errors(self.path):
            connection = self._idle_connection()
            try:
                yield connection
            finally:
                if self._closed:
                    connection.close()
                else:
                    self._idle.put(connection)

    def _idle_connection(self) -> sqlite3.Connection:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            if not self.is_current():
                raise StorageError(f"{self.path}: the collection has been deleted") from None
            return _connect(self.path)


def is_empty(path: Path) -> bool:
    """Whether there is no file, or one without any table: its creation was killed."""
    if not path.is_file():
        return True
    with translated_errors(path), contextlib.closing(_connect(path)) as connection:
        return connection.execute("SELECT 1 FROM sqlite_schema").fetchone() is None


@contextlib.contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Turn errors of sqlite3 into StorageError naming the file; a lock held too long is UnavailableError."""
    try:
        yield
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise UnavailableError(
                f"{path}: another process has been writing for {_BUSY_SECONDS:.0f} s"
            ) from error
        raise StorageError(f"{path}: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    """Open a file that must exist: sqlite3 alone would make an empty one."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection
