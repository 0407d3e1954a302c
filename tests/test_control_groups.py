"""Limits of containers and jobs, from trees of files as the kernel shows them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnunet_lite import control_groups
from nnunet_lite.configuration import cpu_count
from nnunet_lite.control_groups import Memory, cpu_quota, memory_of_groups
from nnunet_lite.utilities.memory import available_memory, memory_limit

GIB = 2**30
NO_LIMIT = "9223372036854771712"  # of version 1


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty mount of control groups; `membership` beside it says where this process is."""
    mount = tmp_path / "cgroup"
    mount.mkdir()
    monkeypatch.setattr(control_groups, "_MOUNT", str(mount))
    monkeypatch.setattr(control_groups, "_MEMBERSHIP", str(tmp_path / "membership"))
    return mount


def group(folder: Path, **files: str | int) -> Path:
    """Make a group of these files (with _ for the dot in their names)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.procs").touch()
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{text}\n")
    return folder


def test_no_groups_at_all(tree: Path) -> None:
    assert memory_of_groups() == []
    assert cpu_quota() is None
    assert 0 < available_memory() <= memory_limit()


def test_a_container_of_version_2(tree: Path) -> None:
    statistics = "anon 5\nfile 9\ninactive_file 7"
    group(tree, memory_max=8 * GIB, memory_current=3 * GIB, memory_stat=statistics, cpu_max="max 100000")
    (tree.parent / "membership").write_text("0::/\n")
    assert memory_of_groups() == [Memory(8 * GIB, 3 * GIB - 7)]
    assert cpu_quota() is None


def test_a_job_of_slurm_is_limited_above_and_below(tree: Path) -> None:
    job = tree / "system.slice/slurmstepd.scope/job_7"
    group(tree)
    group(tree / "system.slice", memory_max="max", memory_current=90 * GIB, cpu_max="max 100000")
    group(tree / "system.slice/slurmstepd.scope", memory_max="max", memory_current=80 * GIB)
    group(job, memory_max=32 * GIB, memory_current=2 * GIB, cpu_max="350000 100000")
    task = group(job / "step_0/user/task_0", memory_max="max", memory_current=GIB, cpu_max="800000 100000")
    (tree.parent / "membership").write_text(f"0::/{task.relative_to(tree)}\n")
    assert memory_of_groups() == [Memory(32 * GIB, 2 * GIB)]
    assert cpu_quota() == 3


def test_version_1_counts_the_files_of_groups_below(tree: Path) -> None:
    statistics = "inactive_file 1\nactive_file 2\ntotal_inactive_file 1000\ntotal_active_file 200"
    group(tree / "memory", memory_limit_in_bytes=NO_LIMIT, memory_usage_in_bytes=9 * GIB)
    group(
        tree / "memory/user/job",
        memory_limit_in_bytes=2 * GIB,
        memory_usage_in_bytes=GIB,
        memory_stat=statistics,
    )
    group(tree / "cpu,cpuacct", cpu_cfs_quota_us=-1, cpu_cfs_period_us=100000)
    group(tree / "cpu,cpuacct/job", cpu_cfs_quota_us=50000, cpu_cfs_period_us=100000)
    (tree.parent / "membership").write_text("9:memory:/user/job\n4:cpu,cpuacct:/job\n1:name=systemd:/\n0::/\n")
    assert memory_of_groups() == [Memory(2 * GIB, GIB - 1200), Memory(int(NO_LIMIT), 9 * GIB)]
    assert cpu_quota() == 1  # half a core is one


def test_a_container_that_does_not_see_its_own_name(tree: Path) -> None:
    group(tree / "memory", memory_limit_in_bytes=4 * GIB, memory_usage_in_bytes=GIB)
    (tree.parent / "membership").write_text("3:memory:/docker/0123456789ab\n")
    assert memory_of_groups() == [Memory(4 * GIB, GIB)]


@pytest.mark.parametrize("text", ["", "nonsense", "0::", "5:memory", "5:memory:/../../etc"])
def test_what_cannot_be_understood_is_no_limit(tree: Path, text: str) -> None:
    (tree.parent / "membership").write_text(text)
    (tree / "memory.max").write_text("lots")
    assert memory_of_groups() == []
    assert cpu_quota() is None


def test_the_tightest_limit_decides(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    size = 64 * 2**20  # less than any machine has
    group(tree, memory_max=2 * size, memory_current=2 * size - 10, cpu_max="200000 100000")
    group(tree / "inner", memory_max=size, memory_current=size // 2)
    (tree.parent / "membership").write_text("0::/inner\n")
    assert memory_limit() == size
    assert available_memory() == 10
    assert cpu_count() == 2


@pytest.fixture
def real_group() -> Iterator[Path]:
    """A group of this machine's version 1 memory controller, where one can be made."""
    name = f"nnunet_lite_test_{os.getpid()}"
    folder = Path("/sys/fs/cgroup/memory", name)
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("needs cgroups of version 1 and root")
    try:
        yield folder
    finally:
        folder.rmdir()


def test_a_real_group(real_group: Path) -> None:
    (real_group / "memory.limit_in_bytes").write_text(str(GIB))
    code = (
        "import pathlib, sys; pathlib.Path(sys.argv[1], 'cgroup.procs').write_text('0');"
        "from nnunet_lite.utilities.memory import available_memory, memory_limit;"
        "print(memory_limit(), available_memory())"
    )
    outcome = subprocess.run([sys.executable, "-c", code, str(real_group)], capture_output=True, text=True, check=True)
    limit, available = map(int, outcome.stdout.split())
    assert limit == GIB
    assert 0 < available <= GIB
