"""What a training process spends: processor seconds per step, and its peak memory."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

_FIRST, _LAST = 5, 4  # steps not counted: the first are slower, before the last nothing is prepared any more


class Clock:
    """Take the processor's time after every step."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._ticks: list[float] = []

    def tick(self) -> None:
        self._ticks.append(time.process_time())

    def write(self, path: Path, **more: float | str) -> None:
        """Write seconds per step, of the whole process, and MB, as JSON."""
        counted = self._ticks[_FIRST:-_LAST]
        if len(counted) < 2:
            raise SystemExit(f"{len(self._ticks)} steps are too few to be measured")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        values = {
            "step_s": (counted[-1] - counted[0]) / (len(counted) - 1),
            "cpu_s": time.process_time(),
            "wall_s": time.perf_counter() - self._wall,
            "peak_mb": peak * 1024 / 1e6,
            **more,
        }
        path.write_text(json.dumps(values, indent=1), encoding="utf-8")
