"""The benchmarks at a small size: that they measure, and what of them is no matter of time."""
import json
import os
import subprocess
import sys

import pytest

from daemon import ROOT

pytestmark = pytest.mark.release


def figures(tmp_path, *names):
    out = tmp_path / "figures.json"
    done = subprocess.run([sys.executable, os.path.join(ROOT, "bench", "run"), "--quick", "--json",
                           str(out), *names], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())


def test_small_requests_and_the_detector_are_measured(tmp_path, object_detector):
    found = figures(tmp_path, "small", "detector", "start")
    for key in ("added_over_hop", "cpu_us_per_request", "detector_jpeg_cpu_ratio",
                "detector_tensor_cpu_ratio", "start_detector_ms", "idle_daemon_mib"):
        assert isinstance(found[key], (int, float)), key
    assert found["cpu_us_per_request"] > 0 and found["detector_jpeg_cpu_ratio"] > 0


def test_a_frame_is_copied_once_from_the_socket_and_then_no_more(tmp_path):
    found = figures(tmp_path, "body")
    assert found["body_bytes_landed"] > 10 * 24883200
    assert found["body_bytes_copied"] <= found["body_bytes_landed"] / 24883200 * 4096


def test_a_frame_in_a_region_is_not_copied(tmp_path):
    found = figures(tmp_path, "shm")
    for name in ("brightest", "sampled"):
        assert found["shm_%s_copied" % name] < 1000, name
        assert float(found["shm_%s_p50_us" % name].split()[0]) > 0, name
    assert found["shm_answer"] == 251


def test_the_loop_is_watched_while_packages_upload(tmp_path):
    found = figures(tmp_path, "lag")
    assert found["lag_samples"] > 1000 and found["lag_p999_ms"] > 0


def test_swaps_and_crashes_are_measured_and_lose_nothing(tmp_path):
    found = figures(tmp_path, "swap", "crash", "poison")
    assert found["swap_failed"] == 0 and found["crash_b_errors"] == 0
    assert found["poison_others"] == "14 of 14"
    assert found["swap_p99_ratio"] > 0 and found["crash_b_p99_ratio"] > 0


def test_nothing_stays_of_sessions_that_come_and_go(tmp_path):
    found = figures(tmp_path, "memory")
    assert found["memory_grown_kib"] <= 1024
    assert found["memory_left"]["hosts"][1] == 0


def test_shares_batches_and_cores_are_measured(tmp_path):
    found = figures(tmp_path, "fairness", "batching", "cores")
    # Other tests share the cores: an equal split and no gain are wrong, the rest is `make bench`'s.
    assert 1.5 < found["fair_split"] < 6
    assert found["batch_simulated_gain"] > 1.5
    assert found["cores_sum"] > 0 and found["realtime_ratio"] > 0


def test_the_hot_path_allocates_nothing(tmp_path):
    found = figures(tmp_path, "hotpath")
    for case in ("alone", "busy", "batches", "deadlines", "tenants"):
        assert found["hotpath_%s_allocations" % case] == 0, case
