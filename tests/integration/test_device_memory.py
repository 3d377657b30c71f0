"""Memory of an accelerator that several share: models in one host, and programs that are not ours.
SIMULATED: the engine's GPU (16 GiB, a context of 512 MiB) computes on the processor, and what its
sensor shows is what the test says."""
import os
import shutil
import threading

import pytest

import models
from daemon import ROOT, build_dir, wait_for
from models import session
from test_memory import amounts, why

GIB = 1 << 30


def write(folder, name, gib, text=models.DOUBLE):
    return models.package(folder, name, text, engine="simulated", device="GPU.0",
                          variant={"memory": int(gib * GIB)})


def load(daemon, path):
    said = daemon.cli("load", path)
    assert said.rc == 0, said
    return session(daemon, os.path.basename(path)[:-len(".xpkg")])


def gpu(daemon):
    return next(d for d in daemon.get("/v1/telemetry").json()["devices"] if d["kind"] == "gpu")


def holds(daemon, name):
    return why(daemon, name)["session"]["reserved_bytes"] / GIB


def test_models_that_share_a_host_have_its_context_once(simulated, tmp_path):
    daemon = simulated().start()
    for name in "abc":
        load(daemon, write(tmp_path, name, 5))
    assert len({session(daemon, n)["host_pid"] for n in "abc"}) == 1
    assert [holds(daemon, n) for n in "abc"] == [5.5, 5, 5]
    assert (gpu(daemon)["reserved"], gpu(daemon)["memory_limit"]) == (15.5 * GIB, 16 * GIB)
    for name in "bc":
        assert daemon.post("/v1/leases", {"model": name, "ttl_s": 600}).status in (200, 201)
    # a's going makes room for what a model adds to the host: not for another 16 MiB.
    said = daemon.cli("load", write(tmp_path, "more", 5.5 + 16 / 1024))
    assert said.rc == 5 and "XI-0502" in said.stderr, said
    assert session(daemon, "a")["state"] == "READY"
    noted = why(daemon, "more")["entries"][0]
    assert (noted["kind"], noted["code"]) == ("refused", "XI-0502")
    needs, free, of, *held = amounts(noted["text"])
    assert (needs, free, of, held) == (5.52 * 1024, 512, 16 * 1024, [5632, 5120, 5120])
    assert free + sum(held) == of and "of GPU.0" in noted["text"]
    load(daemon, write(tmp_path, "fits", 5.5))
    assert session(daemon, "a")["state"] == "IDLE"
    assert gpu(daemon)["reserved"] == 16 * GIB
    assert sorted(holds(daemon, n) for n in ("b", "c", "fits")) == [5, 5.5, 5.5]
    assert models.numbers(models.ask(daemon, "fits", 1, 2, 3, 4)) == [3, 5, 7, 9]
    for name in ("b", "c", "fits"):
        assert daemon.post("/v1/control/unload", {"name": name}).status == 200
    assert gpu(daemon)["reserved"] == 0


@pytest.fixture
def sensed(simulated, tmp_path):
    """A daemon that sees the GPU's memory; use(gib): so much of 16 GiB is in use."""
    board = tmp_path / "board"
    shutil.copytree(os.path.join(ROOT, "tests", "data", "boards", "nvidia"), board)
    os.mkdir(board / "lib")
    library = os.path.join(build_dir(), "tests", "engines", "libxi_simulated_nvml.so")
    shutil.copy(library, board / "lib" / "libnvidia-ml.so.1")
    daemon = simulated(sensors_root=str(board))

    def use(gib):
        beside = board / "lib" / "gpu0_new"
        beside.write_text("%d %d\n" % (16 * GIB, gib * GIB))
        beside.rename(board / "lib" / "gpu0_memory")
        if running:
            wait_for(lambda: gpu(daemon)["memory_used"] == gib * GIB)
    running = False
    use(2)
    running = daemon.start()
    daemon.use = use
    use(2)
    return daemon


def test_what_other_programs_hold_of_it_counts(sensed, tmp_path):
    load(sensed, write(tmp_path, "first", 3))
    sensed.use(12 + 3.5)  # others 12, ours 3.5
    said = sensed.cli("load", write(tmp_path, "second", 4))  # first leaves in vain
    assert said.rc == 5, said
    # What a model needs, what others hold of what there is, what is left, and who holds how much.
    needs, others, of, left, *held = amounts(said.stderr)
    assert (needs, others, of, left) == (4 * 1024, 12 * 1024, 16 * 1024, 512), said
    assert held[0] == 3.5 * 1024 and session(sensed, "first")["state"] == "READY"
    plan = sensed.cli("load", tmp_path / "second.xpkg", "--dry-run", "--json").json()
    assert not plan["admitted"] and plan["memory_free"] == 0.5 * GIB
    sensed.use(3.5)
    load(sensed, tmp_path / "second.xpkg")
    assert session(sensed, "first")["state"] == "READY"


def test_others_take_it_between_the_check_and_the_load(sensed, tmp_path):
    path = write(tmp_path, "late", 10, models.DOUBLE +
                 "fault load-delay-ms 2500\nfault load-fail no-memory\n")
    said = []
    loader = threading.Thread(target=lambda: said.append(sensed.cli("load", path)))
    loader.start()
    wait_for(lambda: (session(sensed, "late") or {}).get("state") == "LOADING")
    sensed.use(15)
    loader.join()
    assert said[0].rc == 5 and "XI-0502" in said[0].stderr, said
    needs, took, others = amounts(said[0].stderr)[:3]
    assert (needs, took, others) == (10.5 * 1024, 13 * 1024, 15 * 1024), said
    assert "while it loaded" in why(sensed, "late")["entries"][0]["text"]
    refused = sensed.post("/v1/control/load", {"package": "late", "name": "again"})
    assert refused.status == 507 and "other programs hold 15.00 GiB" in refused.json()["detail"]
    assert gpu(sensed)["reserved"] == 0
