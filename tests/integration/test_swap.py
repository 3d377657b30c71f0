"""One version takes another's place while it is asked, and everything that can go wrong meanwhile."""
import json
import threading
import time

import pytest

import models
from daemon import is_running, run_program, wait_for
from models import ask, numbers, session

TRIPLE = models.DOUBLE.replace("mul x 2", "mul x 3")
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


@pytest.mark.tsan
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


def refused(said, code):
    assert said.json().get("code") == code, said
    return said.json()


def serves(daemon, expected, identifier=None):
    assert numbers(ask(daemon, "m", 1, 2, 3, 4)) == expected
    if identifier:
        assert daemon.get("/v1/models/m").json()["id"] == identifier


def sessions(daemon):
    return daemon.get("/v1/models").json()["models"]


def pack_with_golden(tmp_path, answer):
    """A package whose golden sample says what 1, 2, 3, 4 must give."""
    (tmp_path / "g.xref").write_text(TRIPLE)
    tensor = {"dtype": "FP32", "shape": [1, 4]}
    manifest = {"xpkg": 1, "name": "g", "version": "2.0.0", "input": "tensors", "output": "tensors",
                "models": {"main": {"variants": [
                    {"id": "f32", "files": ["variants/g.xref"], "format": "reference",
                     "engine": {"name": "reference"}, "precision": "f32"}]}},
                "golden": [{"id": "one", "input": {"tensors": [
                    dict(tensor, name="x", data=[1, 2, 3, 4])]},
                    "expect": {"tensors": [dict(tensor, name="y", data=answer)]}}]}
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"recipe": 1, "manifest": manifest,
                                  "files": {"variants/g.xref": "g.xref"}}))
    said = run_program("xinfer", "pack", recipe, "-o", tmp_path / "g.xpkg")
    assert said.rc == 0, said
    return str(tmp_path / "g.xpkg")


def test_a_wrong_golden_leaves_the_old_one_serving(daemon, tmp_path):
    old = load(daemon, install(daemon, tmp_path, "a")).json()["id"]
    with Asking(daemon) as clients:
        said = daemon.cli("load", pack_with_golden(tmp_path, [0, 0, 0, 0]), "--name", "m", "--replace")
        assert said.rc == 1 and "XI-0304" in said.stderr, said
    assert clients.new == 0 and clients.old > 0
    serves(daemon, OLD, old)
    why = daemon.get("/v1/why/m").body.decode()
    assert "rolled back" in why and "swap" in why
    wait_for(lambda: len(sessions(daemon)) == 1, 10, "the candidate to go")
    right = daemon.cli("load", pack_with_golden(tmp_path, NEW), "--name", "m", "--replace")
    assert right.rc == 0, right
    serves(daemon, NEW)


@pytest.mark.crashes("m")
@pytest.mark.parametrize("strategy", ["beside", "in-place"])
@pytest.mark.parametrize("fault", ["load-crash segv", "load-fail unsupported"])
def test_a_candidate_that_does_not_come_up_is_rolled_back(daemon, tmp_path, strategy, fault):
    old = load(daemon, install(daemon, tmp_path, "a")).json()["id"]
    bad = install(daemon, tmp_path, "b", TRIPLE, fault)
    with Asking(daemon, clients=2) as clients:
        said = swap(daemon, bad, strategy=strategy)
        assert said.status >= 400 and said.json()["code"] in ("XI-0402", "XI-0306", "XI-0307"), said
    assert clients.new == 0 and clients.old > 0
    serves(daemon, OLD, old)
    wait_for(lambda: len(sessions(daemon)) == 1, 10, "the candidate to go")


def test_a_canary_gets_its_share_and_takes_over(daemon, tmp_path):
    old = load(daemon, install(daemon, tmp_path, "a")).json()["id"]
    new = install(daemon, tmp_path, "b", TRIPLE)
    said = swap(daemon, new, canary=0.25, canary_s=0).json()
    assert said["swap"]["phase"] == "canary" and said["swap"]["role"] == "new"
    answers = [numbers(ask(daemon, "m", 1, 2, 3, 4)) for _ in range(80)]
    assert abs(answers.count(NEW) - 20) <= 1  # shares are dealt in turns
    by_sequence = {i: {tuple(numbers(ask(daemon, "m", 1, 2, 3, 4,
                                         headers={"Xinfer-Sequence": "s%d;start" % i})))
                       for _ in range(3)} for i in range(40)}
    assert all(len(said) == 1 for said in by_sequence.values())  # it sticks
    share = sum(tuple(NEW) in said for said in by_sequence.values())
    assert 1 <= share <= 24  # binomial: mean 10, standard deviation 2.7
    again = swap(daemon, new)
    assert said["id"] in refused(again, "XI-0204")["detail"]
    promoted = daemon.cli("promote", "m", "--json")
    assert promoted.rc == 0 and promoted.json()["replaced"]["id"] == old, promoted
    serves(daemon, NEW, said["id"])
    refused(daemon.post("/v1/control/promote", {"name": "m"}), "XI-0204")


