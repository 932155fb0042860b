"""How a job keeps out of the way: it runs when nobody else would, with some of the threads."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from embedsvc.cpu import effective_cpus

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
IDLE = 19
_EXPENDABLE = "800"  # when memory runs out, the kernel takes a job before a model before the server


def job_threads(wanted: int | None) -> int:
    """Return the threads of a job: one for every other processor unless told."""
    return wanted or max(1, effective_cpus() // 2)


def thread_variables(threads: int) -> dict[str, str]:
    """Return what libraries read when they are loaded."""
    return dict.fromkeys(_THREAD_VARIABLES, str(threads))


def give_way(niceness: int) -> None:
    """Put this process behind others; at 19, where the system can, it runs only when nobody else would."""
    os.nice(niceness)
    if niceness == IDLE:
        with contextlib.suppress(OSError, AttributeError):  # Linux; the disk's idle class comes with it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):  # a session is a group of its own, within which alone nice counts
        Path("/proc/self/autogroup").write_text(str(niceness))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_EXPENDABLE)
