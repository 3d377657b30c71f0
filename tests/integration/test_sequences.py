"""Sequences: requests in order, state that the daemon keeps, also when hosts die under them. The
reference engine's accumulator adds up what it is sent: its state is the sum so far."""
import http.client
import os
import signal
import threading
import time

import pytest

import models
from daemon import wait_for
from models import floats, package

ACCUMULATOR = """xref 1
input x FP32 [1,1]
input s FP32 [1,1]
output y FP32 [1,1]
output t FP32 [1,1]
t = add s x
y = copy t
"""
ONE = {"dtype": "FP32", "shape": [1, 1]}
FLOW = {"steps": [{"op": "from_bytes", "in": "input", "out": "x", "dtype": "FP32", "shape": [1, 1]},
                  {"op": "infer", "in": "x", "out": "y"}],
        "output": {"numbers": "y"}}
STATE = {
    "signature": {"inputs": [{"name": "x", **ONE}, {"name": "s", **ONE}],
                  "outputs": [{"name": "y", **ONE}, {"name": "t", **ONE}]},
    "state": [{"input": "s", "output": "t", **ONE}],
}


def load(daemon, path, **options):
    with open(path, "rb") as f:
        put = daemon.post("/v1/control/packages", f.read(),
                          headers={"Content-Type": "application/vnd.xinfer.xpkg"})
    assert put.status in (200, 201), put
    said = daemon.post("/v1/control/load", {"package": put.json()["digest"], "options": options})
    assert said.status == 200, said
    return said.json()


def accumulator(daemon, tmp_path, *faults, **options):
    text = ACCUMULATOR + "".join("fault %s\n" % f for f in faults)
    return load(daemon, package(tmp_path, "sum", text, model=STATE), **options)


def add(daemon, value, sequence=None, timeout=60, **headers):
    sent = {"Content-Type": "application/octet-stream", "Xinfer-Dtype": "FP32",
            "Xinfer-Shape": "1,1", **({"Xinfer-Sequence": sequence} if sequence else {}), **headers}
    return daemon.post("/v1/infer/sum", floats(value), headers=sent, timeout=timeout)


def total(answer):
    assert answer.status == 200, answer
    outputs = answer.json()["outputs"]
    assert [o["name"] for o in outputs] == ["y"]  # state is nobody's output
    return outputs[0]["data"][0]


def is_lost(answer):
    return answer.status == 409 and answer.json()["code"] == "XI-0205"


def test_a_sequence_goes_on_from_its_own_state(daemon, tmp_path):
    session = accumulator(daemon, tmp_path)
    assert is_lost(add(daemon, 1, "a"))
    assert "a;start" in add(daemon, 1, "a").json()["hint"]
    assert 'no sequence' in daemon.cli("why", "sum").stdout
    assert total(add(daemon, 1, "a;start")) == 1
    assert total(add(daemon, 10, "b;start")) == 10
    assert total(add(daemon, 2, "a")) == 3
    assert total(add(daemon, 7)) == 7  # none: from the beginning, and nothing stays
    assert total(add(daemon, 20, "b")) == 30
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [4]}]}
    as_json = daemon.post("/v1/infer/sum", body, headers={"Xinfer-Sequence": "a"})
    assert total(as_json) == 7
    wrong = daemon.post("/v1/infer/sum", b"", headers={
        "Content-Type": "application/octet-stream", "Xinfer-Dtype": "FP32",
        "Xinfer-Shape": "2,1", "Xinfer-Sequence": "a"})
    assert wrong.status == 400  # has not happened
    assert total(add(daemon, 1, "a;end")) == 8
    assert is_lost(add(daemon, 1, "a"))
    assert total(add(daemon, 5, "b;start")) == 5  # anew
    assert total(add(daemon, 3, "c;start;end")) == 3
    assert is_lost(add(daemon, 1, "c"))
    for bad in ("", ";start", "a b", "a;begin", "x" * 65):
        answer = daemon.post("/v1/infer/sum", floats(1), headers={
            "Content-Type": "application/octet-stream", "Xinfer-Dtype": "FP32",
            "Xinfer-Shape": "1,1", "Xinfer-Sequence": bad})
        assert answer.status == 400, bad
    assert 'xinfer_sequences{' in daemon.get("/metrics").body.decode()
    # By id it is the same session; another's is another sequence.
    sent = {"Content-Type": "application/octet-stream", "Xinfer-Dtype": "FP32",
            "Xinfer-Shape": "1,1", "Xinfer-Sequence": "b"}
    assert total(daemon.post("/v1/infer/" + session["id"], floats(1), headers=sent)) == 6


@pytest.mark.tsan
@pytest.mark.crashes("sum")
def test_many_sequences_at_once_survive_their_host(daemon, tmp_path):
    session = accumulator(daemon, tmp_path, "delay-ms 4")
    sums, ready = {}, threading.Barrier(5)

    def talk(name):
        expected = 0
        ready.wait()
        for i in range(1, 41):
            expected += i
            got = total(add(daemon, i, name + (";start" if i == 1 else "")))
            assert got == expected, (name, i)
        sums[name] = got

    talkers = [threading.Thread(target=talk, args=("talker-%d" % i,)) for i in range(4)]
    for t in talkers:
        t.start()
    ready.wait()
    time.sleep(0.1)  # in the middle of it
    os.kill(session["host_pid"], signal.SIGKILL)
    for t in talkers:
        t.join()
    assert sums == {"talker-%d" % i: 820 for i in range(4)}


