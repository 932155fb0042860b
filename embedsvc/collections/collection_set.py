"""All collections of a data folder, by name."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

from embedsvc.collections.collection import DATABASE, Collection, CollectionOptions
from embedsvc.collections.opening import FindEncoder
from embedsvc.collections.store import is_empty
from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, NotFoundError, StorageError
from embedsvc.reranker import Reranker

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_TRASH = ".deleted-"


@dataclass(frozen=True, eq=False)
class _Opening:
    """How a collection is opened; with ``is_new`` it must not be there yet."""

    encoder: Encoder | None = None
    options: CollectionOptions | None = None
    create: bool = True
    is_new: bool = False


class CollectionSet:
    """The collections in ``<data_dir>/collections/<name>``, opened on demand. Safe with several threads."""

    def __init__(
        self,
        data_dir: str | Path,
        encoder: Encoder | None = None,
        *,
        find_encoder: FindEncoder | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        """New collections are made with ``encoder``, None is the bundled model.

        With ``find_encoder``, which returns the encoder with a fingerprint if there is one, a collection may
        be of any model; without it only of that of ``encoder``.
        """
        self.folder = Path(data_dir) / "collections"
        self._encoder = encoder
        self._find_encoder = find_encoder
        self._reranker = reranker
        self._open: dict[str, Collection] = {}
        self._lock = threading.Lock()  # of the next
        self._locks: dict[str, threading.Lock] = {}  # of a name: who opens or deletes that collection

    def names(self) -> list[str]:
        """Return the names of all collections, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(
            entry.name
            for entry in self.folder.iterdir()
            if _NAME.fullmatch(entry.name) and self._is_known(entry.name)
        )

    def get(self, name: str) -> Collection:
        """Return an existing collection; raise NotFoundError naming those that there are."""
        check_name(name)
        self._check_known(name)  # first: the lock of a name is kept
        return self._found(name) or self._opened(name, _Opening(create=False))

    def open(self, name: str) -> Collection:
        """Return the collection of this name, made if it is not there."""
        check_name(name)
        return self._found(name) or self._opened(name, _Opening())

    def create(
        self, name: str, options: CollectionOptions | None = None, *, encoder: Encoder | None = None
    ) -> Collection:
        """Make a new collection, of ``encoder`` if given; raise InvalidInputError when the name is taken."""
        check_name(name)
        return self._opened(name, _Opening(encoder, options=options, is_new=True))

    def delete(self, name: str) -> None:
        """Delete a collection and all its documents; raise NotFoundError naming those that there are."""
        check_name(name)
        self._check_known(name)
        with self._lock_of(name):
            self._check_known(name)
            opened = self._open.pop(name, None)
            self._rename_to_trash(name)
        if opened is not None:
            opened.close()
        for trash in self.folder.glob(f"{_TRASH}*"):
            shutil.rmtree(trash, ignore_errors=True)  # what is left, the next deletion takes along

    def close(self) -> None:
        """Close every collection that was opened."""
        while self._open:
            with contextlib.suppress(KeyError):  # another thread deleted the last one
                self._open.popitem()[1].close()

    def _rename_to_trash(self, name: str) -> None:
        try:
            (self.folder / name).rename(self.folder / f"{_TRASH}{name}-{uuid.uuid4().hex}")
        except OSError as error:
            raise StorageError(f"{self.folder / name}: cannot be deleted: {error.strerror}") from error

    def _found(self, name: str) -> Collection | None:
        """Return the collection if it is open, without waiting for any that is being opened or closed."""
        found = self._open.get(name)
        return found if found is not None and found.is_current() else None

    def _opened(self, name: str, opening: _Opening) -> Collection:
        """Open a collection, which may take minutes (a migration): only those who want the same one wait."""
        stale = None
        try:
            with self._lock_of(name):
                self._check_opening(name, opening)
                if (found := self._found(name)) is not None:
                    return found
                stale = self._open.pop(name, None)
                made = self._open[name] = self._made(name, opening)
                return made
        finally:
            if stale is not None:
                stale.close()  # waits for an index being built

    def _check_opening(self, name: str, opening: _Opening) -> None:
        if not opening.create:
            self._check_known(name)
        if opening.is_new and self._is_taken(name):
            raise InvalidInputError(f"collection {name!r} exists already", param="name")

    def _made(self, name: str, opening: _Opening) -> Collection:
        return Collection(
            self.folder / name,
            opening.encoder or self._encoder,
            create=opening.create,
            options=opening.options,
            reranker=self._reranker,
            find_encoder=self._find_encoder,
        )

    def _lock_of(self, name: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(name, threading.Lock())

    def _is_taken(self, name: str) -> bool:
        """Whether there is more than what a creation leaves that was killed before its tables were made."""
        try:
            return not is_empty(self.folder / name / DATABASE)
        except StorageError:  # damaged
            return True

    def _is_known(self, name: str) -> bool:
        return (self.folder / name / DATABASE).is_file()

    def _check_known(self, name: str) -> None:
        if not self._is_known(name):
            known = ", ".join(self.names()) or "none"
            raise NotFoundError(f"no collection {name!r}; known: {known}", param="name")


def check_name(name: str) -> None:
    """Raise InvalidInputError for a name that is not 1 to 63 plain characters: none leaves the folder."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"collection name {name!r}: expected 1 to 63 of a-z, 0-9, - and _, the first a letter or digit",
            param="name",
        )
