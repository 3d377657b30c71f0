"""Memory: what does not fit is refused with figures, who was idle longest makes room, and what a
model really took is known the next time. The reference engine's `hold` knob really takes memory."""
import os
import re
import threading
import time

import pytest

import models
from daemon import is_sanitized, wait_for
from models import ask, numbers, session

MIB = 1 << 20
OWN = 40  # more than a host takes for itself, in a sanitizer's build, too


def holding(tmp_path, name, mib, *faults):
    return models.write(tmp_path, name, models.DOUBLE, "hold %d" % (mib * MIB), *faults)


def load(daemon, path, *args):
    said = daemon.cli("load", path, *args)
    assert said.rc == 0, said
    return session(daemon, os.path.basename(str(path)).rsplit(".", 1)[0])


def why(daemon, about):
    answer = daemon.get("/v1/why/%s" % about)
    assert answer.status == 200, answer
    return answer.json()


def kinds(daemon, about):
    return [e["kind"] for e in why(daemon, about)["entries"]]


def state(daemon, name):
    return session(daemon, name)["state"]


def amounts(text):
    """The MiB of a sentence, in their order."""
    return [float(n) * (1024 if unit == "GiB" else 1)
            for n, unit in re.findall(r"([\d.]+) (MiB|GiB)", text)]


def test_what_never_fits_is_refused_with_the_figures(new_daemon, tmp_path):
    limit = 300 + 2 * OWN
    daemon = new_daemon("--memory", "%dMiB" % limit).start()
    big = holding(tmp_path, "big", limit + 10)
    first = daemon.cli("load", big)  # nothing is known of it yet: it is measured, then refused
    assert first.rc == 5, first
    second = daemon.cli("load", big)  # now it is known, and no host is started
    assert second.rc == 5 and "XI-0502" in second.stderr, second
    needed, free, of = amounts(second.stderr)[:3]
    assert limit + 10 <= needed <= limit + 10 + OWN
    assert free == of == limit
    assert not [h for h in daemon.hosts()]
    notes = why(daemon, "big")["entries"]
    assert notes[0]["kind"] == "refused" and notes[0]["code"] == "XI-0502"
    assert "MiB" in notes[0]["text"] and notes[0]["hint"]
    said = daemon.cli("why", "big")
    assert said.rc == 0 and "refused XI-0502" in said.stdout, said
    assert daemon.cli("why", "big", "--json").json()["entries"] == notes
    assert daemon.cli("why", "nobody").rc == 4
    # What it took has gone with its host: a model that fits is loaded as if nothing had been.
    load(daemon, holding(tmp_path, "fits", 200))
    assert numbers(ask(daemon, "fits", 1, 2, 3, 4)) == [3, 5, 7, 9]


def test_the_longest_idle_makes_room_and_comes_back(new_daemon, tmp_path):
    daemon = new_daemon("--memory", "%dMiB" % (400 + 3 * OWN)).start()
    paths = {n: holding(tmp_path, n, 180) for n in ("a", "b", "c")}
    for name in ("a", "b"):
        load(daemon, paths[name])
    hosts = {n: session(daemon, n)["host_pid"] for n in ("a", "b")}
    assert numbers(ask(daemon, "a", 1, 2, 3, 4)) == [3, 5, 7, 9]  # b is idle for longer now
    load(daemon, paths["c"])
    wait_for(lambda: state(daemon, "b") == "IDLE", 10)
    assert state(daemon, "a") == "READY" and session(daemon, "a")["host_pid"] == hosts["a"]
    assert "evicted" in kinds(daemon, "b") and "evicted" not in kinds(daemon, "a")
    seen = {s["name"]: s["memory"] for s in daemon.get("/v1/telemetry").json()["sessions"]}
    assert session(daemon, "b")["memory"] == seen["b"] == 0 < seen["a"]  # it holds nothing now
    wait_for(lambda: hosts["b"] not in daemon.hosts(), 10)
    time.sleep(0.3)  # a's next request does not come
    # Its next request loads it again, and nobody was told anything was wrong.
    assert numbers(ask(daemon, "b", 1, 1, 1, 1)) == [3, 3, 3, 3]
    assert state(daemon, "a") == "IDLE" and state(daemon, "c") == "READY"
    assert daemon.get("/v1/health/ready").status == 200
    assert "session.evicted" in daemon.log()


