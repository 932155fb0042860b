"""The index of a collection, always at the generation of the store: loaded, updated, compacted, saved."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from embedsvc.collections.segments import Base, Delta, State
from embedsvc.collections.snapshots import (
    Opened,
    build_snapshot,
    only_builder,
    open_snapshot,
    remove_unused,
    save_snapshot,
    set_aside,
    snapshot_content,
)
from embedsvc.collections.store import Store, identity_of
from embedsvc.collections.views import PassageRows, SnapshotRecord, View, joined
from embedsvc.errors import EmbedsvcError
from indexing import Debias, IndexingError, ShardedIndex

_log = logging.getLogger(__name__)
# An index costs as much as thousands of exact searches: who asks only once or twice does not wait for one.
_SEARCHES_BEFORE_BUILD = 10
_BUILD_NICENESS = 10
_PAUSE_S = 60.0  # after a build that failed: a full disk stays full for a while
_SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class LiveIndex:
    """Gives a view of the store and the index of exactly that moment. Safe to use from several threads."""

    def __init__(self, store: Store, folder: Path) -> None:
        """``folder`` holds the saved index; it may be missing, stale or damaged."""
        self._store = store
        self._folder = folder
        self._lock = threading.Lock()
        self._state: State | None = None
        self._record: SnapshotRecord | None = None  # of the saved index that was opened last
        self._builder: threading.Thread | None = None
        self._waiting_searches = 0
        self._is_broken = False  # the saved index was set aside
        self._not_before = 0.0  # when to try again after a failure

    @contextlib.contextmanager
    def current(self) -> Iterator[tuple[View, State]]:
        """Give a view of the store as it is now, and the state of the index that belongs to it."""
        with self._store.reading() as view:
            # The view's first read is inside the lock, so that the state is never ahead of it.
            with self._lock:
                state = self._state = self._advanced(view)
                if (state.needs_compaction or self._is_broken) and not self._store.read_only:
                    self._compact_soon()
            yield view, state

    def build(self) -> bool:
        """Save an index of everything now, unless the saved one holds everything and nothing else.

        Returns whether it does: not if another process is building, or the index could not be saved.
        """
        self._store.check_writable()
        self.wait()
        if not self._is_complete():
            self._rebuild(lambda state: state.is_compact)
        return self._is_complete()

    def wait(self) -> None:
        """Wait for an index that is being built in the background."""
        if self._builder is not None:
            self._builder.join()

    def close(self) -> None:
        """Wait for what is being built, and let go of the files."""
        self.wait()
        self._state = None

    def _is_complete(self) -> bool:
        with self.current() as (_, state):
            return state.is_compact and state.base.is_saved

    def _advanced(self, view: View) -> State:
        generation, state = view.generation(), self._state
        if state is not None and state.generation == generation:
            return state
        if state is None or state.generation > generation or self._is_beyond_reach(view, state):
            return self._loaded(view)
        new = view.passages_after(state.last_row, state.identity.dimension)
        removed = view.removed_since(state.generation)
        return state.after(generation, view.last_row(), debiased_rows(state.debias, new), removed)

    @staticmethod
    def _is_beyond_reach(view: View, state: State) -> bool:
        """Whether removals have been forgotten that the state has not seen, or all vectors are others."""
        return bool(view.meta("pruned") > state.generation or view.meta("epoch") != state.identity.epoch)

    def _loaded(self, view: View) -> State:
        """Read the state: the saved base if it can be trusted, and all that is newer from the store."""
        opened, seen = self._trusted(view), 0
        record = self._record = view.snapshot()
        identity = identity_of(view)
        if opened is not None and record is not None:
            seen = record.last_row
        nothing = joined([], identity.dimension)
        base = opened.base if opened else _no_base(nothing)
        state = State(
            view.generation(),
            identity,
            view.last_row(),
            base,
            Delta.of(nothing),
            opened.debias if opened else None,
        )
        new = view.passages_after(seen, identity.dimension)
        return replace(state, delta=Delta.of(debiased_rows(state.debias, new)))

    def _trusted(self, view: View) -> Opened | None:
        try:
            return open_snapshot(view, self._folder)
        except (IndexingError, OSError) as error:
            if self._was_replaced(view):
                return None
            if _is_shortage(error):
                _log.warning("the saved index is not used for now: %s", error)
                return None
            _log.warning("the saved index is set aside and made again: %s", error)
            if not self._store.read_only:
                set_aside(view, self._folder)
                self._is_broken = True
                self._waiting_searches = _SEARCHES_BEFORE_BUILD
            return None

    def _was_replaced(self, view: View) -> bool:
        """Whether another process has saved an index since, and removed the one that the view names."""
        with self._store.reading() as now:
            return now.snapshot() != view.snapshot()

    def _compact_soon(self) -> None:
        self._waiting_searches += 1
        idle = self._builder is None or not self._builder.is_alive()
        due = self._waiting_searches >= _SEARCHES_BEFORE_BUILD and time.monotonic() >= self._not_before
        if idle and due:
            self._builder = threading.Thread(target=self._rebuild_behind, name="index-builder")
            self._builder.start()

    def _rebuild_behind(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # only Linux has a niceness for each thread
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BUILD_NICENESS)
        self._rebuild(lambda state: not state.needs_compaction)

    def _rebuild(self, is_enough: Callable[[State], bool]) -> None:
        """Build, save and take an index of all that is in the store; failure is logged: search goes on."""
        self._waiting_searches = 0
        try:
            with only_builder(self._folder) as mine:
                if mine and not self._took_over(is_enough):
                    self._make_snapshot()
        except (EmbedsvcError, IndexingError, OSError) as error:
            self._not_before = time.monotonic() + _PAUSE_S
            _log.warning("%s: the index could not be saved: %s", self._folder, error)

    def _took_over(self, is_enough: Callable[[State], bool]) -> bool:
        """Take the index that another process has saved meanwhile, if it is enough; return whether it is.

        Else each process that serves a collection would build the same index after the others.
        """
        with self._store.reading() as view:
            if view.snapshot() in (None, self._record):
                return False
            state = self._loaded(view)
        if not (state.base.is_saved and is_enough(state)):
            return False
        with self._lock:
            self._state = state
        return True

    def _make_snapshot(self) -> None:
        with self._store.reading() as view:
            content = snapshot_content(view, identity_of(view), self._store.options)
        record = save_snapshot(build_snapshot(content, self._store.options), self._folder)
        with self._store.writing() as writer:
            if identity_of(writer) != content.identity:
                return  # re-embedded meanwhile: the vectors are of another model now
            writer.record_snapshot(record)
        with self._store.reading() as view:
            state = self._loaded(view)
            with self._lock:
                self._state = state
                self._is_broken = self._is_broken and not state.base.is_saved
            remove_unused(view, self._folder)


def _is_shortage(error: BaseException | None) -> bool:
    """Whether an error says nothing about the files, only that the process lacks something now."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _SHORTAGES:
            return True
        error = error.__cause__
    return False


def debiased_rows(debias: Debias | None, passages: PassageRows) -> PassageRows:
    """Return passages whose vectors have been through what those of the base have."""
    if debias is None or not len(passages):
        return passages
    return replace(passages, vectors=debias.apply(passages.vectors, passages.languages))


def _no_base(nothing: PassageRows) -> Base:
    index = ShardedIndex.build(nothing.vectors, [])
    return Base(index, nothing.rows, nothing.documents, nothing.languages)
