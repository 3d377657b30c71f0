"""A daemon's life as a supervisor sees it: it comes up, answers on both doors, and ends when asked."""
import collections
import concurrent.futures
import fcntl
import os
import signal

import pytest

import models
from daemon import run_program, wait_for

pytestmark = pytest.mark.tsan


def test_ready_on_tcp_and_on_the_unix_socket(daemon):
    for unix in (False, True):
        assert daemon.get("/v1/health/live", unix=unix).status == 200
        assert daemon.get("/v1/health/ready", unix=unix).status == 200


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_ends_with_success_when_asked(daemon, sig):
    assert daemon.stop(sig) == 0


def test_starts_again_on_its_own_state_after_kill(daemon):
    daemon.kill()
    daemon.start()
    assert daemon.get("/v1/health/ready", unix=True).status == 200


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_an_accepted_load_comes_back_when_the_daemon_ends_meanwhile(daemon, tmp_path, end):
    slow = models.write(tmp_path, "slow", models.DOUBLE, "load-delay-ms 1500")
    said = daemon.cli("load", slow, "--no-wait", "--json")
    assert said.rc == 0, said
    before = models.session(daemon, "slow")
    assert before["state"] == "LOADING"
    getattr(daemon, end)()
    daemon.start()
    assert models.session(daemon, "slow")["id"] == before["id"]


def test_a_log_that_nobody_reads_holds_up_nothing(new_daemon):
    unread, log = os.pipe()
    fcntl.fcntl(log, fcntl.F_SETPIPE_SZ, 4096)
    daemon = new_daemon()
    daemon.log_path, daemon.log = "/proc/self/fd/%d" % log, lambda: ""
    daemon.start()
    try:
        for _ in range(30):  # each is refused with a line in the log
            said = daemon.post("/v1/control/packages", b"no package", timeout=10,
                               headers={"Content-Type": "application/vnd.xinfer.xpkg"})
            assert 400 <= said.status < 500, said
        assert daemon.stop() == 0
    finally:
        os.close(unread)
        os.close(log)


def test_metrics_name_a_session_once_while_its_successor_has_come(daemon, tmp_path):
    slow = models.write(tmp_path, "slow", models.DOUBLE, "delay-ms 1200")
    assert daemon.cli("load", slow).rc == 0
    with concurrent.futures.ThreadPoolExecutor(2) as others:
        asked = others.submit(models.ask, daemon, "slow", 1, 2, 3, 4)
        wait_for(lambda: models.session(daemon, "slow")["running"] == 1, 10, "the request")
        unloaded = others.submit(daemon.post, "/v1/control/unload", {"name": "slow"})
        wait_for(lambda: models.session(daemon, "slow")["state"] == "DRAINING", 10, "the drain")
        assert daemon.post("/v1/control/load", {"package": "slow", "wait": False}).status == 202
        text = daemon.get("/metrics").body.decode()
        states = [s["state"] for s in daemon.get("/v1/models").json()["models"]]
        assert "DRAINING" in states and len(states) == 2
        assert models.numbers(asked.result()) == [3, 5, 7, 9]
        assert unloaded.result().status == 200
    series = [line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")]
    twice = [name for name, times in collections.Counter(series).items() if times > 1]
    assert not twice, twice


def test_a_port_in_use_is_named(daemon, new_daemon):
    second = new_daemon()
    said = run_program("xinferd", "--listen", "127.0.0.1:%d" % daemon.port, "--state", second.state,
                       timeout=10)
    assert said.rc != 0
    assert str(daemon.port) in said.stderr
    assert daemon.get("/v1/health/live").status == 200


def test_a_second_daemon_on_the_same_state_is_refused(daemon, new_daemon):
    said = run_program("xinferd", "--listen", "127.0.0.1:%d" % new_daemon().port,
                       "--state", daemon.state, timeout=10)
    assert said.rc != 0
    assert daemon.state in said.stderr or "another" in said.stderr
    assert daemon.get("/v1/health/live", unix=True).status == 200