def test_models_that_alternate_do_not_ping_pong(new_daemon, tmp_path):
    daemon = new_daemon("--memory", "%dMiB" % (200 + 2 * OWN)).start()
    for name in ("a", "b"):
        load(daemon, holding(tmp_path, name, 180))
    answers = [ask(daemon, name, 1, 2, 3, 4) for name in ("a", "b") * 8]
    good = [a for a in answers if a.status == 200]
    refused = [a for a in answers if a.status != 200]
    assert all(numbers(a) == [3, 5, 7, 9] for a in good)
    assert len(good) >= 8 and refused  # one of them serves all the time
    assert {a.status for a in refused} == {507}
    assert all(1 <= int(a.headers["retry-after"]) <= 60 for a in refused)
    assert all("MiB" in a.json()["detail"] or "do not fit together" in a.json()["detail"]
               for a in refused)
    loads = daemon.log().count(" session.ready ")
    assert loads <= 6, "16 requests, %d loads" % loads


def test_who_works_is_not_evicted(new_daemon, tmp_path):
    daemon = new_daemon("--memory", "%dMiB" % (200 + 2 * OWN)).start()
    load(daemon, holding(tmp_path, "busy", 180, "delay-ms 1500 when 7"))
    answers = []
    worker = threading.Thread(target=lambda: answers.append(ask(daemon, "busy", 7, 0, 0, 0)))
    worker.start()
    wait_for(lambda: session(daemon, "busy")["running"] > 0, 10)
    said = daemon.cli("load", holding(tmp_path, "other", 180))
    assert said.rc == 5 and "busy" in said.stderr, said
    worker.join()
    assert numbers(answers[0]) == [15, 1, 1, 1]
    # For a moment its next request may be on its way; then it is idle.
    wait_for(lambda: daemon.cli("load", tmp_path / "other.xref").rc == 0, 10)
    wait_for(lambda: state(daemon, "busy") == "IDLE", 10)


def test_a_pinned_model_is_never_evicted(new_daemon, tmp_path):
    daemon = new_daemon("--memory", "%dMiB" % (200 + 2 * OWN)).start()
    load(daemon, holding(tmp_path, "kept", 180))
    digest = session(daemon, "kept")["digest"]
    assert daemon.cli("unload", "kept").rc == 0
    pinned = daemon.post("/v1/control/load", {"package": digest, "name": "kept", "pinned": True})
    assert pinned.status == 200, pinned
    said = daemon.cli("load", holding(tmp_path, "other", 180))
    assert said.rc == 5 and "held by kept" in said.stderr, said
    assert state(daemon, "kept") == "READY"


def test_a_dry_run_has_the_figures(new_daemon, tmp_path):
    limit = 200 + 2 * OWN
    daemon = new_daemon("--memory", "%dMiB" % limit).start()
    path = holding(tmp_path, "model", 180)
    before = daemon.cli("load", path, "--dry-run", "--json").json()
    assert before["memory_figure"] == "guessed" and not before["memory_measured"]
    assert before["memory_limit"] == before["memory_free"] == limit * MIB
    load(daemon, path)
    held = why(daemon, "model")["session"]["reserved_bytes"]
    assert 180 * MIB <= held <= (180 + OWN) * MIB
    digest = session(daemon, "model")["digest"]
    plan = daemon.post("/v1/control/load", {"package": digest, "name": "twin", "dry_run": True})
    assert plan.status == 200, plan
    plan = plan.json()
    assert plan["memory_figure"] == "measured" and plan["memory_needed"] == held
    assert plan["memory_free"] == limit * MIB - held
    assert plan["admitted"] and plan["evicts"] == "model"
    assert state(daemon, "model") == "READY"  # nothing was done
    other = {"package": digest, "name": "model", "options": {"max_batch": 4}, "dry_run": True}
    taken = daemon.post("/v1/control/load", other).json()  # what the load would answer
    assert not taken["admitted"] and taken["why"]["code"] == "XI-0204"
    assert daemon.post("/v1/control/load", {**other, "dry_run": False}).status == 409
    assert daemon.post("/v1/control/load", {**other, "replace": True}).json()["admitted"]
    assert daemon.post("/v1/control/load", {**other, "options": {}}).json()["admitted"]
    big = daemon.post("/v1/control/configure", {"memory": "150MiB"})
    assert big.status == 200, big
    plan = daemon.post("/v1/control/load", {"package": digest, "name": "twin", "dry_run": True})
    assert not plan.json()["admitted"] and plan.json()["why"]["code"] == "XI-0502"


