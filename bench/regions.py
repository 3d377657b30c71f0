"""Frames in shared memory that the client owns, against the same engine in one process."""
import contextlib
import json
import os

import made
from measure import Daemon, load, median, metric, run_tool, spread

HEIGHT, WIDTH = 2160, 3840
SHAPE = [1, HEIGHT, WIDTH, 3]
BYTES = HEIGHT * WIDTH * 3
JSON = ["Content-Type: application/json"]


@contextlib.contextmanager
def frame(daemon):
    """A region with a 4K frame, whose brightest sample is 251, and a page for the answer behind it."""
    key = "/xinfer-bench-%d" % os.getpid()
    pages = (BYTES + 4095) // 4096 * 4096
    path = "/dev/shm" + key
    with open(path, "wb") as f:
        f.write((bytes(range(252)) * (BYTES // 252 + 1))[:BYTES])
        f.truncate(pages + 4096)
    try:
        said = daemon.post("/v2/systemsharedmemory/region/frame/register",
                           {"key": key, "byte_size": pages + 4096})
        if said.status != 200:
            raise RuntimeError(said)
        yield path, pages
    finally:
        os.unlink(path)


def ask(answer_at, dtype_bytes):
    return json.dumps({
        "inputs": [{"name": "x", "datatype": "UINT8", "shape": SHAPE,
                    "parameters": {"shared_memory_region": "frame", "shared_memory_byte_size": BYTES}}],
        "outputs": [{"name": "y", "parameters": {
            "shared_memory_region": "frame", "shared_memory_offset": answer_at,
            "shared_memory_byte_size": dtype_bytes}}]}).encode()


def one(bench, daemon, name, body):
    """A/B/A/B: p50 of the engine alone, of the served one, and the rate with eight at once."""
    links = os.path.join(daemon.state, "links")
    newest = max((os.path.join(links, n) for n in os.listdir(links)), key=os.path.getmtime)
    to, path = "unix:" + daemon.sock, "/v1/infer/" + name
    bare, served, rates, requests = [], [], [], 0
    copied = metric(daemon, "xinfer_copied_bytes_total")
    for _ in range(1 if bench.quick else 5):
        bare.append(run_tool("inproc", "--links", newest, "--shape", ",".join(map(str, SHAPE)), "--dtype", "UINT8",
                             "--lanes", 1, "--seconds", bench.seconds / 2)["p50_us"])
        alone = load(to, path, body, JSON, 1, bench.seconds / 2, 0)
        eight = load(to, path, body, JSON, 8, bench.seconds / 2, 0)
        served.append(alone["p50_us"])
        rates.append(eight["rate"])
        requests += alone["requests"] + eight["requests"]
    copied = metric(daemon, "xinfer_copied_bytes_total") - copied
    return bare, served, rates, copied / requests


def measure_shm(bench):
    """A 4K frame in a region: what is added to the engine's own time, and how many a second."""
    models = (("brightest", made.brightest(HEIGHT, WIDTH), 1, "reads all of it"),
              ("sampled", made.brightness(HEIGHT, WIDTH, 10), 4, "reads a sample of it"))
    with Daemon() as d, frame(d) as (path, pages):
        for name, model, size, text in models:
            said = d.cli("load", bench.file(name + ".onnx", model), "--name", name, timeout=120)
            if said.rc != 0:
                raise RuntimeError(said)
            bare, served, rates, copied = one(bench, d, name, bench.file(name + ".json", ask(pages, size)))
            bench.say("shm_%s_bare_p50_us" % name, spread(bare), "an engine that %s, alone, p50 µs" % text)
            bench.say("shm_%s_p50_us" % name, spread(served), "…served, the frame in a region, p50 µs")
            bench.say("shm_%s_added_us" % name, round(median([s - b for s, b in zip(served, bare)]), 1),
                      "…added, p50 µs (goal: at most 100)")
            bench.say("shm_%s_rate" % name, spread(rates), "…frames a second with eight at once")
            bench.say("shm_%s_copied" % name, round(copied), "…bytes copied for each, of its JSON too")
            with open(path, "rb") as f:
                f.seek(pages)
                answer = f.read(size)
            if name == "brightest":
                bench.say("shm_answer", answer[0], "…what the engine wrote into the region (251)")


ALL = {"shm": measure_shm}
