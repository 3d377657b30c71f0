"""Many at once, at the wrong moment, or with odd numbers: the daemon stays up, others notice nothing."""
import math
import os
import signal
import socket
import struct
import threading
import time

import pytest

import models
from daemon import is_sanitized, wait_for
from models import ask, floats, numbers, session

HALF = is_sanitized()  # sanitized builds take half the storm


def at_once(n, what):
    """what(i) from n threads that start together; what they returned, in order."""
    answers, gate = [None] * n, threading.Barrier(n)

    def run(i):
        gate.wait()
        answers[i] = what(i)
    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return answers


@pytest.fixture
def still_well(daemon, tmp_path):
    """Another model that must answer before, during and after."""
    assert daemon.cli("load", models.write(tmp_path, "neighbour")).rc == 0
    yield daemon
    assert numbers(ask(daemon, "neighbour", 1, 2, 3, 4)) == [3, 5, 7, 9]


def digest_of(daemon, tmp_path, name, text=models.DOUBLE, *faults):
    """A package in the store that is not loaded."""
    assert daemon.cli("load", models.write(tmp_path, name, text, *faults)).rc == 0
    digest = session(daemon, name)["digest"]
    assert daemon.cli("unload", name).rc == 0
    return digest


def load(daemon, digest, **more):
    return daemon.post("/v1/control/load", {"package": digest, **more})


# ---- loads ----

@pytest.mark.tsan
def test_a_hundred_clients_load_the_same_and_get_one_session(still_well, tmp_path):
    daemon, n = still_well, 30 if HALF else 100
    digest = digest_of(daemon, tmp_path, "same", models.DOUBLE, "load-delay-ms 100")
    answers = at_once(n, lambda i: load(daemon, digest, name="same"))
    assert {a.status for a in answers} <= {200, 201}, answers
    assert len({a.json()["id"] for a in answers}) == 1
    assert len(daemon.hosts()) == 2
    assert numbers(ask(daemon, "same", 1, 2, 3, 4)) == [3, 5, 7, 9]


@pytest.mark.tsan
def test_loads_requests_and_unloads_of_one_name_at_once(still_well, tmp_path):
    """Whatever comes out, each request is answered rightly or refused with a code, and in the end
    nothing is left."""
    daemon, rounds = still_well, 6 if HALF else 20
    digest = digest_of(daemon, tmp_path, "storm")
    fds = daemon.open_fds()

    def client(i):
        odd = []
        for k in range(rounds):
            x = float(100 * i + k)
            if i % 3 == 0:
                a = load(daemon, digest, name="storm")
                good = a.status in (200, 201, 409, 410, 503)
            elif i % 3 == 1:
                a = ask(daemon, "storm", x, 0, 0, 0)
                good = numbers(a) == [2 * x + 1, 1, 1, 1] if a.status == 200 else a.status in (404, 410, 503)
            else:
                a = daemon.post("/v1/control/unload", {"name": "storm"})
                good = a.status in (200, 404, 410)
            if not good:
                odd.append(a)
        return odd
    assert not sum(at_once(9, client), [])
    daemon.post("/v1/control/unload", {"name": "storm"})
    wait_for(lambda: session(daemon, "storm") is None and len(daemon.hosts()) == 1, 10, "the end of it")
    wait_for(lambda: daemon.open_fds() <= fds + 4, 10, "descriptors to come back")


def test_an_unload_right_behind_requests_loses_none_of_them(still_well, tmp_path):
    daemon = still_well
    assert daemon.cli("load", models.write(tmp_path, "brief", models.DOUBLE, "delay-ms 50"),
                      "--instances", "1").rc == 0
    answers, threads = [], []
    for i in range(8):
        threads.append(threading.Thread(target=lambda x=float(i): answers.append(
            (x, ask(daemon, "brief", x, 0, 0, 0)))))
        threads[-1].start()
    wait_for(lambda: session(daemon, "brief")["queued"] + session(daemon, "brief")["running"] == 8, 5, "all 8")
    said = daemon.post("/v1/control/unload", {"name": "brief"})
    assert said.status == 200, said
    for t in threads:
        t.join()
    assert sorted(x for x, _ in answers) == [float(i) for i in range(8)]
    assert all(numbers(a) == [2 * x + 1, 1, 1, 1] for x, a in answers), answers


def test_a_daemon_that_is_told_to_end_while_it_loads_ends(new_daemon, tmp_path):
    daemon = new_daemon().start()
    digest = digest_of(daemon, tmp_path, "slow", models.DOUBLE, "load-delay-ms 1500")
    loading = threading.Thread(target=lambda: load(daemon, digest, name="slow"))
    loading.start()
    wait_for(lambda: session(daemon, "slow"), 5, "the load to begin")
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 10
    loading.join()


def test_a_thousand_requests_in_flight_are_answered_before_the_end(new_daemon, tmp_path):
    """Each on a connection of its own, all sent before SIGTERM, all answered."""
    n = 200 if HALF else 1000
    config = tmp_path / "config.json"
    config.write_text('{"queue_limit": %d}' % n)
    daemon = new_daemon("--config", str(config)).start()
    assert daemon.cli("load", models.write(tmp_path, "crowd", models.DOUBLE, "delay-ms 2")).rc == 0
    body = floats(1, 2, 3, 4)
    request = ("POST /v1/infer/crowd HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
               "Xinfer-Dtype: FP32\r\nXinfer-Shape: 1,4\r\nContent-Length: %d\r\n\r\n" % len(body)).encode() + body
    sockets = []
    try:
        for _ in range(n):
            sockets.append(socket.create_connection(("127.0.0.1", daemon.port), timeout=30))
            sockets[-1].sendall(request)
        daemon.expected_to_live = False
        daemon.process.send_signal(signal.SIGTERM)
        first = [s.recv(65536)[:12] for s in sockets]
        assert daemon.process.wait(30) == 0
    finally:
        for s in sockets:
            s.close()
    # What it read after it was told to end is told so.
    assert set(first) <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}, set(first)
    assert first.count(b"HTTP/1.1 200") > n // 2