def test_a_tenant_keeps_to_its_memory(new_daemon, tmp_path):
    daemon = new_daemon("--memory", "%dMiB" % (800 + 4 * OWN)).start()
    set_to = {"tenants": {"acme": {"memory": "%dMiB" % (200 + 2 * OWN)}}}
    assert daemon.post("/v1/control/configure", set_to).status == 200
    digests = {}
    limits = daemon.get("/v1/device/capabilities").json()["limits"]
    assert limits["memory"] in ("cgroup", "rlimit") and limits["cpu"] in ("cgroup", "nice")
    for name in ("a", "b"):  # loaded once for all, so that their needs are known
        digests[name] = load(daemon, holding(tmp_path, name, 180))["digest"]
        assert daemon.cli("unload", name).rc == 0
    body = {"package": digests["a"], "name": "a", "tenant": "acme"}
    assert daemon.post("/v1/control/load", body).status == 200
    ours = {"Xinfer-Tenant": "acme"}
    stop = threading.Event()

    def keep_busy():
        while not stop.is_set():
            ask(daemon, "a", 1, 2, 3, 4, headers=ours)
    threads = [threading.Thread(target=keep_busy) for _ in range(3)]
    for t in threads:
        t.start()
    try:
        refused = daemon.post("/v1/control/load",
                              {"package": digests["b"], "name": "b", "tenant": "acme"})
    finally:
        stop.set()
        for t in threads:
            t.join()
    if refused.status != 200:  # unless a happened to be idle in that very moment
        assert refused.status == 507 and "tenant acme" in refused.json()["detail"], refused
    other = daemon.post("/v1/control/load", {"package": digests["b"], "name": "b"})
    assert other.status == 200, other


def test_a_model_that_takes_more_than_it_says(new_daemon, tmp_path):
    """The manifest claims 10 MB; it takes 250 MiB. The first load is measured, the second knows."""
    limit = 350 + 2 * OWN
    daemon = new_daemon("--memory", "%dMiB" % limit).start()
    text = models.DOUBLE + "fault hold %d\n" % (250 * MIB)
    path = models.package(tmp_path, "liar", text, model={})
    first = load(daemon, path)
    assert first["state"] == "READY"
    held = why(daemon, "liar")["session"]["reserved_bytes"]
    assert 250 * MIB <= held <= (250 + OWN) * MIB
    assert daemon.cli("unload", "liar").rc == 0
    load(daemon, holding(tmp_path, "other", 180, "delay-ms 1500 when 7"))
    worker = threading.Thread(target=ask, args=(daemon, "other", 7, 0, 0, 0))
    worker.start()
    wait_for(lambda: session(daemon, "other")["running"] > 0, 10)
    said = daemon.cli("load", path)  # and the daemon was not even tempted to start it
    worker.join()
    assert said.rc == 5, said
    assert amounts(said.stderr)[0] == pytest.approx(held / MIB, abs=0.1)
    # What was measured outlives the daemon.
    daemon.kill()
    daemon.start()
    daemon.post("/v1/control/configure", {"memory": "200MiB"})
    said = daemon.cli("load", path)
    assert said.rc == 5 and amounts(said.stderr)[0] == pytest.approx(held / MIB, abs=0.1), said


@pytest.mark.crashes("greedy")
def test_a_model_that_grows_is_held(new_daemon, tmp_path):
    """Past its reservation and all that is free it gets no more: a typed error, nobody else hurt."""
    if is_sanitized():
        pytest.skip("a sanitizer's allocator does not heed RLIMIT_DATA")
    daemon = new_daemon("--memory", "200MiB").start()
    load(daemon, models.write(tmp_path, "calm"))
    load(daemon, models.write(tmp_path, "greedy", models.DOUBLE, "exhaust %d when 666" % (2 << 30)))
    answer = ask(daemon, "greedy", 666, 0, 0, 0)
    assert answer.status in (500, 503, 507), answer
    number = answer.json()["request"]
    assert answer.headers["xinfer-request"] == str(number)
    assert numbers(ask(daemon, "calm", 1, 2, 3, 4)) == [3, 5, 7, 9]
    wait_for(lambda: ask(daemon, "greedy", 1, 1, 1, 1).status == 200, 20)


def test_loads_and_unloads_leave_nothing(daemon, tmp_path):
    path = holding(tmp_path, "round", 8)
    digest = load(daemon, path)["digest"]

    def cycle():
        assert numbers(ask(daemon, "round", 1, 2, 3, 4)) == [3, 5, 7, 9]
        assert daemon.post("/v1/control/unload", {"name": "round"}).status == 200
        answer = daemon.post("/v1/control/load", {"package": digest, "name": "round"})
        assert answer.status == 200, answer

    def private_kib():
        with open("/proc/%d/status" % daemon.pid) as f:
            return int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1))

    def threads():
        return len(os.listdir("/proc/%d/task" % daemon.pid))

    for _ in range(10):
        cycle()
    fds, kib, tasks = daemon.open_fds(), private_kib(), threads()
    for _ in range(10 if is_sanitized() else 40):
        cycle()
    time.sleep(0.2)
    assert daemon.open_fds() <= fds + 2
    assert threads() == tasks
    assert len(daemon.hosts()) == 1
    if not is_sanitized():
        assert private_kib() <= kib + 1024
