"""The index of a collection, always at the generation of the store: loaded, updated, compacted, saved."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from embedsvc.collections.segments import Segment, State, kind_for
from embedsvc.collections.store import Store
from embedsvc.collections.views import SnapshotRecord, VectorRows, View
from embedsvc.errors import EmbedsvcError
from indexing import Flat, IndexingError, VectorIndex, open_index, read_manifest, save_index

_log = logging.getLogger(__name__)
# A graph costs as much as thousands of exact searches: who asks only once or twice does not wait for one.
_SEARCHES_BEFORE_GRAPH = 10


class LiveIndex:
    """Gives a view of the store and the index of exactly that moment. Safe to use from several threads."""

    def __init__(self, store: Store, folder: Path) -> None:
        """``folder`` holds the saved index; it may be missing, stale or damaged."""
        self._store = store
        self._folder = folder
        self._lock = threading.Lock()
        self._state: State | None = None
        self._saved: VectorIndex | None = None
        self._builder: threading.Thread | None = None
        self._exact_searches = 0

    @contextlib.contextmanager
    def current(self) -> Iterator[tuple[View, State]]:
        """Give a view of the store as it is now, and the state of the index that belongs to it."""
        with contextlib.ExitStack() as stack:
            # The view begins inside the lock, so that the state is never ahead of it.
            with self._lock:
                view = stack.enter_context(self._store.reading())
                state = self._state = self._advanced(view)
            if state.needs_compaction:
                state = self._compacted(state)
            yield view, state

    def build(self) -> None:
        """Save an index of everything now; a graph is made anew only when enough has changed."""
        self.wait()
        with self.current() as (_, state):
            pass
        whole = state.is_compact if state.base.index.kind.name == Flat.name else not state.needs_compaction
        if not whole or state.base.index is not self._saved:
            self._rebase(state)

    def wait(self) -> None:
        """Wait for an index that is being built in the background."""
        if self._builder is not None:
            self._builder.join()

    def _advanced(self, view: View) -> State:
        generation, state = view.generation(), self._state
        if state is None or state.generation > generation or view.meta("pruned") > state.generation:
            return self._loaded(view)
        if state.generation == generation:
            return state
        new = view.vectors_after(state.last_row, self._store.dimension)
        return state.after(generation, view.last_row(), new, view.removed_since(state.generation))

    def _loaded(self, view: View) -> State:
        """Read the state: the saved base if it can be trusted, and all that is newer from the store."""
        base = self._saved_base(view)
        seen = int(base.rows[-1]) if base is not None and len(base.rows) else 0
        new = view.vectors_after(seen, self._store.dimension)
        nothing = view.vectors_after(view.last_row(), self._store.dimension)
        newer = Segment.build(nothing if base is None else new, Flat())
        return State(view.generation(), view.last_row(), base or Segment.build(new, Flat()), newer)

    def _saved_base(self, view: View) -> Segment | None:
        record = view.snapshot()
        if record is None:
            return None
        try:
            index = open_index(self._folder)
            # Read after the index: had it been replaced meanwhile, this would not be the recorded one.
            manifest = read_manifest(self._folder)
        except (IndexingError, OSError) as error:
            _log.warning("the saved index is ignored and made again: %s", error)
            return None
        expected = (record.sha256, self._store.fingerprint, len(record.rows), self._store.dimension)
        if (manifest.sha256, manifest.model, index.count, index.dimension) != expected:
            _log.warning("%s: the saved index belongs to other data; it is made again", self._folder)
            return None
        rows, languages = view.language_of_rows()
        place = np.searchsorted(rows, record.rows)
        place[place == len(rows)] = 0
        alive = rows[place] == record.rows if len(rows) else np.zeros(len(record.rows), bool)
        codes = languages[place] if len(rows) else np.zeros(len(record.rows), "S3")
        self._saved = index
        return Segment(index, record.rows, codes, alive)

    def _compacted(self, state: State) -> State:
        """Rebuild the base: at once while that is quick, else in the background."""
        if kind_for(state.base.alive_count + state.delta.alive_count).name == Flat.name:
            return self._rebase(state)
        with self._lock:
            self._exact_searches += 1
            idle = self._builder is None or not self._builder.is_alive()
            if idle and self._exact_searches >= _SEARCHES_BEFORE_GRAPH:
                self._builder = threading.Thread(target=self._rebase, args=(state,), name="index-builder")
                self._builder.start()
        return state

    def _rebase(self, state: State) -> State:
        """Build and save a base of all that lives in ``state``; make it current; return ``state`` on it."""
        living: VectorRows = state.living()
        base = Segment.build(living, kind_for(len(living.rows)))
        with self._lock:
            self._exact_searches = 0
            if self._state is not None:
                self._state = self._state.rebased(base)
        self._save(base, state.generation)
        return state.rebased(base)

    def _save(self, base: Segment, generation: int) -> None:
        """Save the base for the next start; that is a convenience, so that failure is only logged."""
        try:
            self._folder.mkdir(exist_ok=True)
            with _only_writer(self._folder / "lock") as mine:
                if not mine:
                    return
                manifest = save_index(
                    base.index, self._folder, model=self._store.fingerprint, extra={"generation": generation}
                )
                with self._store.writing() as writer:
                    writer.record_snapshot(SnapshotRecord(manifest.sha256, generation, base.rows))
                self._saved = base.index
        except (EmbedsvcError, IndexingError, OSError) as error:
            _log.warning("%s: the index could not be saved: %s", self._folder, error)


@contextlib.contextmanager
def _only_writer(path: Path) -> Iterator[bool]:
    """Give whether this process may write now; no other process gets True at the same time."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
