"""All collections of a data folder, by name."""

from __future__ import annotations

import re
import shutil
import threading
import uuid
from pathlib import Path

from embedsvc.collections.collection import DATABASE, Collection, CollectionOptions
from embedsvc.collections.opening import FindEncoder
from embedsvc.encoder import Encoder
from embedsvc.errors import InvalidInputError, NotFoundError, StorageError
from embedsvc.reranker import Reranker

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_TRASH = ".deleted-"


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
        self._lock = threading.Lock()

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
        with self._lock:
            self._check_known(name)
            return self._opened(name, create=False)

    def open(self, name: str) -> Collection:
        """Return the collection of this name, made if it is not there."""
        check_name(name)
        with self._lock:
            return self._opened(name, create=True)

    def create(
        self, name: str, options: CollectionOptions | None = None, *, encoder: Encoder | None = None
    ) -> Collection:
        """Make a new collection, of ``encoder`` if given; raise InvalidInputError when the name is taken."""
        check_name(name)
        with self._lock:
            if self._is_known(name):
                raise InvalidInputError(f"collection {name!r} exists already", param="name")
            return self._opened(name, create=True, options=options, encoder=encoder)

    def delete(self, name: str) -> None:
        """Delete a collection and all its documents; raise NotFoundError naming those that there are."""
        check_name(name)
        with self._lock:
            self._check_known(name)
            opened = self._open.pop(name, None)
            self._rename_to_trash(name)
        if opened is not None:
            opened.close()
        for trash in self.folder.glob(f"{_TRASH}*"):
            shutil.rmtree(trash, ignore_errors=True)  # what is left, the next deletion takes along

    def close(self) -> None:
        """Close every collection that was opened."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()

    def _rename_to_trash(self, name: str) -> None:
        try:
            (self.folder / name).rename(self.folder / f"{_TRASH}{name}-{uuid.uuid4().hex}")
        except OSError as error:
            raise StorageError(f"{self.folder / name}: cannot be deleted: {error.strerror}") from error

    def _opened(
        self,
        name: str,
        *,
        create: bool,
        options: CollectionOptions | None = None,
        encoder: Encoder | None = None,
    ) -> Collection:
        found = self._open.get(name)
        if found is not None and found.is_current():
            return found
        if found is not None:
            self._open.pop(name).close()
        collection = self._open[name] = Collection(
            self.folder / name,
            encoder or self._encoder,
            create=create,
            options=options,
            reranker=self._reranker,
            find_encoder=self._find_encoder,
        )
        return collection

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
