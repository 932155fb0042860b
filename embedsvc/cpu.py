"""What this process may really use: processors by affinity and container quota, and what they can do."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_CPUINFO = Path("/proc/cpuinfo")


def effective_cpus() -> int:
    """Return the number of threads worth starting, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(_CGROUP)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def cgroup_quota(root: Path) -> float | None:
    """Return the processors that the container's quota grants (version 2, then 1); None without a quota."""
    try:
        if (root / "cpu.max").is_file():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        if quota in ("max", "-1"):
            return None
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def multiplies_int8_exactly() -> bool:
    """True where the processor is known to have VNNI: older instructions overflow on large int8 products."""
    try:
        words = set(_CPUINFO.read_text().split())
    except OSError:
        return False
    return bool(words & {"avx512_vnni", "avx_vnni"})
