"""What goes wrong inside a batch: the one that did it is named, everybody else is answered right, once."""
import http.client
import json
import os
import signal
import socket
import threading

import pytest

import models
from daemon import is_running, wait_for
from models import ask, numbers, session

BLOCK, POISON, POISON2 = 7.0, 666.0, 667.0
SLOW_7 = models.DOUBLE + "fault delay-ms 150 when 7\n"


class Client:
    """A connection that stays open, so that a second answer to one request would be seen."""

    def __init__(self, daemon, model, value, **headers):
        self.value, self.answer = value, None
        self.connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
        self.path = "/v1/infer/" + model
        self.headers = {"Content-Type": "application/octet-stream", "Xinfer-Dtype": "FP32",
                        "Xinfer-Shape": "1,4", **headers}
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        self.connection.request("POST", self.path, models.floats(self.value, 1, 2, 3), self.headers)
        response = self.connection.getresponse()
        self.status, self.body = response.status, response.read()

    def ended(self):
        """Waits for the answer, sees that it is the only one, and returns the status."""
        self.thread.join()
        if self.connection.sock:  # None where the daemon closed it
            self.connection.sock.settimeout(0)
            try:
                assert self.connection.sock.recv(1) == b"", "a second answer"
            except BlockingIOError:
                pass
        self.connection.close()
        return self.status

    def right(self):
        assert self.ended() == 200, self.body
        data = json.loads(self.body)["outputs"][0]["data"]
        assert data == [2 * self.value + 1, 3, 5, 7], (self.value, data)
        return True


def load(daemon, path, *args):
    said = daemon.cli("load", path, *args)
    assert said.rc == 0, said
    return said


def batch_of(daemon, model, values, **headers):
    """Clients whose requests wait behind one that takes a while, so that they share the next run."""
    first = Client(daemon, model, BLOCK)
    wait_for(lambda: session(daemon, model)["running"] == 1, 10, "the first to run")
    clients = [Client(daemon, model, v, **headers) for v in values]
    wait_for(lambda: session(daemon, model)["queued"] == len(values), 10, "all to wait")
    assert first.right()
    return clients


def suspects(daemon):
    return daemon.log().count(" request.suspect ")


class Calm:
    """Asks another session all the time; it must notice nothing."""

    def __init__(self, daemon, name):
        self.daemon, self.name, self.stop, self.wrong, self.right = daemon, name, False, [], 0
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop:
            a = ask(self.daemon, self.name, 1, 2, 3, 4)
            if a.status != 200 or numbers(a) != [3, 5, 7, 9]:
                self.wrong.append(a)
            self.right += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop = True
        self.thread.join()
        assert not self.wrong and self.right, self.wrong[:3]


def check_batch(daemon, model, clients, poisons):
    """All but the poisons are answered right; those are named, and known from then on."""
    for c in clients:
        if c.value in poisons:
            assert c.ended() == 500, c.body
            assert json.loads(c.body)["code"] == "XI-0407"
        else:
            assert c.right()
    assert suspects(daemon) >= len(clients), "they shared no batch"
    for p in poisons:
        known = ask(daemon, model, p, 1, 2, 3)
        assert known.status == 422 and known.json()["code"] == "XI-0403", known


@pytest.mark.crashes("weak")
@pytest.mark.parametrize("poisons", [(POISON,), (POISON, POISON2)])
def test_a_poison_in_a_batch_of_eight_while_others_are_served(daemon, tmp_path, poisons):
    text = SLOW_7 + "fault crash segv when 666\nfault crash abort when 667\n"
    load(daemon, models.write(tmp_path, "weak", text), "--instances", "1", "--max-batch", "8")
    load(daemon, models.write(tmp_path, "calm"))
    with Calm(daemon, "calm"):
        good = [float(i) for i in range(10, 18 - len(poisons))]
        clients = batch_of(daemon, "weak", good[:3] + list(poisons) + good[3:])
        check_batch(daemon, "weak", clients, poisons)
    assert 1 <= session(daemon, "weak")["restarts"] <= 1 + len(poisons)


@pytest.mark.crashes("default/GPU.0")
def test_a_poison_in_a_batch_of_a_shared_host(simulated, tmp_path):
    """The other session of that host loses its process, and not one request."""
    daemon = simulated().start()
    load(daemon, models.package(tmp_path, "weak", SLOW_7 + "fault crash segv when 666\n",
                                engine="simulated", device="GPU.0"),
         "--instances", "1", "--max-batch", "8")
    load(daemon, models.package(tmp_path, "calm", models.DOUBLE, engine="simulated",
                                device="GPU.0"))
    assert session(daemon, "weak")["host_pid"] == session(daemon, "calm")["host_pid"]
    with Calm(daemon, "calm"):
        clients = batch_of(daemon, "weak", [10.0, 11.0, 12.0, POISON, 13.0, 14.0, 15.0, 16.0])
        check_batch(daemon, "weak", clients, (POISON,))
    assert session(daemon, "calm")["state"] == "READY"
    assert session(daemon, "calm")["host_pid"] == session(daemon, "weak")["host_pid"]