def test_a_canary_that_is_rolled_back_or_promoted_by_itself(daemon, tmp_path):
    old = load(daemon, install(daemon, tmp_path, "a")).json()["id"]
    new = install(daemon, tmp_path, "b", TRIPLE)
    assert swap(daemon, new, canary=0.5, canary_s=0).status == 200
    back = daemon.cli("rollback", "m", "--json")
    assert back.rc == 0 and back.json()["id"] == old, back
    serves(daemon, OLD, old)
    said = swap(daemon, new, canary=0.5, canary_s=1).json()
    wait_for(lambda: session(daemon, "m")["id"] == said["id"] or len(sessions(daemon)) == 1, 10,
             "the promotion")
    serves(daemon, NEW, said["id"])


@pytest.mark.crashes("m")
@pytest.mark.parametrize("fault", ["fail internal", "crash segv from 4"])
def test_a_canary_that_does_worse_is_rolled_back(daemon, tmp_path, fault):
    old = load(daemon, install(daemon, tmp_path, "a")).json()["id"]
    bad = install(daemon, tmp_path, "b", TRIPLE, fault + ("" if "from" in fault else " from 4"))
    assert swap(daemon, bad, canary=0.5, canary_s=60).status == 200
    with Asking(daemon, clients=2, allowed=(500, 503)):
        wait_for(lambda: "rolled back" in daemon.get("/v1/why/m").body.decode(), 20, "the rollback")
    serves(daemon, OLD, old)


@pytest.mark.tsan
def test_a_shadow_is_asked_the_same_and_answers_nobody(daemon, tmp_path):
    load(daemon, install(daemon, tmp_path, "a"))
    new = swap(daemon, install(daemon, tmp_path, "b", TRIPLE), strategy="shadow", canary_s=0).json()
    assert new["swap"]["phase"] == "shadow"
    for _ in range(20):
        serves(daemon, OLD)
    shadow = wait_for(lambda: (lambda s: s if s["requests"] >= 20 else None)(
        daemon.get("/v1/models/" + new["id"]).json()), 10, "the copies")
    assert shadow["ok"] == shadow["requests"] == 20
    assert daemon.post("/v1/control/promote", {"name": "m"}).status == 200
    serves(daemon, NEW, new["id"])


@pytest.mark.tsan
def test_in_place_makes_requests_wait_and_says_so(daemon, tmp_path):
    load(daemon, install(daemon, tmp_path, "a"))
    new = install(daemon, tmp_path, "b", TRIPLE, "load-delay-ms 300")
    hosts = set()
    with Asking(daemon, clients=2) as clients:
        swapping = threading.Thread(target=lambda: clients.__dict__.update(
            said=swap(daemon, new, strategy="in-place")))
        swapping.start()
        while swapping.is_alive():
            assert daemon.get("/v1/health/ready").status == 200
            hosts.add(len([s for s in sessions(daemon) if s["name"] == "m" and s["host_pid"]]))
        swapping.join()
    assert clients.said.status == 200 and clients.said.json()["strategy"] == "in-place"
    assert max(hosts) == 1  # never two at once
    serves(daemon, NEW)


def test_too_little_memory_for_two_goes_on_in_place(new_daemon, tmp_path):
    held = 200 * 1024 * 1024
    daemon = new_daemon("--memory", "512MiB").start()
    load(daemon, install(daemon, tmp_path, "a", models.DOUBLE, "hold %d" % held), pinned=True)
    big = install(daemon, tmp_path, "b", TRIPLE, "hold %d" % (2 * held))
    with Asking(daemon, clients=2):
        said = swap(daemon, big)
    assert said.status == 200 and said.json()["strategy"] == "in-place", said
    serves(daemon, NEW)


def test_a_request_that_is_still_arriving_is_answered_by_the_old_one(daemon, tmp_path):
    import http.client
    load(daemon, install(daemon, tmp_path, "a"))
    new = install(daemon, tmp_path, "b", TRIPLE)
    c = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
    c.putrequest("POST", "/v1/infer/m")
    for key, value in (("Content-Type", "application/octet-stream"), ("Xinfer-Dtype", "FP32"),
                       ("Xinfer-Shape", "1,4"), ("Content-Length", "16")):
        c.putheader(key, value)
    c.endheaders()
    body = models.floats(1, 2, 3, 4)
    c.send(body[:8])
    wait_for(lambda: session(daemon, "m") is not None, 5)
    assert swap(daemon, new).status == 200
    serves(daemon, NEW)
    c.send(body[8:])
    answer = json.loads(c.getresponse().read())
    assert answer["outputs"][0]["data"] == OLD
    c.close()
    wait_for(lambda: len(sessions(daemon)) == 1, 10, "the old one to go")


