"""Ctrl-C and SIGTERM during training: finish the step in work, save, then end."""

from __future__ import annotations

import signal
import threading
from typing import Any


class StopRequest:
    """Remembers SIGINT and SIGTERM, so that the step in work is finished and saved before the run ends."""

    def __init__(self) -> None:
        self.asked = False
        self._handlers: dict[signal.Signals, Any] = {}

    def _ask(self, *_: object) -> None:
        self.asked = True

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # only there can handlers be set
            for name in (signal.SIGINT, signal.SIGTERM):
                self._handlers[name] = signal.signal(name, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self._handlers.items():
            signal.signal(name, handler)
