"""One version takes another's place while it is asked, and everything that can go wrong meanwhile."""
import json
import os
import threading
import time

import pytest

import models
from daemon import is_running, wait_for
from models import ask, numbers, session

pytestmark = pytest.mark.tsan
TRIPLE = models.DOUBLE.replace("mul x 2", "mul x 3")
GOLDEN = os.path.join(os.path.dirname(__file__), "golden")
OLD, NEW = [3, 5, 7, 9], [4, 7, 10, 13]  # of 1, 2, 3, 4


def install(daemon, tmp_path, name, text=models.DOUBLE, *faults):
    """Installs a model and returns its digest."""
    path = models.write(tmp_path, name, text, *faults)
    said = daemon.cli("load", path, "--name", "tmp-" + name, "--lazy", "--json")
    assert said.rc == 0, said
    assert daemon.post("/v1/control/unload", {"name": "tmp-" + name}).status == 200
    return said.json()["digest"]


def load(daemon, digest, name="m", **more):
    return daemon.post("/v1/control/load", {"package": digest, "name": name, **more}, timeout=120)


def swap(daemon, digest, **more):
    return load(daemon, digest, replace=True, **more)


class Asking:
    """Clients that ask the model all the time; each answer is one of the two versions'."""

    def __init__(self, daemon, clients=3, name="m", allowed=()):
        self.daemon, self.name, self.allowed = daemon, name, allowed
        self.stop, self.wrong, self.old, self.new = threading.Event(), [], 0, 0
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]

    def run(self):
        while not self.stop.is_set():
            answer = ask(self.daemon, self.name, 1, 2, 3, 4)
            said = numbers(answer) if answer.status == 200 else None
            if said == OLD:
                self.old += 1
            elif said == NEW:
                self.new += 1
            elif answer.status not in self.allowed:
                self.wrong.append(repr(answer))

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for t in self.threads:
            t.join()
        assert not self.wrong, self.wrong[:3]


def test_ten_swaps_under_load_lose_nothing(daemon, tmp_path):
    double, triple = (install(daemon, tmp_path, n, t) for n, t in (("a", models.DOUBLE), ("b", TRIPLE)))
    assert load(daemon, double).status == 200
    ids = [session(daemon, "m")["id"]]
    with Asking(daemon) as clients:
        for i in range(10):
            said = swap(daemon, (triple, double)[i % 2])
            assert said.status == 200, said
            assert said.json()["replaced"]["id"] == ids[-1] and said.json()["strategy"] == "beside"
            assert numbers(ask(daemon, "m", 1, 2, 3, 4)) == (NEW, OLD)[i % 2]
            ids.append(said.json()["id"])
    assert clients.old > 0 and clients.new > 0
    gone = ask(daemon, ids[0], 1, 2, 3, 4)
    assert gone.status == 410 and gone.json()["successor"] == ids[-1], gone
    wait_for(lambda: len(daemon.get("/v1/models").json()["models"]) == 1, 10, "the old ones to go")
    # Desired state is the last one's.
    daemon.kill()
    daemon.start()
    assert session(daemon, "m")["id"] == ids[-1]
    assert numbers(ask(daemon, "m", 1, 2, 3, 4)) == OLD