def test_a_sequence_stays_with_the_version_that_it_began_on(daemon, tmp_path):
    def say(sequence):
        return numbers(ask(daemon, "m", 1, 2, 3, 4, headers={"Xinfer-Sequence": sequence}))
    load(daemon, install(daemon, tmp_path, "a"))
    assert say("one;start") == OLD
    assert swap(daemon, install(daemon, tmp_path, "b", TRIPLE)).status == 200
    assert say("two;start") == NEW and say("one") == OLD and say("one;end") == OLD
    wait_for(lambda: len(sessions(daemon)) == 1, 10, "the old one to go")
    assert say("one;start") == NEW


@pytest.mark.crashes("m")
def test_a_version_that_crash_loops_after_its_swap_is_undone(new_daemon, tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"crash_limit": 2}')
    daemon = new_daemon("--config", str(config)).start()
    load(daemon, install(daemon, tmp_path, "a"))
    assert swap(daemon, install(daemon, tmp_path, "b", TRIPLE, "crash segv from 4")).status == 200

    def undone():
        answer = ask(daemon, "m", 1, 2, 3, 4)
        return answer.status == 200 and numbers(answer) == OLD
    wait_for(undone, 30, "the old version")
    assert "swap.put_back" in daemon.log()


@pytest.mark.parametrize("strategy", ["beside", "in-place"])
def test_a_full_queue_is_swapped_too(new_daemon, tmp_path, strategy):
    config = tmp_path / "config.json"
    config.write_text('{"queue_limit": 3, "cores": 1}')
    daemon = new_daemon("--config", str(config)).start()
    load(daemon, install(daemon, tmp_path, "a", models.DOUBLE, "delay-ms 20"))
    new = install(daemon, tmp_path, "b", TRIPLE)
    with Asking(daemon, clients=8, allowed=(503,)) as clients:
        wait_for(lambda: session(daemon, "m")["queued"] >= 2, 10, "the queue")
        assert swap(daemon, new, strategy=strategy).status == 200
        wait_for(lambda: clients.new > 10, 10, "answers of the new one")
    assert clients.old > 0


@pytest.mark.parametrize("phase", ["load", "in-place", "canary", "after"])
def test_the_daemons_crash_brings_back_exactly_one(daemon, tmp_path, phase):
    old = load(daemon, install(daemon, tmp_path, "a")).json()["id"]
    delay = 2000 if phase in ("load", "in-place") else 0
    new = install(daemon, tmp_path, "b", TRIPLE, "load-delay-ms %d" % delay)
    more = {"load": {"wait": False}, "in-place": {"wait": False, "strategy": "in-place"},
            "canary": {"canary": 0.5, "canary_s": 0}, "after": {}}[phase]
    said = swap(daemon, new, **more)
    assert said.status in (200, 202), said
    assert daemon.get("/v1/health/ready").status == 200
    if phase == "in-place":  # the old host has gone, the new one is not there yet
        wait_for(lambda: session(daemon, "m")["swap"]["phase"] == "load", 10, "the load")
    daemon.kill()
    daemon.start()
    ids = [s["id"] for s in sessions(daemon)]
    assert ids == [said.json()["id"] if phase == "after" else old]
    serves(daemon, NEW if phase == "after" else OLD)


def test_the_daemons_crash_at_any_moment_around_the_flip(daemon, tmp_path):
    digests = [install(daemon, tmp_path, n, t) for n, t in (("a", models.DOUBLE), ("b", TRIPLE))]
    assert load(daemon, digests[0]).status == 200
    for i in range(6):
        answer = {}
        swapping = threading.Thread(target=lambda: answer.update(_swap_or_cut_off(daemon, digests)))
        swapping.start()
        time.sleep(0.004 * (i + 1) ** 1.5)
        daemon.kill()
        swapping.join()
        daemon.start()
        alive = [s["id"] for s in sessions(daemon)]
        assert len(alive) == 1
        if "id" in answer:
            assert alive == [answer["id"]]  # what was answered is so
        serves(daemon, OLD if session(daemon, "m")["digest"] == digests[0] else NEW, alive[0])


def _swap_or_cut_off(daemon, digests):
    try:
        said = swap(daemon, digests[1])
        return {"id": said.json()["id"]} if said.status == 200 else {}
    except (OSError, ValueError):
        return {}


