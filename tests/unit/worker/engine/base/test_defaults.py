"""What a worker takes of a machine where no setting decides."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from headrace_worker.base.machine import Limits, this_machine
from headrace_worker.engine.base import defaults

BILLION = 1_000_000_000


@pytest.mark.parametrize(
    ("cores", "workers", "parameters", "expected"),
    [
        (1, 1, BILLION, 1),
        (2, 1, BILLION, 1),
        (8, 1, BILLION, 7),
        (8, 2, BILLION, 3),
        (8, 16, BILLION, 1),
        (1.5, 1, BILLION, 1),
        (64, 1, 31_600_000, 15),
        (64, 1, 2_700_000, 1),
    ],
)
def test_threads_are_a_workers_share_of_the_cores_and_what_its_model_keeps_busy(
    cores: float, workers: int, parameters: int, expected: int
) -> None:
    chosen = defaults.threads(None, cores=cores, workers=workers, parameters=parameters)
    assert chosen.value == expected
    assert defaults.threads(5, cores=cores, workers=workers, parameters=parameters).value == 5


@pytest.mark.parametrize(
    ("threads", "parameters", "expected"),
    [(1, 2_700_000, 256), (1, 31_600_000, 128), (1, BILLION, 16), (32, BILLION, 128)],
)
def test_a_prefill_chunk_delays_decoding_by_a_bounded_time(
    threads: int, parameters: int, expected: int
) -> None:
    assert defaults.chunk_tokens(None, threads=threads, parameters=parameters).value == expected
    assert defaults.chunk_tokens(9, threads=threads, parameters=parameters).value == 9


def cgroups(folder: Path, own: str, **files: str) -> Limits:
    (folder / "own").write_text(own)
    for name, text in files.items():
        file = folder / name.replace("__", "/").replace("_DOT_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Limits(folder, folder / "own")


def test_the_narrowest_quota_of_the_groups_around_a_process_binds(tmp_path: Path) -> None:
    limits = cgroups(
        tmp_path,
        "0::/pod/worker\n",
        pod__worker__cpu_DOT_max="max 100000\n",
        pod__cpu_DOT_max="350000 100000\n",
        pod__worker__memory_DOT_max="1000\n",
        pod__worker__memory_DOT_current="700\n",
        pod__worker__memory_DOT_stat="anon 500\ninactive_file 100\n",
        pod__memory_DOT_max="max\n",
    )
    assert limits.cpu_quota == 3.5
    assert (limits.memory_bytes, limits.memory_left_bytes) == (1000, 400)


def test_control_groups_of_the_first_version_bind_as_well(tmp_path: Path) -> None:
    limits = cgroups(
        tmp_path,
        "4:memory:/docker/of-the-host\n3:cpu,cpuacct:/docker/of-the-host\n",
        cpu__cpu_DOT_cfs_quota_us="150000\n",
        cpu__cpu_DOT_cfs_period_us="100000\n",
        memory__memory_DOT_limit_in_bytes="2000\n",
        memory__memory_DOT_usage_in_bytes="500\n",
    )
    assert limits.cpu_quota == 1.5
    assert (limits.memory_bytes, limits.memory_left_bytes) == (2000, 1500)


def test_a_machine_without_control_groups_has_no_limits_but_its_own(tmp_path: Path) -> None:
    assert Limits(tmp_path, tmp_path / "none").cpu_quota == float("inf")
    machine = this_machine(tmp_path, tmp_path / "none")
    assert machine.cores > 0
    assert machine.memory_bytes == psutil.virtual_memory().total
    assert 0 < machine.free_bytes <= machine.memory_bytes
