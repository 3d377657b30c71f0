"""Requests that share a run: each gets its own answer, whatever engine made it."""
import os
import sys
import threading

import pytest

from daemon import ROOT
from models import ask, numbers, session

sys.path.insert(0, os.path.join(ROOT, "tests", "tools"))
import make_onnx  # noqa: E402


@pytest.mark.release
def test_batches_of_a_real_engine_answer_each_its_own(daemon, tmp_path):
    """y = 2x + 1 by OpenVINO, 12 clients at once, rows of 1 to 3: every number of every answer."""
    path = tmp_path / "affine.onnx"
    path.write_bytes(make_onnx.affine("n"))
    said = daemon.cli("load", path, "--name", "affine", "--max-batch", "8", "--max-delay-ms", "5", "--instances", "1")
    assert said.rc == 0, said
    assert session(daemon, "affine")["engine"].startswith("openvino")
    wrong = []

    def client(i):
        for k in range(25):
            x = [float(1000 * i + 10 * k + j) for j in range(4 * (1 + i % 3))]
            a = ask(daemon, "affine", *x)
            if a.status != 200 or numbers(a) != [2 * v + 1 for v in x]:
                wrong.append((x, a))
    threads = [threading.Thread(target=client, args=(i,)) for i in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong, wrong[:2]
    shared = [s for s in daemon.get("/v1/telemetry").json()["sessions"] if s["name"] == "affine"][0]
    assert shared["batch_mean"] > 1.5, shared
