"""Whoever asks for more than a share gets the share; whoever asks for little is served in time."""
import json
import threading
import time

import models
from models import ask, numbers

WORK = models.DOUBLE + "cost-us 4000 0\n"


class Asking:
    """Clients that ask one model all the time and count the answers; the longest wait too."""

    def __init__(self, daemon, name, clients, **headers):
        self.daemon, self.name, self.headers = daemon, name, headers
        self.stop, self.right, self.wrong, self.longest = False, 0, [], 0.0
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]

    def run(self):
        while not self.stop:
            began = time.monotonic()
            a = ask(self.daemon, self.name, 1, 2, 3, 4, headers=self.headers)
            self.longest = max(self.longest, time.monotonic() - began)
            if a.status == 200 and numbers(a) == [3, 5, 7, 9]:
                self.right += 1
            else:
                self.wrong.append(a)

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stop = True
        for t in self.threads:
            t.join()
        assert not self.wrong, self.wrong[:3]


def one_core(new_daemon, tmp_path, **loads):
    """A daemon with one core and a model for each keyword: its options."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"cores": 1}))
    daemon = new_daemon("--config", str(config)).start()
    path = models.write(tmp_path, "work", WORK)
    said = daemon.cli("load", path, "--lazy", "--name", "none", "--json")
    assert said.rc == 0, said
    for name, body in loads.items():
        answer = daemon.post("/v1/control/load",
                             {"package": said.json()["digest"], "name": name,
                              "options": {"instances": 1}, **body})
        assert answer.status == 200, answer
    return daemon


def test_a_tenant_that_asks_ten_times_as_much_gets_its_share(new_daemon, tmp_path):
    daemon = one_core(new_daemon, tmp_path, much={"tenant": "much"}, little={"tenant": "little"})
    with Asking(daemon, "much", 10, **{"Xinfer-Tenant": "much"}) as much:
        with Asking(daemon, "little", 1, **{"Xinfer-Tenant": "little"}) as little:
            time.sleep(1)
    # Its one client waits for one run of the others' at a time, not for ten.
    assert little.right >= much.right / 3, (little.right, much.right)
    assert little.longest < much.longest


def test_the_lowest_class_is_not_forgotten(new_daemon, tmp_path):
    daemon = one_core(new_daemon, tmp_path, day={"priority": "normal"}, night={"priority": "batch"})
    with Asking(daemon, "day", 6) as day:
        with Asking(daemon, "night", 1) as night:
            time.sleep(1)
    assert day.right > night.right >= 2, (day.right, night.right)