# ---- numbers ----

NAN, INF = float("nan"), float("inf")


def test_odd_numbers_come_back_as_the_model_makes_them(daemon, tmp_path):
    """2x + 1 by IEEE 754: NaN stays NaN, infinities stay, a denormal vanishes beside 1."""
    assert daemon.cli("load", models.write(tmp_path, "plain")).rc == 0
    a = ask(daemon, "plain", NAN, INF, -INF, 1e-42, headers={"Accept": "application/octet-stream"})
    assert a.status == 200, a
    got = struct.unpack("<4f", a.body[-16:])
    assert math.isnan(got[0]) and got[1:] == (INF, -INF, 1.0)
    assert numbers(ask(daemon, "plain", NAN, INF, -INF, 1.0)) == [None, None, None, 3]


def test_shapes_never_seen_before_one_after_another(daemon, tmp_path):
    """Each is answered rightly, and the host's memory stays bounded."""
    assert daemon.cli("load", models.write(tmp_path, "rows")).rc == 0
    order = list(range(1, 101 if HALF else 401))
    for i, rows in enumerate(order[::2] + order[1::2]):
        a = ask(daemon, "rows", *([float(i)] * (4 * rows)))
        assert numbers(a) == [2.0 * i + 1] * (4 * rows)
    host = session(daemon, "rows")["host_pid"]
    with open("/proc/%d/status" % host, encoding="utf-8") as f:
        rss = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
    assert rss < (800 if HALF else 100) * 1024


# ---- logs and metrics ----

def test_names_cannot_write_lines_into_the_log(daemon):
    evil = "x%0aday.broken%20id=1%1b[31m"
    a = daemon.get("/v1/models/" + evil)
    assert a.status in (400, 404), a
    load(daemon, "no\nsession.ready id=forged\x1b[31m")
    daemon.post("/v1/control/load", {"package": "x", "name": "a\nsession.ready id=forged"})
    for line in daemon.log().splitlines():
        assert not line.startswith(("day.broken", "session.ready")) and "\x1b" not in line, line


def test_names_that_are_asked_for_do_not_become_metrics(daemon):
    before = len(daemon.get("/metrics").body)
    for i in range(200):
        assert daemon.post("/v1/infer/name-%d" % i, b"x", headers={
            "Content-Type": "application/octet-stream", "Xinfer-Tenant": "t%d" % i}).status == 404
    after = daemon.get("/metrics").body
    assert b"name-1" not in after and b'"t1' not in after
    assert len(after) < before + 4096


def test_a_log_on_a_full_disk_stops_nothing(new_daemon, tmp_path):
    daemon = new_daemon()
    daemon.log_path, daemon.log = "/dev/full", lambda: ""
    daemon.start()
    assert daemon.cli("load", models.write(tmp_path, "quiet")).rc == 0
    assert numbers(ask(daemon, "quiet", 1, 2, 3, 4)) == [3, 5, 7, 9]
    dropped = [l for l in daemon.get("/metrics").body.decode().splitlines()
               if l.startswith("xinfer_log_dropped")]
    assert dropped and float(dropped[0].split()[-1]) > 0, dropped


# ---- files ----

def test_a_package_whose_files_are_replaced_while_it_is_loaded_serves_on(daemon, tmp_path):
    """The host has its copy mapped; the next start finds the damage and says so."""
    assert daemon.cli("load", models.write(tmp_path, "kept")).rc == 0
    digest = session(daemon, "kept")["digest"]
    links = os.path.join(daemon.state, "links", digest)
    models_found = [os.path.join(root, f) for root, _, files in os.walk(links) for f in files
                    if f.endswith(".xref")]
    assert len(models_found) == 1
    blob = models_found[0]
    os.unlink(blob)
    with open(blob, "w", encoding="utf-8") as f:
        f.write("no model at all\n")
    assert numbers(ask(daemon, "kept", 1, 2, 3, 4)) == [3, 5, 7, 9]
    os.kill(session(daemon, "kept")["host_pid"], signal.SIGKILL)
    # The link is made anew from the store's blob, which is whole.
    assert numbers(ask(daemon, "kept", 1, 2, 3, 4)) == [3, 5, 7, 9]


def test_an_upload_that_breaks_off_leaves_nothing(still_well):
    daemon = still_well
    packages = daemon.get("/v1/packages").json()
    for cut in (0, 1, 5000):
        with socket.create_connection(("127.0.0.1", daemon.port), timeout=10) as s:
            s.sendall(b"POST /v1/control/packages HTTP/1.1\r\nHost: localhost\r\n"
                      b"Content-Type: application/vnd.xinfer.xpkg\r\nContent-Length: 100000\r\n\r\n" + b"P" * cut)
            time.sleep(0.05)
    wait_for(lambda: os.listdir(os.path.join(daemon.state, "staging")) == [], 10, "staging to be empty")
    assert daemon.get("/v1/packages").json() == packages
