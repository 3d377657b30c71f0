"""Batches, quotas, deadlines: what many clients at once see of the scheduler."""
import concurrent.futures
import io
import json

from PIL import Image

import models

SLOW = models.DOUBLE + "fault delay-ms 60\n"
# A picture's mean colour needs nothing but its pixels: the answer tells which picture it was.
EYE = """xref 1
input x FP32 [-1,2,2,3]
output y FP32 [-1,2,2,3]
y = copy x
cost-us 20000 100
"""
LOOK = {"steps": [{"op": "decode_image", "in": "input", "out": "photo"},
                  {"op": "resize", "in": "photo", "out": "small", "width": 2, "height": 2, "filter": "nearest"},
                  {"op": "to_tensor", "in": "small", "out": "pixels"},
                  {"op": "infer", "model": "main", "in": "pixels", "out": "y"}],
        "output": {"tensors": ["y"]}}


def at_once(n, ask):
    with concurrent.futures.ThreadPoolExecutor(n) as pool:
        return list(pool.map(ask, range(n)))


def telemetry(daemon, name):
    return next(s for s in daemon.get("/v1/telemetry").json()["sessions"] if s["name"] == name)


def load(daemon, path, *options):
    said = daemon.cli("load", path, *options)
    assert said.rc == 0, said


def statuses(answers):
    return {s: sum(a.status == s for a in answers) for s in {a.status for a in answers}}


def test_a_batch_is_shared_and_its_rows_are_not(daemon, tmp_path):
    load(daemon, models.write(tmp_path, "m", SLOW), "--max-batch", "8", "--instances", "1")
    answers = at_once(24, lambda i: models.ask(daemon, "m", *[float(i)] * 4 * (1 + i % 2)))
    for i, answer in enumerate(answers):
        assert models.numbers(answer) == [2 * i + 1] * 4 * (1 + i % 2)
    assert telemetry(daemon, "m")["batch_mean"] > 1.5
    assert models.numbers(models.ask(daemon, "m", 1, 2, 3, 4)) == [3, 5, 7, 9]


def test_pictures_share_the_device_and_not_their_answers(simulated, tmp_path):
    daemon = simulated().start()
    load(daemon, models.package(tmp_path, "eye", EYE, engine="simulated", flow=LOOK, device="NPU.0",
                                model={"batching": {"max": 8}}), "--instances", "1")

    def ask(i):
        out = io.BytesIO()
        Image.new("RGB", (32, 32), (10 * i, 255 - 10 * i, 7)).save(out, "PNG")
        return daemon.post("/v1/infer/eye", out.getvalue(), headers={"Content-Type": "image/png"})

    ask(0)
    for i, answer in enumerate(at_once(16, ask)):
        assert answer.status == 200, answer
        pixels = next(iter(answer.json()["outputs"]["tensors"]))["data"]
        assert [round(v) for v in pixels[:3]] == [10 * i, 255 - 10 * i, 7], answer
    assert telemetry(daemon, "eye")["batch_mean"] > 1.5
    assert models.session(daemon, "eye")["device"] == "NPU.0"


def test_quotas_are_429_and_full_queues_503(new_daemon, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"queue_limit": 3}))
    daemon = new_daemon("--config", tmp_path / "config.json").start()
    load(daemon, models.write(tmp_path, "m", models.DOUBLE + "fault delay-ms 200\n"), "--instances", "1")
    seen = statuses(at_once(8, lambda i: models.ask(daemon, "m", 1, 2, 3, 4)))
    assert set(seen) == {200, 503} and seen[200] >= 4, seen
    assert daemon.post("/v1/control/configure", {"tenants": {"default": {"queue": 2}}}).status == 200
    answers = at_once(8, lambda i: models.ask(daemon, "m", 1, 2, 3, 4))
    seen = statuses(answers)
    assert set(seen) == {200, 429} and seen[200] >= 3, seen
    refused = next(a for a in answers if a.status == 429)
    assert refused.json()["code"] == "XI-0503" and int(refused.headers["retry-after"]) >= 1
    assert daemon.post("/v1/control/configure", {"tenants": {"default": {"queue": 0, "rate": 1}}}).status == 200
    seen = statuses(at_once(4, lambda i: models.ask(daemon, "m", 1, 2, 3, 4)))
    assert set(seen) == {200, 429} and seen[200] >= 1, seen
    assert "request.refused" in daemon.log()
    why = daemon.get("/v1/why/m").body.decode()
    assert "wait for m already, 3 may" in why and "tenant default wait already, 2 may" in why


def test_what_cannot_be_in_time_is_told_so_at_once(daemon, tmp_path):
    load(daemon, models.write(tmp_path, "m", models.DOUBLE + "fault delay-ms 100\n"), "--instances", "1")
    for _ in range(3):  # what a run takes is learned
        models.ask(daemon, "m", 1, 2, 3, 4)
    answers = at_once(16, lambda i: models.ask(daemon, "m", 1, 2, 3, 4, headers={"Xinfer-Deadline-Ms": "700"}))
    seen = statuses(answers)
    assert set(seen) <= {200, 503, 504} and seen[200] >= 3 and seen[503] >= 5, seen
    refused = next(a for a in answers if a.status == 503)
    assert "ahead of it" in refused.json()["detail"] and int(refused.headers["retry-after"]) >= 1
