"""The daemon is told to end, or ends, with everything under way at once; and who goes first when
memory is out."""
import json
import os
import signal
import threading
import time

import pytest

import models
from daemon import is_running, wait_for
from models import ask, numbers, session

TRIPLE = models.DOUBLE.replace("mul x 2", "mul x 3")
# The sum of what came before is kept in two slots of the daemon.
SUM = """xref 1
input x FP32 [-1,4]
input h FP32 [-1,4]
output y FP32 [-1,4]
output g FP32 [-1,4]
y = add x h
g = copy y
"""
STATE = {"state": [{"input": "h", "output": "g", "dtype": "FP32", "shape": [1, 4]}]}


def load(daemon, path, *args):
    said = daemon.cli("load", path, *args, "--json")
    assert said.rc == 0, said
    return said.json()


def sum_of(folder):
    return models.package(folder, "sum", SUM, model=STATE)


def step(daemon, value, start=False):
    return ask(daemon, "sum", value, 0, 0, 0,
               headers={"Xinfer-Sequence": "s1" + (";start" if start else "")})


def test_a_daemon_that_is_told_to_end_with_everything_under_way(daemon, tmp_path):
    """A queue, a sequence and a swap: what was accepted is answered, and it ends with success."""
    slow = models.write(tmp_path, "slow", models.DOUBLE, "delay-ms 150")
    load(daemon, slow, "--instances", "1")
    new = load(daemon, models.write(tmp_path, "new", TRIPLE, "load-delay-ms 300"), "--name", "gone",
               "--lazy")["digest"]
    load(daemon, sum_of(tmp_path))
    assert numbers(step(daemon, 1, start=True))[0] == 1
    answers = []
    asking = [threading.Thread(target=lambda x=float(i): answers.append((x, ask(daemon, "slow", x, 0, 0, 0))))
              for i in range(5)]
    swapped = []
    asking.append(threading.Thread(target=lambda: swapped.append(daemon.post(
        "/v1/control/load", {"package": new, "name": "slow", "replace": True}))))
    for t in asking:
        t.start()
    wait_for(lambda: session(daemon, "slow")["queued"] == 4, 10, "the queue")
    assert numbers(step(daemon, 2))[0] == 3
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 15
    for t in asking:
        t.join()
    assert sorted(x for x, _ in answers) == [float(i) for i in range(5)]
    assert all(numbers(a) == [2 * x + 1, 1, 1, 1] for x, a in answers), answers
    assert swapped[0].status in (200, 503), swapped
    daemon.start()
    assert numbers(ask(daemon, "slow", 1, 0, 0, 0)) in ([3, 1, 1, 1], [4, 1, 1, 1])
    lost = step(daemon, 3)  # a sequence is told that it begins anew
    assert lost.status in (404, 409, 410) and lost.json()["code"].startswith("XI-"), lost


def crowd(daemon, tmp_path):
    """One of each kind; what must be there again after any end: name → (id, pinned, lazy)."""
    gpu = models.package(tmp_path, "gpu", models.DOUBLE, engine="simulated", device="GPU.0")
    load(daemon, gpu, "--name", "g1")
    load(daemon, gpu, "--name", "g2")
    load(daemon, models.write(tmp_path, "pin"), "--pinned")
    load(daemon, models.write(tmp_path, "lazy"), "--lazy")
    load(daemon, sum_of(tmp_path))
    return kept(daemon)


def kept(daemon):
    return {s["name"]: (s["id"], s["pinned"], s["lazy"])
            for s in daemon.get("/v1/models").json()["models"]}


def test_a_daemon_that_is_killed_in_every_phase_comes_back_the_same(simulated, tmp_path):
    """While it loads, while all work, while a host restarts, while it starts: the same sessions, of
    the same groups; leases and sequences have ended, and say so."""
    daemon = simulated().start()
    before = crowd(daemon, tmp_path)
    lease = daemon.post("/v1/leases", {"model": "lazy", "ttl_s": 60})
    assert lease.status in (200, 201), lease
    assert numbers(step(daemon, 1, start=True))[0] == 1
    pids = daemon.hosts()
    working = [threading.Thread(target=lambda n=n: pytest.raises(Exception, hammer, daemon, n))
               for n in ("g1", "pin", "sum")]
    for t in working:
        t.start()
    time.sleep(0.1)
    daemon.kill()
    for t in working:
        t.join()
    assert not any(is_running(p) for p in pids)
    for phase in ("starting", "loading", "a host has just died"):
        daemon.start(ready=phase != "starting")
        if phase == "loading":
            slow = models.write(tmp_path, "slow", models.DOUBLE, "load-delay-ms 300")
            assert daemon.cli("load", slow, "--no-wait").rc == 0
            before = kept(daemon)
        elif phase != "starting":
            os.kill(session(daemon, "g1")["host_pid"], signal.SIGKILL)
        daemon.kill()
    daemon.start()
    assert kept(daemon) == before
    assert session(daemon, "g1")["host_pid"] == session(daemon, "g2")["host_pid"]
    assert session(daemon, "lazy")["state"] == "IDLE" and session(daemon, "lazy")["leases"] == 0
    assert daemon.post("/v1/leases/" + lease.json()["lease"], {}).status == 404
    assert step(daemon, 2).status != 200
    assert numbers(step(daemon, 5, start=True))[0] == 5
    for name in ("g1", "g2", "pin", "lazy", "slow"):
        assert numbers(ask(daemon, name, 1, 2, 3, 4)) == [3, 5, 7, 9]


def hammer(daemon, name):
    while True:
        a = ask(daemon, name, 1, 2, 3, 4, headers={"Xinfer-Sequence": "h;start"} if name == "sum" else {})
        assert a.status == 200, a


def test_when_memory_is_out_hosts_go_before_the_daemon(daemon, tmp_path):
    load(daemon, models.write(tmp_path, "one"))

    def score(pid):
        with open("/proc/%d/oom_score_adj" % pid, encoding="ascii") as f:
            return int(f.read())
    assert score(session(daemon, "one")["host_pid"]) > score(daemon.pid)


@pytest.mark.crashes("loop")
@pytest.mark.parametrize("strategy", ["canary", "shadow"])
def test_a_candidate_that_crashes_on_every_request_goes_and_nobody_is_hurt(daemon, tmp_path, strategy):
    load(daemon, models.write(tmp_path, "loop"))
    bad = load(daemon, models.write(tmp_path, "bad", models.DOUBLE, "crash segv when 7"), "--name", "loop2",
               "--lazy")["digest"]
    old = session(daemon, "loop")["id"]
    how = {"canary": 0.5} if strategy == "canary" else {"strategy": "shadow"}
    started = daemon.post("/v1/control/load",
                          {"package": bad, "name": "loop", "replace": True, **how})
    assert started.status == 200, started

    def rolled_back():
        a = ask(daemon, "loop", 7, 2, 3, 4)
        if a.status == 200:
            assert numbers(a) == [15, 5, 7, 9]
        else:  # a canary's own requests may see it
            assert strategy == "canary" and a.status in (422, 500, 503), a
        return "swap.rolled_back" in daemon.log()
    wait_for(rolled_back, 15, "the old one alone")
    wait_for(lambda: len([s for s in daemon.get("/v1/models").json()["models"] if s["name"] == "loop"]) == 1,
             10, "the candidate to go")
    assert session(daemon, "loop")["id"] == old
    assert numbers(ask(daemon, "loop", 8, 2, 3, 4)) == [17, 5, 7, 9]
