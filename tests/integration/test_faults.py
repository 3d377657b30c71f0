"""A model can't take the service down: every way in which a host can end, hang or be poisoned."""
import os
import signal
import threading
import time

import pytest

import models
from daemon import is_running, wait_for
from models import ask, numbers, session

pytestmark = pytest.mark.tsan
POISON = (666.0, 0.0, 0.0, 0.0)


def load(daemon, path, *args):
    said = daemon.cli("load", path, *args)
    assert said.rc == 0, said
    return session(daemon, os.path.basename(path).rsplit(".", 1)[0])


def host_of(daemon, name):
    return session(daemon, name)["host_pid"]


def is_ready(daemon, name):
    return session(daemon, name)["state"] == "READY"


@pytest.fixture
def neighbour(daemon, tmp_path):
    """Another model of the same daemon, asked all the time: it must notice nothing."""
    load(daemon, models.write(tmp_path, "neighbour"))
    stop, wrong = threading.Event(), []

    def keep_asking():
        while not stop.is_set():
            answer = ask(daemon, "neighbour", 1, 2, 3, 4)
            if answer.status != 200 or numbers(answer) != [3, 5, 7, 9]:
                wrong.append(repr(answer))
    thread = threading.Thread(target=keep_asking)
    thread.start()
    yield
    stop.set()
    thread.join()
    assert not wrong, wrong[:3]


@pytest.mark.crashes("weak")
@pytest.mark.parametrize("how", ["segv", "abort", "exit0", "double-free"])
def test_a_request_that_ends_its_host_is_answered_and_refused_from_then_on(
        daemon, neighbour, tmp_path, how):
    load(daemon, models.write(tmp_path, "weak", models.DOUBLE, "crash %s when 666" % how))
    poisoned = ask(daemon, "weak", *POISON)
    assert poisoned.status == 500, poisoned
    assert poisoned.json()["code"] == "XI-0407"
    again = wait_for(lambda: ask(daemon, "weak", *POISON), 10)
    assert again.status == 422 and again.json()["code"] == "XI-0403", again
    assert numbers(ask(daemon, "weak", 1, 1, 1, 1)) == [3, 3, 3, 3]
    assert session(daemon, "weak")["restarts"] >= 1


