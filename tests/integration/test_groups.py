"""Isolation groups: who shares a host process, and what its end means to the others."""
import os
import signal
import threading

import pytest

import models
from daemon import is_running, wait_for


def load(daemon, path, name, tenant="default"):
    """The first load of a package installs it; a tenant is named in the API."""
    if tenant == "default":
        said = daemon.cli("load", path, "--name", name)
        assert said.rc == 0, said
        return models.session(daemon, name)
    package = os.path.basename(path)[:-len(".xpkg")]
    answer = daemon.post("/v1/control/load", {"package": package, "name": name, "tenant": tenant})
    assert answer.status == 200, answer
    return answer.json()


def host_of(daemon, name):
    s = models.session(daemon, name)
    return s["host_pid"] if s and s["state"] == "READY" else None


@pytest.fixture
def gpu(simulated, tmp_path):
    """A daemon with three sessions on the simulated GPU: a, b and c of the tenant "default"."""
    daemon = simulated().start()
    path = models.package(tmp_path, "gpu", models.DOUBLE, engine="simulated", device="GPU.0")
    for name in "abc":
        load(daemon, path, name)
    daemon.gpu_package = path
    return daemon


def test_a_tenant_shares_a_host_and_others_have_their_own(gpu):
    first = models.session(gpu, "a")
    assert first["isolation"] == "tenant"
    assert "512 MiB" in first["isolation_reason"] and "10 %" in first["isolation_reason"]
    pids = {host_of(gpu, n) for n in "abc"}
    assert len(pids) == 1 and None not in pids
    other = load(gpu, gpu.gpu_package, "d", tenant="other")
    assert other["isolation"] == "tenant" and other["host_pid"] not in pids
    for name in "abc":
        assert models.numbers(models.ask(gpu, name, 1, 2, 3, 4)) == [3, 5, 7, 9]


def test_an_exclusive_device_has_one_host_for_all(simulated, tmp_path):
    daemon = simulated().start()
    path = models.package(tmp_path, "npu", models.DOUBLE, engine="simulated", device="NPU.0")
    one = load(daemon, path, "one")
    two = load(daemon, path, "two", tenant="other")
    assert one["isolation"] == two["isolation"] == "device"
    assert "exclusive" in one["isolation_reason"]
    assert one["host_pid"] == two["host_pid"]
    assert models.numbers(models.ask(daemon, "one", 1, 2, 3, 4)) == [3, 5, 7, 9]


def test_a_killed_host_comes_back_with_all_its_sessions(gpu):
    ids = {n: models.session(gpu, n)["id"] for n in "abc"}
    pid = host_of(gpu, "a")
    answers = []
    done = threading.Event()

    def ask(name):
        while not done.is_set():
            answers.append(models.ask(gpu, name, 1, 2, 3, 4))

    askers = [threading.Thread(target=ask, args=(n,)) for n in "abc"]
    for t in askers:
        t.start()
    wait_for(lambda: len(answers) > 30, 10, "answers")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: all(host_of(gpu, n) not in (None, pid) for n in "abc"), 20, "the sessions")
    before = len(answers)
    wait_for(lambda: len(answers) > before + 30, 10, "answers of the new host")
    done.set()
    for t in askers:
        t.join()
    assert len({host_of(gpu, n) for n in "abc"}) == 1, "one host again"
    assert {n: models.session(gpu, n)["id"] for n in "abc"} == ids
    for a in answers:
        assert models.numbers(a) == [3, 5, 7, 9]


def test_unload_leaves_the_others_serving(gpu):
    pid = host_of(gpu, "a")
    for name in "ab":
        answer = gpu.post("/v1/control/unload", {"name": name})
        assert answer.status == 200, answer
        assert host_of(gpu, "c") == pid
        assert models.numbers(models.ask(gpu, "c", 1, 2, 3, 4)) == [3, 5, 7, 9]
    assert gpu.post("/v1/control/unload", {"name": "c"}).status == 200
    assert not is_running(pid), "the host ends with its last session"


def test_a_load_that_fails_leaves_the_others_serving(gpu, tmp_path):
    bad = models.package(tmp_path, "bad", models.DOUBLE + "fault load-fail unsupported\n",
                         engine="simulated", device="GPU.0")
    pid = host_of(gpu, "a")
    assert gpu.cli("load", bad).rc != 0
    assert host_of(gpu, "a") == pid
    load(gpu, gpu.gpu_package, "later")
    assert host_of(gpu, "later") == pid


def test_a_group_comes_back_after_a_restart(gpu):
    ids = {n: models.session(gpu, n)["id"] for n in "abc"}
    gpu.kill()
    gpu.start()
    assert {n: models.session(gpu, n)["id"] for n in "abc"} == ids
    assert len({host_of(gpu, n) for n in "abc"}) == 1


def test_a_host_that_leaks_is_replaced_and_nobody_notices(simulated, tmp_path):
    daemon = simulated().start()
    leaky = models.package(tmp_path, "leaky", models.DOUBLE + "fault leak 30000000 when 66\n",
                           engine="simulated", device="GPU.0")
    good = models.package(tmp_path, "good", models.DOUBLE, engine="simulated", device="GPU.0")
    load(daemon, leaky, "leaky")
    pid = load(daemon, good, "good")["host_pid"]
    for _ in range(8):
        assert models.numbers(models.ask(daemon, "leaky", 66, 2, 3, 4)) == [133, 5, 7, 9]

    def replaced():
        for name in ("leaky", "good"):
            assert models.numbers(models.ask(daemon, name, 1, 2, 3, 4)) == [3, 5, 7, 9]
        return host_of(daemon, "good") != pid

    wait_for(replaced, 20, "a fresh host")
    assert host_of(daemon, "leaky") == host_of(daemon, "good"), "both moved"
    wait_for(lambda: not is_running(pid), 5, "the old host's end")
    assert "host.recycled" in daemon.log() and "how=beside" in daemon.log()
    assert "host.died" not in daemon.log()


def test_a_lost_device_moves_the_session(simulated, tmp_path):
    daemon = simulated().start()
    text = models.DOUBLE + "fault fail device-lost when 67\n"
    path = models.package(tmp_path, "mover", text, engine="simulated", device="GPU.0",
                          also=[{"id": "cpu", "files": ["variants/m.xref"], "format": "reference",
                                 "engine": {"name": "simulated"}, "precision": "f32",
                                 "device": "CPU"}])
    first = load(daemon, path, "mover")
    assert first["device"] == "GPU.0"
    assert models.ask(daemon, "mover", 67, 2, 3, 4).status == 503
    # Its host ends behind the answer.
    wait_for(lambda: models.session(daemon, "mover")["device"] == "CPU", 10, "the move")
    assert models.numbers(models.ask(daemon, "mover", 1, 2, 3, 4)) == [3, 5, 7, 9]
    now = models.session(daemon, "mover")
    assert now["id"] == first["id"] and now["variant"] == "cpu" and now["state"] == "READY"
    assert "session.moved" in daemon.log()
