"""The machine has no more of something: whoever asks is told so, what serves goes on, and when there
is more again everything works again."""
import http.client
import json
import os
import resource
import signal
import socket
import subprocess

import pytest

import models
from daemon import wait_for
from models import ask, numbers, session

TRIPLE = models.DOUBLE.replace("mul x 2", "mul x 3")


def control(daemon, what, **body):
    return daemon.post("/v1/control/" + what, body)


def typed(answer, *statuses):
    """Refused with a code, and with one of these statuses."""
    assert answer.status in statuses, answer
    assert answer.json()["code"].startswith("XI-"), answer
    return answer.json()


@pytest.fixture
def small_disk(new_daemon):
    """A daemon whose state lies on a file system of its own, and fill(), which leaves no byte there,
    and free()."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    daemon = new_daemon()
    os.mkdir(daemon.state, 0o711)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=711", "tmpfs", daemon.state],
                             check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount a file system")
    ballast = os.path.join(daemon.state, "ballast")

    def fill():
        with open(ballast, "wb", buffering=0) as f:
            for step in (65536, 4096, 1):
                try:
                    while True:
                        f.write(b"x" * step)
                except OSError:
                    pass

    daemon.fill, daemon.free = fill, lambda: os.unlink(ballast)
    try:
        yield daemon.start()
        if daemon.expected_to_live:
            assert daemon.stop() == 0
    finally:
        subprocess.run(["umount", "-l", daemon.state], check=True)


def test_a_full_disk_stops_no_inference_and_every_change_is_refused(small_disk, tmp_path):
    daemon = small_disk
    digests = {}
    for name, text in (("a", models.DOUBLE), ("b", TRIPLE)):
        said = daemon.cli("load", models.write(tmp_path, name, text), "--name", name, "--json")
        assert said.rc == 0, said
        digests[name] = said.json()["digest"]
    new = open(models.package(tmp_path, "new", models.DOUBLE.replace("add t 1", "add t 5")), "rb").read()
    xpkg = {"Content-Type": "application/vnd.xinfer.xpkg"}
    daemon.fill()
    typed(daemon.post("/v1/control/packages", new, headers=xpkg), 507)
    def all_ids():
        return sorted((s["name"], s["id"]) for s in daemon.get("/v1/models").json()["models"])

    ids = all_ids()
    # What cannot be remembered is not done.
    typed(control(daemon, "load", package=digests["a"], name="c"), 507)
    typed(control(daemon, "load", package=digests["b"], name="a", replace=True), 507)
    typed(control(daemon, "configure", log_level="debug"), 507)
    typed(control(daemon, "unload", name="b"), 507)
    wait_for(lambda: all_ids() == ids, 10, "those that were tried to go")
    assert numbers(ask(daemon, "a", 1, 2, 3, 4)) == [3, 5, 7, 9]
    os.kill(session(daemon, "a")["host_pid"], signal.SIGKILL)  # it comes back without the disk
    assert numbers(ask(daemon, "a", 1, 2, 3, 4)) == [3, 5, 7, 9]
    assert numbers(ask(daemon, "b", 1, 2, 3, 4)) == [4, 7, 10, 13]
    assert daemon.get("/v1/health/live").status == 200
    daemon.free()
    assert daemon.post("/v1/control/packages", new, headers=xpkg).status in (200, 201)
    assert control(daemon, "load", package="new", name="new").status in (200, 201)
    assert numbers(ask(daemon, "new", 1, 2, 3, 4)) == [7, 9, 11, 13]
    names = sorted(s["name"] for s in daemon.get("/v1/models").json()["models"])
    daemon.kill()
    daemon.start()
    assert sorted(s["name"] for s in daemon.get("/v1/models").json()["models"]) == names


def set_files(daemon, n):
    hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (n, hard))


class Held:
    """A connection that was there before."""

    def __init__(self, daemon):
        self.connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
        self.headers = {"Content-Type": "application/octet-stream", "Xinfer-Dtype": "FP32",
                        "Xinfer-Shape": "1,4"}

    def request(self, method, path, body=None, headers=None):
        self.connection.request(method, path, body, headers or {})
        response = self.connection.getresponse()
        self.last = response.read()
        return response.status, self.last

    def ask(self):
        return self.request("POST", "/v1/infer/a", models.floats(1, 2, 3, 4), self.headers)[0]

    def host_of(self, name):
        return json.loads(self.request("GET", "/v1/models/" + name)[1])["host_pid"]

    def close(self):
        self.connection.close()


def test_no_descriptor_left(daemon, tmp_path):
    """Connections wait or are closed, loads are refused by name; nothing that serves is lost."""
    digests = {}
    for name, text in (("a", models.DOUBLE), ("b", TRIPLE)):
        said = daemon.cli("load", models.write(tmp_path, name, text), "--json")
        assert said.rc == 0, said
        digests[name] = said.json()["digest"]
    held = Held(daemon)
    assert held.ask() == 200
    highest = max(int(fd) for fd in os.listdir("/proc/%d/fd" % daemon.pid))
    set_files(daemon, highest + 1 + 8)
    crowd = []
    try:
        for i in range(4):  # each needs more of them than there are
            typed(control(daemon, "load", package=digests["b"], name="b%d" % i), 503)
        for _ in range(60):
            crowd.append(socket.create_connection(("127.0.0.1", daemon.port), timeout=10))
        assert held.ask() == 200  # who was there is served
        os.kill(held.host_of("a"), signal.SIGKILL)
        status = held.ask()  # 507: the new host got no memory for its answers
        assert status in (200, 503, 507) and (status == 200 or b"XI-05" in held.last), held.last
    finally:
        for s in crowd:
            s.close()
    wait_for(lambda: held.ask() == 200, 20, "a to come back once there are some again")
    set_files(daemon, 1024)
    for i in range(4):
        assert control(daemon, "load", package=digests["b"], name="b%d" % i).status in (200, 201)
        assert numbers(ask(daemon, "b%d" % i, 1, 2, 3, 4)) == [4, 7, 10, 13]
    held.close()