def test_requests_of_one_sequence_never_overlap(daemon, tmp_path):
    accumulator(daemon, tmp_path, "delay-ms 2", instances=2)
    assert total(add(daemon, 0, "one;start")) == 0
    sums = []
    clients = [threading.Thread(target=lambda: sums.append(total(add(daemon, 1, "one"))))
               for _ in range(30)]
    for c in clients:
        c.start()
    for c in clients:
        c.join()
    assert sorted(sums) == list(range(1, 31))  # each went on from the one before


def test_a_client_that_leaves_changes_nothing(daemon, tmp_path):
    accumulator(daemon, tmp_path, "delay-ms 300 when 5")
    assert total(add(daemon, 1, "a;start")) == 1
    with pytest.raises((TimeoutError, http.client.HTTPException, OSError)):
        add(daemon, 5, "a", timeout=0.1)
    assert total(add(daemon, 2, "a")) == 3
    late = add(daemon, 5, "a", **{"Xinfer-Deadline-Ms": "1000"})
    assert total(late) == 8


def test_idle_sequences_end_and_so_do_all_with_the_daemon(daemon, tmp_path):
    accumulator(daemon, tmp_path, sequence_idle_s=1)
    assert total(add(daemon, 1, "short;start")) == 1
    wait_for(lambda: "sequence.expired" in daemon.log(), 10, "the sequence to end")
    assert is_lost(add(daemon, 1, "short"))
    assert total(add(daemon, 1, "kept;start")) == 1
    daemon.kill()
    daemon.start()
    assert is_lost(add(daemon, 1, "kept"))


def test_a_model_without_state_needs_no_start(daemon, tmp_path):
    load(daemon, package(tmp_path, "double", models.DOUBLE))
    for _ in range(2):
        answer = models.ask(daemon, "double", 1, 2, 3, 4, headers={"Xinfer-Sequence": "frames"})
        assert models.numbers(answer) == [3, 5, 7, 9]


@pytest.mark.tsan
def test_kept_answers_are_given_again(daemon, tmp_path):
    load(daemon, package(tmp_path, "double", models.DOUBLE), cache="1MiB")
    answers = [models.ask(daemon, "double", *values) for values in
               [(1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 3, 4)]]
    assert [a.headers["xinfer-cache"] for a in answers] == ["miss", "hit", "miss", "hit"]
    assert [models.numbers(a) for a in answers] == [[3, 5, 7, 9], [3, 5, 7, 9], [3, 5, 7, 11],
                                                    [3, 5, 7, 9]]
    large = [float(i) for i in range(100000)]  # is hashed on another thread
    hits = [models.ask(daemon, "double", *large) for _ in range(2)]
    assert [a.headers["xinfer-cache"] for a in hits] == ["miss", "hit"]
    assert models.numbers(hits[0]) == models.numbers(hits[1])
    assert 'xinfer_cache_hits_total{' in daemon.get("/metrics").body.decode()


def test_a_sequence_stays_with_its_version_while_the_name_moves_on(daemon, tmp_path):
    old = accumulator(daemon, tmp_path)
    assert total(add(daemon, 1, "long;start")) == 1
    twice = ACCUMULATOR.replace("t = add s x", "u = mul x 2\nt = add s u")
    with open(package(tmp_path, "sum", twice, model=STATE), "rb") as f:
        put = daemon.post("/v1/control/packages", f.read(),
                          headers={"Content-Type": "application/vnd.xinfer.xpkg"})
    swapped = {}
    swap = threading.Thread(target=lambda: swapped.update(answer=daemon.post(
        "/v1/control/load", {"package": put.json()["digest"], "replace": True, "name": "sum"})))
    swap.start()
    wait_for(lambda: total(add(daemon, 1)) == 2, 20, "the new version to answer")
    assert total(add(daemon, 1, "long")) == 2  # where it began
    assert total(add(daemon, 1, "fresh;start")) == 2
    assert total(add(daemon, 1, "long;end")) == 3
    swap.join()
    assert swapped["answer"].status == 200, swapped["answer"]
    assert swapped["answer"].json()["replaced"]["id"] == old["id"]
    assert is_lost(add(daemon, 1, "long"))
    assert total(add(daemon, 1, "fresh")) == 4


@pytest.mark.crashes("sum", "flow")
def test_state_on_another_device_in_one_piece_and_in_stages(simulated, tmp_path):
    daemon = simulated().start()
    path = package(tmp_path, "sum", ACCUMULATOR, engine="simulated", device="GPU.0", model=STATE)
    assert load(daemon, path)["device"] == "GPU.0"
    assert [total(add(daemon, i, "a" + (";start" if i == 1 else ""))) for i in range(1, 6)] == [
        1, 3, 6, 10, 15]
    path = package(tmp_path, "flow", ACCUMULATOR, engine="simulated", device="GPU.0", model=STATE,
                   flow=FLOW)
    session = load(daemon, path)
    for i in range(1, 6):
        if i == 3:
            os.kill(session["host_pid"], signal.SIGKILL)
        answer = daemon.post("/v1/infer/flow", floats(i), headers={
            "Content-Type": "application/octet-stream",
            "Xinfer-Sequence": "a" + (";start" if i == 1 else "")})
        assert answer.status == 200, answer
        assert answer.json()["outputs"]["y"] == [i * (i + 1) / 2]
    assert total(add(daemon, 7)) == 7
