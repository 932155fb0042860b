from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedsvc import cpu


@pytest.mark.parametrize(
    ("content", "quota"), [("200000 100000\n", 2.0), ("max 100000", None), ("rubbish", None), ("1 0", None)]
)
def test_quota_version_2(tmp_path: Path, content: str, quota: float | None) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert cpu.cgroup_quota(tmp_path) == quota


@pytest.mark.parametrize(("content", "quota"), [("150000", 1.5), ("-1", None)])
def test_quota_version_1(tmp_path: Path, content: str, quota: float | None) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(content)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert cpu.cgroup_quota(tmp_path) == quota


def test_no_quota_without_control_groups(tmp_path: Path) -> None:
    assert cpu.cgroup_quota(tmp_path) is None


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no processor affinity on this system")
def test_the_smaller_of_affinity_and_quota_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert cpu.effective_cpus() == 8
    (tmp_path / "cpu.max").write_text("250000 100000")
    assert cpu.effective_cpus() == 2
    (tmp_path / "cpu.max").write_text("50000 100000")
    assert cpu.effective_cpus() == 1


@pytest.mark.parametrize(
    ("flags", "exact"),
    [("avx2 avx512_vnni fsrm", True), ("avx2 avx_vnni", True), ("avx2 avx512f", False), ("", False)],
)
def test_vnni_is_read_from_the_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, exact: bool
) -> None:
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    assert not cpu.multiplies_int8_exactly()
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : fpu {flags}\n")
    assert cpu.multiplies_int8_exactly() == exact