@pytest.mark.parametrize("how", ["hang", "stop", "spin-ms 20000"])
def test_a_hang_in_a_batch(new_daemon, tmp_path, how):
    config = tmp_path / "config.json"
    config.write_text('{"watchdog_min_ms": 300}')
    daemon = new_daemon("--config", str(config)).start()
    # No slow run before it: the time it may take is 20 times the usual.
    load(daemon, models.write(tmp_path, "weak", models.DOUBLE, how + " when 666"), "--instances", "1",
         "--max-batch", "4", "--max-delay-ms", "500")
    load(daemon, models.write(tmp_path, "calm"))
    with Calm(daemon, "calm"):
        clients = [Client(daemon, "weak", v) for v in (10.0, 11.0, POISON, 12.0)]
        check_batch(daemon, "weak", clients, (POISON,))


@pytest.mark.crashes("weak")
@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSTOP])
def test_a_host_that_is_ended_in_the_middle_of_a_batch(new_daemon, tmp_path, sig):
    """Nobody is guilty: all eight are answered right, by another process."""
    config = tmp_path / "config.json"
    config.write_text('{"watchdog_min_ms": 500}')
    daemon = new_daemon("--config", str(config)).start()
    load(daemon, models.write(tmp_path, "weak", models.DOUBLE, "delay-ms 60 when 10"), "--instances",
         "1", "--max-batch", "8", "--max-delay-ms", "500")
    clients = [Client(daemon, "weak", float(i)) for i in range(10, 18)]
    pid = wait_for(lambda: session(daemon, "weak")["running"] == 8
                   and session(daemon, "weak")["host_pid"], 5, "the batch to run")
    os.kill(pid, sig)
    assert all(c.right() for c in clients)
    assert suspects(daemon) == 8
    assert not is_running(pid)


def test_a_batch_that_fails_tells_its_own_clients_alone(daemon, tmp_path):
    """The engine says no: the host lives, so nobody is suspected."""
    text = SLOW_7 + "fault fail bad-input when 666\n"
    load(daemon, models.write(tmp_path, "weak", text), "--instances", "1", "--max-batch", "8")
    pid = session(daemon, "weak")["host_pid"]
    clients = batch_of(daemon, "weak", [10.0, 11.0, POISON, 12.0])
    for c in clients:
        if c.value == POISON:
            assert c.ended() == 400, c.body
        else:
            assert c.right()
    assert numbers(ask(daemon, "weak", 1, 2, 3, 4)) == [3, 5, 7, 9]
    assert session(daemon, "weak")["host_pid"] == pid


def test_a_batch_that_breaks_its_engine_is_tried_one_by_one(daemon, tmp_path):
    text = SLOW_7 + "fault fail internal when 666\n"
    load(daemon, models.write(tmp_path, "weak", text), "--instances", "1", "--max-batch", "8")
    clients = batch_of(daemon, "weak", [10.0, 11.0, POISON, 12.0])
    for c in clients:
        if c.value == POISON:
            assert c.ended() == 500 and json.loads(c.body)["code"].startswith("XI-04"), c.body
        else:
            assert c.right()


def test_a_batch_that_loses_its_device_is_answered_by_another(simulated, tmp_path):
    """One of them alone says so, and is told; what came to the dying host behind it is not guilty."""
    daemon = simulated().start()
    cpu = {"id": "cpu", "files": ["variants/m.xref"], "format": "reference", "precision": "f32",
           "engine": {"name": "simulated"}, "device": "CPU"}
    text = models.DOUBLE + "fault fail device-lost when 666\n"
    load(daemon, models.package(tmp_path, "mover", text, engine="simulated", device="GPU.0",
                                also=[cpu]), "--instances", "1", "--max-batch", "4",
         "--max-delay-ms", "500")
    assert session(daemon, "mover")["device"] == "GPU.0"
    clients = [Client(daemon, "mover", v) for v in (10.0, 11.0, POISON, 12.0)]
    assert all(c.right() for c in clients if c.value != POISON)
    for c in clients:
        if c.value == POISON:
            assert c.ended() in (500, 503), c.body
    assert "session.moved" in daemon.log()


def test_what_has_expired_never_runs(daemon, tmp_path):
    """Each of them would end the host."""
    text = SLOW_7 + "fault crash abort when 666\n"
    load(daemon, models.write(tmp_path, "weak", text), "--instances", "1", "--max-batch", "8")
    for _ in range(2):  # the second time its usual time is known, and it may be refused at once
        first = Client(daemon, "weak", BLOCK)
        wait_for(lambda: session(daemon, "weak")["running"] == 1, 10, "the first to run")
        late = [Client(daemon, "weak", POISON, **{"Xinfer-Deadline-Ms": "20"}) for _ in range(4)]
        fine = [Client(daemon, "weak", 10.0, **{"Xinfer-Deadline-Ms": "20000"}) for _ in range(3)]
        assert {c.ended() for c in late} <= {503, 504}
        assert all(c.right() for c in [first] + fine)
    assert session(daemon, "weak")["restarts"] == 0


