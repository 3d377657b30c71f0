"""Hosts and the daemon are killed again and again under load. CHAOS_ROUNDS says how often (10);
`make chaos` takes 100."""
import itertools
import json
import os
import random
import signal
import threading

import pytest

import models
from daemon import is_running, wait_for
from models import ask, numbers, session

pytestmark = pytest.mark.tsan
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "10"))
WAYS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)


class Load:
    """Asks a model all the time from some threads; each answer is checked by its own input."""

    def __init__(self, daemon, name, threads=2):
        self.daemon, self.name = daemon, name
        self.right, self.refused, self.wrong, self.lost = 0, [], [], 0
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(threads)]
        for t in self.threads:
            t.start()

    def run(self, which):
        for n in itertools.count():
            if self.ended.is_set():
                return
            x = float(which * 1000000 + n % 1000000)
            try:
                answer = ask(self.daemon, self.name, x, 0, 0, 0)
            except OSError:
                self.lost += 1  # the daemon itself was killed
                self.ended.wait(0.01)
                continue
            if answer.status != 200:
                self.refused.append(answer)
                self.ended.wait(0.01)
            elif numbers(answer) == [2 * x + 1, 1, 1, 1]:
                self.right += 1
            else:
                self.wrong.append(answer)

    def stop(self):
        self.ended.set()
        for t in self.threads:
            t.join()


def loaded(daemon, tmp_path, *names):
    for name in names:
        said = daemon.cli("load", models.write(tmp_path, name, models.DOUBLE, "delay-ms 2"))
        assert said.rc == 0, said
    return ids(daemon)


def ids(daemon):
    return {s["name"]: s["id"] for s in daemon.get("/v1/models").json()["models"]}


def ready_host(daemon, name, other_than=None):
    s = session(daemon, name)
    return s["host_pid"] if s["state"] == "READY" and s["host_pid"] != other_than else None


@pytest.mark.crashes("victim")
def test_hosts_die_again_and_again_and_the_neighbour_serves(new_daemon, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"crash_limit": 1000, "crash_window_ms": 1000}))
    daemon = new_daemon("--config", str(config)).start()
    before = loaded(daemon, tmp_path, "victim", "neighbour")
    pids, pid, chance = set(), None, random.Random(1)
    neighbour, victim = Load(daemon, "neighbour"), Load(daemon, "victim")
    try:
        wait_for(lambda: neighbour.right > 20 and victim.right > 20, 20, "the first answers")
        open_before = daemon.open_fds()
        for i in range(ROUNDS):
            pid = wait_for(lambda last=pid: ready_host(daemon, "victim", last), 30, "a new host")
            pids.add(pid)
            answered = victim.right
            wait_for(lambda n=answered: victim.right > n, 20, "the new host to answer")
            threading.Event().wait(chance.uniform(0, 0.02))
            os.kill(pid, WAYS[i % len(WAYS)])
        last = wait_for(lambda: ready_host(daemon, "victim", pid), 30, "the last host")
    finally:
        neighbour.stop()
        victim.stop()
    assert not neighbour.wrong and not neighbour.refused and not neighbour.lost, neighbour.refused[:3]
    assert not victim.wrong and not victim.lost, victim.wrong[:3]
    # Two requests may die with a host; what comes while it is away may be sent away, with a code.
    assert {a.status for a in victim.refused} <= {500, 503}, victim.refused[:3]
    assert all(a.json()["code"].startswith("XI-") for a in victim.refused)
    assert len(pids) == ROUNDS and ids(daemon) == before
    assert not any(is_running(p) for p in pids) and is_running(last)
    wait_for(lambda: daemon.open_fds() <= open_before, 10, "descriptors of dead hosts to close")


def test_the_daemon_is_killed_again_and_again_and_comes_back_the_same(daemon, tmp_path):
    before = loaded(daemon, tmp_path, "one", "two")
    chance, load = random.Random(2), Load(daemon, "one")
    try:
        for _ in range(ROUNDS):
            answered = load.right
            wait_for(lambda n=answered: load.right > n, 20, "an answer")
            threading.Event().wait(chance.uniform(0, 0.05))
            daemon.kill()  # sees to it that no host is left
            daemon.start(ready=False)
            wait_for(lambda: ready_host(daemon, "one") and ready_host(daemon, "two"), 20, "both")
            assert ids(daemon) == before
            assert numbers(ask(daemon, before["two"], 1, 2, 3, 4)) == [3, 5, 7, 9]
    finally:
        load.stop()
    assert not load.wrong, load.wrong[:3]
    assert load.lost >= ROUNDS - 1