def test_lazy_sessions_come_with_their_first_request_and_go_again(daemon, tmp_path):
    digest = install(daemon, tmp_path, "a")
    said = load(daemon, digest, lazy=True, options={"keep_alive_s": 1})
    assert said.status == 200 and said.json()["state"] == "IDLE" and said.json()["host_pid"] is None
    assert daemon.get("/v1/health/ready").status == 200
    with Asking(daemon, clients=4) as clients:  # the first ones wait at the door
        wait_for(lambda: clients.old > 20, 10, "answers")
    pid = session(daemon, "m")["host_pid"]
    wait_for(lambda: session(daemon, "m")["state"] == "IDLE" and not is_running(pid), 10, "idling")
    serves(daemon, OLD, said.json()["id"])
    daemon.kill()
    daemon.start()
    assert session(daemon, "m")["state"] == "IDLE" and session(daemon, "m")["keep_alive_s"] == 1


def test_leases_hold_a_session_and_expire(daemon, tmp_path):
    digest = install(daemon, tmp_path, "a")
    load(daemon, digest, lazy=True, options={"keep_alive_s": 1})
    one = daemon.post("/v1/leases", {"model": "m", "ttl_s": 60}).json()
    two = daemon.post("/v1/leases", {"model": "m", "ttl_s": 1}).json()
    assert one["lease"] != two["lease"] and two["leases"] == 2
    wait_for(lambda: session(daemon, "m")["state"] == "READY", 10, "the lease to load it")
    wait_for(lambda: session(daemon, "m")["leases"] == 1, 5, "the short one to expire")
    assert daemon.post("/v1/leases/" + two["lease"], {}).status == 404
    renewed = daemon.post("/v1/leases/" + one["lease"], {"ttl_s": 90}).json()
    assert 60 < renewed["expires_s"] <= 90
    time.sleep(1.5)
    assert session(daemon, "m")["state"] == "READY"  # longer idle than it may be without
    new = swap(daemon, install(daemon, tmp_path, "b", TRIPLE), options={"keep_alive_s": 1}).json()
    assert daemon.get("/v1/models/" + new["id"]).json()["leases"] == 1  # handed over
    assert daemon.request("DELETE", "/v1/leases/" + one["lease"]).status == 200
    wait_for(lambda: session(daemon, "m")["state"] == "IDLE", 10, "idling")
    for body in ({"model": "m", "ttl_s": 0}, {"model": "m", "tll_s": 5}, {"ttl_s": 5}):
        assert daemon.post("/v1/leases", body).status == 400


def test_progress_tells_the_phases_and_the_log_their_order(daemon, tmp_path):
    load(daemon, install(daemon, tmp_path, "a"))
    new = install(daemon, tmp_path, "b", TRIPLE, "load-delay-ms 250")
    said = daemon.post("/v1/control/load", {"package": new, "name": "m", "replace": True},
                       headers={"Accept": "text/event-stream"}).body.decode()
    first = json.loads(said.split("data: ")[1].split("\n")[0])
    assert first["swap"] == "load" and first["state"] != "READY", said
    assert said.rstrip().rpartition("event: ")[2].startswith("loaded"), said
    wait_for(lambda: len(sessions(daemon)) == 1, 10, "the old one to go")
    phases = [line.split("phase=")[1].split()[0] for line in daemon.log().splitlines()
              if " swap.phase " in line]
    assert [p for p in phases if p not in ("warm", "golden")] == ["load", "commit", "flip", "drain", "done"]


def test_a_dry_run_changes_nothing(daemon, tmp_path):
    digest = install(daemon, tmp_path, "a")
    plan = load(daemon, digest, dry_run=True).json()
    assert plan["dry_run"] and plan["isolation"] == "session" and plan["engine"].startswith("reference")
    assert sessions(daemon) == []
    said = daemon.cli("load", models.write(tmp_path, "a"), "--dry-run")
    assert said.rc == 0 and "isolation" in said.stdout, said


@pytest.mark.parametrize("body, word", [
    ({"replce": True}, "replace"), ({"canary": 0.5}, "replace"), ({"strategy": "shadow"}, "replace"),
    ({"replace": True, "canary": 1.5}, "canary"), ({"replace": True, "strategy": "inplace"}, "in-place"),
    ({"replace": True, "strategy": "in-place", "canary": 0.5}, "beside"),
    ({"pinned": True, "options": {"keep_alive_s": 5}}, "pinned"),
    ({"options": {"isolation": "tenants"}}, "tenant"), ({"options": {"max_batch": 100000}}, "max_batch")])
def test_what_a_load_cannot_mean_is_named(daemon, tmp_path, body, word):
    said = load(daemon, "0" * 64, **body)
    assert said.status == 400 and word in said.body.decode(), said