def test_clients_that_leave_a_batch_leave_the_others_theirs(daemon, tmp_path):
    text = SLOW_7 + "fault crash abort when 666\n"
    load(daemon, models.write(tmp_path, "weak", text), "--instances", "1", "--max-batch", "8")
    first = Client(daemon, "weak", BLOCK)
    wait_for(lambda: session(daemon, "weak")["running"] == 1, 10, "the first to run")
    leaving = []
    for _ in range(3):  # had they stayed, they would end the host
        s = socket.create_connection(("127.0.0.1", daemon.port))
        s.sendall(b"POST /v1/infer/weak HTTP/1.1\r\nHost: localhost\r\nXinfer-Dtype: FP32\r\n"
                  b"Content-Type: application/octet-stream\r\nXinfer-Shape: 1,4\r\n"
                  b"Content-Length: 16\r\n\r\n" + models.floats(POISON, 0, 0, 0))
        leaving.append(s)
    staying = [Client(daemon, "weak", float(i)) for i in range(10, 15)]
    wait_for(lambda: session(daemon, "weak")["queued"] == 8, 10, "all to wait")
    for s in leaving:
        s.close()
    assert first.right() and all(c.right() for c in staying)
    assert session(daemon, "weak")["restarts"] == 0


# ---- shared hosts ----

@pytest.mark.crashes("default/GPU.0")
def test_a_crash_loop_in_a_shared_host_quarantines_its_own_session_alone(simulated, tmp_path):
    """Each time the host goes, the other one's requests wait, and none of them is lost."""
    daemon = simulated(crash_limit=3).start()
    load(daemon, models.package(tmp_path, "bomb", models.DOUBLE + "fault crash segv\n",
                                engine="simulated", device="GPU.0"), "--lazy")
    load(daemon, models.package(tmp_path, "calm", models.DOUBLE, engine="simulated",
                                device="GPU.0"))
    with Calm(daemon, "calm"):
        for i in range(12):
            if ask(daemon, "bomb", float(i), 0, 0, 0).json().get("code") == "XI-0406":
                break
    assert session(daemon, "bomb")["state"] == "FAILED", session(daemon, "bomb")
    assert session(daemon, "calm")["state"] == "READY", session(daemon, "calm")
    assert numbers(ask(daemon, "calm", 1, 2, 3, 4)) == [3, 5, 7, 9]


@pytest.mark.crashes("default/GPU.0")
def test_a_hang_in_a_shared_host(simulated, tmp_path):
    daemon = simulated(watchdog_min_ms=300).start()
    load(daemon, models.package(tmp_path, "weak", models.DOUBLE + "fault hang when 666\n",
                                engine="simulated", device="GPU.0"), "--instances", "1",
         "--max-batch", "4", "--max-delay-ms", "500")
    load(daemon, models.package(tmp_path, "calm", models.DOUBLE, engine="simulated",
                                device="GPU.0"))
    with Calm(daemon, "calm"):
        clients = [Client(daemon, "weak", v) for v in (10.0, POISON, 11.0, 12.0)]
        check_batch(daemon, "weak", clients, (POISON,))


@pytest.mark.crashes("weak", "default/GPU.0")
def test_a_poison_among_pictures_in_stages(simulated, tmp_path):
    """On an accelerator decoding, runs and answers are grants of their own; the batch dies in the
    middle of them, and each other request is answered right from its own beginning."""
    daemon = simulated().start()
    flow = {"steps": [{"op": "from_bytes", "in": "input", "out": "x", "dtype": "FP32", "shape": [1, 4]},
                      {"op": "infer", "in": "x", "out": "y"}],
            "output": {"numbers": "y"}}
    load(daemon, models.package(tmp_path, "weak", SLOW_7 + "fault crash segv when 666\n",
                                engine="simulated", device="GPU.0", flow=flow),
         "--instances", "1", "--max-batch", "8")
    answers = {}

    def one(value):
        answers[value] = daemon.post("/v1/infer/weak", models.floats(value, 1, 2, 3),
                                     headers={"Content-Type": "application/octet-stream"})
    first = threading.Thread(target=one, args=(BLOCK,))
    first.start()
    wait_for(lambda: session(daemon, "weak")["running"] >= 1, 10, "the first to run")
    threads = [threading.Thread(target=one, args=(v,)) for v in (10.0, 11.0, POISON, 12.0, 13.0, 14.0)]
    for t in threads:
        t.start()
    for t in [first] + threads:
        t.join()
    assert answers.pop(POISON).status == 500
    for value, a in answers.items():
        assert a.status == 200 and a.json()["outputs"]["y"] == [2 * value + 1, 3, 5, 7], (value, a)
    assert suspects(daemon) >= 3, "they shared no batch"
