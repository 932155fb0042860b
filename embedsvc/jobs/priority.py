"""How a job keeps out of the way: it runs when nobody else would, on some of the processors."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from embedsvc.cpu import effective_cpus

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
_EXPENDABLE = "800"  # when memory runs out, the kernel takes a job before a model before the server


def job_threads(wanted: int | None) -> int:
    """Return the processors that a job may use: half of them unless told."""
    return wanted or max(1, effective_cpus() // 2)


def thread_variables(threads: int) -> dict[str, str]:
    """Return what libraries read when they are loaded."""
    return dict.fromkeys(_THREAD_VARIABLES, str(threads))


def give_way(threads: int) -> None:
    """Put this process behind all others; where the system lacks a means, the others do."""
    os.nice(19)
    with contextlib.suppress(OSError, AttributeError):  # Linux; the disk's idle class comes with it
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):  # a session is a group of its own, within which alone nice counts
        Path("/proc/self/autogroup").write_text("19")
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_EXPENDABLE)
    with contextlib.suppress(OSError, AttributeError):
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, processors[-threads:])