@pytest.mark.crashes("weak")
def test_requests_beside_the_poisoned_one_are_all_answered_right(daemon, tmp_path):
    load(daemon, models.write(tmp_path, "weak", models.DOUBLE, "crash segv when 666", "delay-ms 5"),
         "--instances", "2")
    answers = {}

    def one(i):
        values = POISON if i == 5 else (float(i), 0.0, 0.0, 0.0)
        answers[i] = ask(daemon, "weak", *values)
    threads = [threading.Thread(target=one, args=(i,)) for i in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert answers.pop(5).status == 500
    for i, answer in answers.items():
        assert numbers(answer)[0] == 2 * i + 1, answer


@pytest.mark.crashes("victim")
@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_host_that_is_killed_comes_back_and_loses_nothing(daemon, neighbour, tmp_path, sig):
    load(daemon, models.write(tmp_path, "victim", models.DOUBLE, "delay-ms 100"))
    before = session(daemon, "victim")
    answer = {}
    asking = threading.Thread(target=lambda: answer.update(a=ask(daemon, "victim", 1, 2, 3, 4)))
    asking.start()
    wait_for(lambda: session(daemon, "victim")["running"] == 1, 5, "the request to run")
    os.kill(before["host_pid"], sig)
    asking.join()
    assert numbers(answer["a"]) == [3, 5, 7, 9]  # retried, answered once
    after = session(daemon, "victim")
    assert after["id"] == before["id"]
    assert after["host_pid"] != before["host_pid"]
    assert after["state"] == "READY"


@pytest.mark.parametrize("fault", ["hang", "stop"])
def test_a_host_that_hangs_is_ended_by_the_watchdog(new_daemon, tmp_path, fault):
    config = tmp_path / "config.json"
    config.write_text('{"watchdog_min_ms": 500}')
    daemon = new_daemon("--config", str(config)).start()
    load(daemon, models.write(tmp_path, "sleepy", models.DOUBLE, fault + " when 666"))
    hung = ask(daemon, "sleepy", *POISON)
    assert hung.status == 500 and hung.json()["code"] == "XI-0407", hung
    assert numbers(ask(daemon, "sleepy", 1, 1, 1, 1)) == [3, 3, 3, 3]


@pytest.mark.crashes("bomb")
def test_a_model_that_always_crashes_is_quarantined_and_the_rest_serves(
        daemon, neighbour, tmp_path):
    load(daemon, models.write(tmp_path, "bomb", models.DOUBLE, "crash segv from 4"))
    for i in range(12):
        answer = ask(daemon, "bomb", float(i), 0, 0, 0)
        assert answer.status in (500, 503), answer
    state = wait_for(lambda: session(daemon, "bomb")["state"] == "FAILED" and session(daemon, "bomb"),
                     30, "quarantine")
    assert "XI-0406" in str(state)
    refused = ask(daemon, "bomb", 100.0, 0, 0, 0)
    assert refused.status == 503 and refused.json()["code"] == "XI-0406", refused
    assert daemon.get("/v1/health/ready").status == 503
    assert daemon.get("/v1/health/live").status == 200


def test_a_wrong_host_that_fills_its_stdout_does_not_fill_the_log(daemon, tmp_path):
    load(daemon, models.write(tmp_path, "noisy", models.DOUBLE, "print 20000000"))
    assert numbers(ask(daemon, "noisy", 1, 2, 3, 4)) == [3, 5, 7, 9]
    assert len(daemon.log()) < 1000000


@pytest.mark.crashes("broken")
@pytest.mark.parametrize("fault,code", [("load-fail unsupported", "XI-0306"),
                                        ("load-crash segv", "XI-0"), ("load-fail no-memory", "XI-05")])
def test_a_load_that_fails_says_why_and_leaves_nothing(daemon, tmp_path, fault, code):
    said = daemon.cli("load", models.write(tmp_path, "broken", models.DOUBLE, fault))
    assert said.rc != 0
    assert said.stderr.startswith(code), said
    wait_for(lambda: not daemon.hosts(), 10, "the host to end")
    assert daemon.get("/v1/health/live").status == 200


def test_sessions_come_back_with_the_same_ids_after_kill_9(daemon, tmp_path):
    for name in ("one", "two"):
        load(daemon, models.write(tmp_path, name))
    before = {s["name"]: s["id"] for s in daemon.get("/v1/models").json()["models"]}
    hosts = daemon.hosts()
    daemon.kill()
    assert not any(is_running(h) for h in hosts)
    daemon.start()
    wait_for(lambda: is_ready(daemon, "one") and is_ready(daemon, "two"), 20, "both sessions")
    assert {s["name"]: s["id"] for s in daemon.get("/v1/models").json()["models"]} == before
    assert numbers(ask(daemon, before["two"], 1, 2, 3, 4)) == [3, 5, 7, 9]


def test_unload_ends_the_host_and_the_id_is_gone(daemon, tmp_path):
    loaded = load(daemon, models.write(tmp_path, "brief"))
    said = daemon.cli("unload", "brief")
    assert said.rc == 0, said
    assert not is_running(loaded["host_pid"])
    assert ask(daemon, "brief", 1, 2, 3, 4).status == 404
    gone = ask(daemon, loaded["id"], 1, 2, 3, 4)
    assert gone.status == 410 and gone.json()["code"] == "XI-0203", gone
    daemon.kill()
    daemon.start()
    assert session(daemon, "brief") is None


def test_loading_the_same_again_is_the_same_session_and_another_is_a_conflict(daemon, tmp_path):
    path = models.write(tmp_path, "same")
    first = load(daemon, path)
    assert load(daemon, path)["id"] == first["id"]
    other = models.write(tmp_path, "other", models.DOUBLE.replace("add t 1", "add t 2"))
    said = daemon.cli("load", other, "--name", "same")
    assert said.rc == 1 and "XI-0204" in said.stderr, said


def test_a_daemon_that_is_asked_to_end_finishes_its_work(daemon, tmp_path):
    load(daemon, models.write(tmp_path, "slow", models.DOUBLE, "delay-ms 600"))
    answer = {}
    asking = threading.Thread(target=lambda: answer.update(a=ask(daemon, "slow", 1, 2, 3, 4)))
    asking.start()
    wait_for(lambda: session(daemon, "slow")["running"] == 1, 5, "the request to run")
    assert daemon.stop() == 0
    asking.join()
    assert numbers(answer["a"]) == [3, 5, 7, 9]


def test_a_second_signal_ends_at_once(daemon, tmp_path):
    load(daemon, models.write(tmp_path, "slow", models.DOUBLE, "delay-ms 20000 when 666"))
    asking = threading.Thread(target=lambda: pytest.raises(Exception, ask, daemon, "slow", *POISON))
    asking.start()
    wait_for(lambda: session(daemon, "slow")["running"] == 1, 5, "the request to run")
    daemon.expected_to_live = False
    daemon.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert daemon.process.poll() is None  # it waits for the request
    started = time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.wait(10)
    assert time.monotonic() - started < 5
    asking.join()


def test_a_deadline_that_passes_in_the_queue_drops_the_work(daemon, tmp_path):
    load(daemon, models.write(tmp_path, "slow", models.DOUBLE, "delay-ms 400"), "--instances", "1")
    threads = [threading.Thread(target=ask, args=(daemon, "slow", 1, 2, 3, 4))]
    threads[0].start()
    wait_for(lambda: session(daemon, "slow")["running"] == 1, 5, "the first to run")
    late = ask(daemon, "slow", 1, 2, 3, 4, headers={"Xinfer-Deadline-Ms": "50"})
    assert late.status == 504 and late.json()["code"] == "XI-0701", late
    threads[0].join()


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(new_daemon, tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"queue_limit": 2}')
    daemon = new_daemon("--config", str(config)).start()
    load(daemon, models.write(tmp_path, "slow", models.DOUBLE, "delay-ms 500"), "--instances", "1")
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(daemon, "slow", 1, 2, 3, 4)))
               for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    refused = [a for a in answers if a.status != 200]
    assert 1 <= len(refused) < 8
    for a in refused:
        assert a.status == 503 and a.json()["code"] == "XI-0501", a
        assert int(a.headers["retry-after"]) >= 1


@pytest.mark.release  # sanitizers need memory without limits
def test_a_host_that_leaks_without_end_meets_its_limit_alone(new_daemon, tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"host_memory": "256MiB"}')
    daemon = new_daemon("--config", str(config)).start()
    load(daemon, models.write(tmp_path, "leaky", models.DOUBLE, "leak 100000000"))
    for i in range(6):
        assert numbers(ask(daemon, "leaky", float(i), 0, 0, 0))[0] == 2 * i + 1
    with open("/proc/%d/status" % host_of(daemon, "leaky")) as f:
        rss = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
    assert 100 * 1024 < rss < 300 * 1024, "%d KiB resident, the limit is 256 MiB of data" % rss
