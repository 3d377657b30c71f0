"""Many models on one machine: swaps, crashes, memory, shares, batches, cores. Parts of bench/run."""
import contextlib
import json
import os
import pathlib
import random
import signal
import threading
import time

import made
import measure
import models  # the tests' small models; measure knows where they lie
from measure import (Daemon, Load, Samples, harness, load, median, metric, quantile, run_tool)

RAW = ["Content-Type: application/octet-stream", "Accept: application/octet-stream"]
PICTURES = os.path.join(measure.ROOT, "build", "deps", "pictures")
DETECTOR = os.path.join(measure.ROOT, "build", "zoo", "object-detector.xpkg")
SPIN = "xref 1\ninput x FP32 [-1,4]\noutput y FP32 [-1,4]\nt = mul x 2\ny = add t 1\n"


def floats(*values):
    import struct
    return struct.pack("<%df" % len(values), *values)


def shaped(*dims):
    return RAW + ["Xinfer-Dtype: FP32", "Xinfer-Shape: " + ",".join(map(str, dims))]


def answer_of(x):
    """How SPIN's answer to [x,0,0,0] ends."""
    return floats(2 * x + 1, 1, 1, 1).hex()


def cli(daemon, *args):
    said = daemon.cli(*args, timeout=300)
    if said.rc != 0:
        raise RuntimeError(said)
    return said


def tcp(daemon):
    return "127.0.0.1:%d" % daemon.port


def control(daemon, path, **body):
    answer = daemon.post(path, body, timeout=300)
    if answer.status not in (200, 201, 202):
        raise RuntimeError(answer)
    return answer.json()


def session(daemon, name, tenant=None):
    for s in daemon.get("/v1/models").json()["models"]:
        if s["name"] == name and tenant in (None, s["tenant"]):
            return s
    return None


@contextlib.contextmanager
def configured(bench, **config):
    path = bench.file("config.json", json.dumps(config).encode())
    with Daemon("--config", path) as d:
        yield d


def upload(daemon, bench, name, data):
    """Packs a model, uploads it, and returns its digest; nothing is loaded."""
    path = bench.file(name + ".onnx", data)
    package = os.path.join(bench.dir, name + ".xpkg")
    said = harness.run_program("xinfer", "pack", path, "-o", package)
    if said.rc != 0:
        raise RuntimeError(said)
    with open(package, "rb") as f:
        answer = daemon.post("/v1/control/packages", f.read(),
                             headers={"Content-Type": "application/vnd.xinfer.xpkg"})
    return answer.json()["digest"]


# ---- swap ----

SWAP_NET = dict(width=512, depth=8, rows=32)


def swap_round(bench, daemon, digests, swaps, every):
    """Swaps between the two packages under 60 % of what the machine does now: that rate, what the load
    generator counted, (in, out) latencies of swap windows and between, and how long each swap took."""
    body, record, windows = bench.file("x", bytes(4 * 512)), os.path.join(bench.dir, "samples"), []
    to, headers = (tcp(daemon), "/v1/infer/net", body), shaped(1, 512)
    rate = 0.6 * load(*to, headers, 4, 1 if bench.quick else 3)["rate"]
    with Load(*to, headers, 8, seconds=(swaps + 1) * every, warm=0.5, rate=rate,
              expect=[made.marked(1.0), made.marked(2.0)], record=record) as running:
        time.sleep(0.5 + every / 2)
        for i in range(swaps):
            began = time.monotonic_ns()
            control(daemon, "/v1/control/load", package=digests[(i + 1) % 2], name="net", replace=True)
            windows.append((began, time.monotonic_ns() + 100000000))
            time.sleep(max(0, every - (time.monotonic_ns() - began) / 1e9))
        result = running.result()
    return rate, result, Samples(record).split(windows), [(b - a) / 1e6 - 100 for a, b in windows]


def measure_swap(bench):
    """A model is replaced again and again under load: is anything lost, do others' answers wait?"""
    rounds, swaps, every = (1, 3, 1.0) if bench.quick else (10, 20, 2.2)
    inside, outside, took, answers, errors, rates = [], [], [], [0, 0], 0, []
    with Daemon() as d:
        digests = [upload(d, bench, "net%d" % v, made.network(mark=float(v), **SWAP_NET))
                   for v in (1, 2)]
        for digest in (digests[1], digests[0]):  # both are compiled once: the cache is warm
            control(d, "/v1/control/load", package=digest, name="net", replace=True)
        for _ in range(rounds):
            rate, result, (during, between), times = swap_round(bench, d, digests, swaps, every)
            rates.append(rate)
            inside, outside, took = inside + during, outside + between, took + times
            answers = [n + m for n, m in zip(answers, result["expected"])]
            errors += result["errors"]
    bench.say("swap_count", rounds * swaps, "swaps, one every %.1f s, at 60 %% of what the machine does: %d to %d requests/s" %
              (every, min(rates), max(rates)))
    bench.say("swap_ms", round(median(took)), "…from request to the old one freed, median ms")
    bench.say("swap_failed", errors, "…failed requests or answers of neither (goal: 0)")
    bench.say("swap_answers", "%d old, %d new" % tuple(answers), "…answers of each version")
    bench.say("swap_samples", "%d in, %d out" % (len(inside), len(outside)), "…requests in swap windows, outside")
    bench.say("swap_p99_us", "%d in, %d out" % (quantile(inside, .99), quantile(outside, .99)), "…their p99, µs")
    bench.say("swap_p99_ratio", round(quantile(inside, .99) / quantile(outside, .99), 2),
              "…ratio (goal: at most 1.5)")
    if errors:
        raise RuntimeError("%d requests failed; of the last round: %s" % (errors, result))


# ---- crash ----

def wait_answer(daemon, name, x, began, limit=20):
    """Until the model answers again: ms since `began`."""
    while time.monotonic() - began < limit:
        answer = daemon.post("/v1/infer/" + name, floats(x, 0, 0, 0), headers={
            "Content-Type": RAW[0].split(": ")[1], "Accept": "application/octet-stream",
            "Xinfer-Dtype": "FP32", "Xinfer-Shape": "1,4"})
        if answer.status == 200:
            return (time.monotonic() - began) * 1000
    raise RuntimeError("%s did not come back" % name)


def end_host(daemon, how, turn):
    """Ends the host of A in one of five ways; returns when that was (monotonic s). The input of a
    request that did it before would be refused: each turn has its own."""
    began = time.monotonic()
    if how in ("SIGKILL", "SIGSEGV", "SIGABRT"):
        os.kill(session(daemon, "A")["host_pid"], getattr(signal, how))
        return began
    x = {"hang": 77.0, "exhaust": 88.0}[how]
    answer = daemon.post("/v1/infer/A", floats(x, turn, 0, 0), headers={
        "Content-Type": "application/octet-stream", "Xinfer-Dtype": "FP32", "Xinfer-Shape": "1,4"})
    if answer.status == 200:
        raise RuntimeError("a request that ends its host was answered: %r" % answer)
    return began


def crash_rounds(daemon, bench, rounds, spacing):
    windows, back = [], {}
    for turn, how in enumerate(rounds):
        began = time.monotonic_ns()
        wait = wait_answer(daemon, "A", 1.0, end_host(daemon, how, turn))
        back.setdefault(how, []).append(wait)
        windows.append((began, time.monotonic_ns() + 100000000))
        time.sleep(max(0, spacing - (time.monotonic_ns() - began) / 1e9))
    return windows, back


def measure_crash(bench):
    """A's host is ended in five ways under load: what does B notice, how soon is A back?"""
    window_ms, counts = 1200, dict(SIGKILL=100, SIGSEGV=100, SIGABRT=100, hang=20, exhaust=20)
    if bench.quick:
        window_ms, counts = 1000, dict(SIGKILL=1, SIGSEGV=1, hang=1, exhaust=1)
    rounds = [how for how, n in counts.items() for _ in range(n)]
    random.Random(5).shuffle(rounds)
    spacing = window_ms / 1000 + 0.2  # wider than the window in which crashes count together
    faults = "fault spin-ms 2\nfault hang when 77\nfault exhaust 4294967296 when 88\n"
    body = bench.file("x", floats(5, 0, 0, 0))
    seconds = len(rounds) * spacing + (5 if bench.quick else counts["hang"] * 6 + counts["exhaust"] * 2 + 5)
    with configured(bench, crash_window_ms=window_ms, watchdog_min_ms=1000, host_memory="512MiB") as d:
        for name in ("A", "B"):
            began = time.monotonic()
            cli(d, "load", bench.file(name + ".xref", (SPIN + faults).encode()), "--name", name)
            loaded_ms = (time.monotonic() - began) * 1000
        records = {n: os.path.join(bench.dir, "samples-" + n) for n in "AB"}
        with contextlib.ExitStack() as stack:
            running = {n: stack.enter_context(Load(
                tcp(d), "/v1/infer/" + n, body, shaped(1, 4), 4, seconds=seconds, rate=100,
                expect=[answer_of(5)], record=records[n])) for n in "AB"}
            time.sleep(1.5)
            load_ms = session(d, "A")["load_us"] / 1000
            windows, back = crash_rounds(d, bench, rounds, spacing)
            results = {n: r.result() for n, r in running.items()}
    inside, outside = Samples(records["B"]).split(windows)
    bench.say("crash_counts", ", ".join("%d %s" % (n, how) for how, n in counts.items()), "A's host ended by")
    bench.say("crash_b_errors", results["B"]["errors"], "…errors of B (goal: 0)")
    bench.say("crash_b_p99_us", "%d in, %d out" % (quantile(inside, .99), quantile(outside, .99)),
              "…B's p99 while A is away, and otherwise, µs")
    bench.say("crash_b_p99_ratio", round(quantile(inside, .99) / quantile(outside, .99), 2), "…ratio (goal: at most 1.5)")
    for how, times in back.items():
        bench.say("crash_back_ms_" + how, "%d (max %d)" % (median(times), max(times)),
                  "…A answers again after %s, median ms (first load: %d, of it the model %d)" % (how, loaded_ms, load_ms))
    bench.say("crash_a_requests", "%d right, %s" % (results["A"]["requests"], results["A"]["status"]),
              "…A's requests meanwhile, by status")
    if results["B"]["errors"]:
        raise RuntimeError("B noticed: %s" % results["B"])


def measure_poison(bench):
    """One request of a batch of 8 ends its host: are the 7 others answered right?"""
    rounds = 2 if bench.quick else 50
    text = SPIN + "fault delay-ms 20\nfault crash segv when 13\n"
    right = guilty = wrong = 0
    lock = threading.Lock()
    with configured(bench, crash_limit=1000, crash_window_ms=1000) as d:
        cli(d, "load", bench.file("p.xref", text.encode()), "--name", "p", "--instances", "1", "--max-batch", "8",
            "--max-delay-ms", "200")
        for i in range(rounds):
            def ask(x):
                nonlocal right, guilty, wrong
                a = d.post("/v1/infer/p", floats(x, float(i), 0, 0), headers={
                    "Content-Type": "application/octet-stream", "Accept": "application/octet-stream",
                    "Xinfer-Dtype": "FP32", "Xinfer-Shape": "1,4"})
                with lock:
                    if a.status == 200 and a.body.endswith(floats(2 * x + 1, 2 * i + 1, 1, 1)):
                        right += 1
                    elif x == 13.0 and a.status == 500:
                        guilty += 1
                    else:
                        wrong += 1
            # The poison's second value differs each round, or its fingerprint would be refused.
            threads = [threading.Thread(target=ask, args=(x,)) for x in (1.0, 2.0, 3.0, 13.0, 5.0, 6.0, 7.0, 8.0)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
    bench.say("poison_rounds", rounds, "batches of 8 with one poison request")
    bench.say("poison_others", "%d of %d" % (right, 7 * rounds), "…others answered right (goal: all)")
    bench.say("poison_guilty", "%d of %d" % (guilty, rounds), "…poison requests answered 500 with an incident")
    if wrong or right != 7 * rounds:
        raise RuntimeError("%d right, %d guilty, %d otherwise" % (right, guilty, wrong))


# ---- memory ----

def footprint(daemon):
    """Private KiB, descriptors, threads, shared-memory segments and hosts of a daemon."""
    with open("/proc/%d/smaps_rollup" % daemon.pid, encoding="utf-8") as f:
        fields = {l.split(":")[0]: int(l.split()[1]) for l in f.read().splitlines()[1:]}
    fds = [os.readlink("/proc/%d/fd/%s" % (daemon.pid, n)) for n in os.listdir("/proc/%d/fd" % daemon.pid)]
    return {"private_kib": fields["Private_Clean"] + fields["Private_Dirty"], "fds": len(fds),
            "segments": sum("memfd:" in l for l in fds), "threads": len(os.listdir("/proc/%d/task" % daemon.pid)),
            "hosts": len(measure.children(daemon.pid))}


def measure_memory(bench):
    """Load, infer, unload, again and again: what does the daemon keep?"""
    cycles, first = (30, 15) if bench.quick else (1000, 50)
    settle = 1 if bench.quick else 6  # segments go back a while after they were used last
    body = bench.file("x", floats(1, 2, 3, 4))
    with Daemon() as d:
        digest = None
        for i in range(1, cycles + 1):
            if digest is None:
                cli(d, "load", bench.file("m.xref", SPIN.encode()), "--name", "m")
                digest = session(d, "m")["digest"]
            else:
                control(d, "/v1/control/load", package=digest, name="m", options={"instances": 2})
            load(tcp(d), "/v1/infer/m", body, shaped(1, 4), 2, seconds=0.02, warm=0)
            control(d, "/v1/control/unload", name="m")
            if i == first:
                time.sleep(settle)
                before = footprint(d)
        time.sleep(settle)
        after = footprint(d)
    grown = after["private_kib"] - before["private_kib"]
    bench.say("memory_cycles", cycles, "cycles of load, inferences, unload")
    bench.say("memory_private_mib", "%.2f, %.2f" % (before["private_kib"] / 1024, after["private_kib"] / 1024),
              "…private memory of xinferd after cycle %d and the last, MiB" % first)
    bench.say("memory_grown_kib", grown, "…grown by, KiB (goal: at most 1024)")
    bench.say("memory_left", {k: (before[k], after[k]) for k in ("hosts", "fds", "threads", "segments")},
              "…hosts, descriptors, threads, segments then and in the end")
    if after["hosts"] or after["fds"] > before["fds"] or after["threads"] > before["threads"]:
        raise RuntimeError("left over: %s, then %s" % (before, after))


# ---- fairness ----

def tenant(name):
    return ["Xinfer-Tenant: " + name]


def device_ns(daemon, name):
    return metric(daemon, "xinfer_tenant_device_seconds_total", tenant=name)


def measure_fairness(bench):
    """A greedy tenant beside a modest one; weights 3:1; realtime beside a network of 400 ms."""
    seconds = 1 if bench.quick else 20
    body = bench.file("x", floats(5, 0, 0, 0))
    spin = bench.file("spin.xref", (SPIN + "fault spin-ms 5\n").encode())
    expect = [answer_of(5)]
    with configured(bench, cores=1, queue_limit=64) as d:
        for t in ("a", "b"):
            cli(d, "load", spin, "--name", "m", "--tenant", t, "--instances", "1")
        service = load(tcp(d), "/v1/infer/m", body, shaped(1, 4) + tenant("b"), 1, seconds=1)["p50_us"]
        share = 0.5 * 1e6 / service  # half the device, requests a second
        ask_b = lambda: load(tcp(d), "/v1/infer/m", body, shaped(1, 4) + tenant("b"), 8,
                             seconds=seconds, rate=share / 2, expect=expect)
        alone = ask_b()["p99_us"]
        with Load(tcp(d), "/v1/infer/m", body, shaped(1, 4) + tenant("a"), 64, seconds=seconds + 2,
                  rate=10 * share, expect=expect):
            time.sleep(0.7)
            beside = ask_b()["p99_us"]
        limit = 2 * alone + service
        bench.say("fair_service_us", round(service), "one request, µs; one core; A offers 10 x its share, B half of its")
        bench.say("fair_b_p99_us", "%d alone, %d beside A" % (alone, beside), "…B's p99, µs")
        bench.say("fair_b_of_limit", round(beside / limit, 2), "…of 2 x alone + one service time (goal: at most 1)")
        control(d, "/v1/control/configure", tenants={"a": {"weight": 3}, "b": {"weight": 1}})
        with contextlib.ExitStack() as stack:
            for t in ("a", "b"):
                stack.enter_context(Load(tcp(d), "/v1/infer/m", body, shaped(1, 4) + tenant(t), 8,
                                         seconds=seconds + 2, expect=expect))
            time.sleep(0.5)
            before = [device_ns(d, t) for t in ("a", "b")]
            time.sleep(seconds)
            used = [device_ns(d, t) - b for t, b in zip(("a", "b"), before)]
        bench.say("fair_split", round(used[0] / used[1], 3), "device time of a : b at weights 3:1, both saturated (goal: 3 ± 5 %)")
    measure_realtime(bench, seconds)


def measure_realtime(bench, seconds):
    body = bench.file("x", floats(5, 0, 0, 0))
    with Daemon() as d:
        cli(d, "load", bench.file("slow.xref", (SPIN + "fault spin-ms 400\n").encode()), "--name", "slow", "--priority", "batch")
        cli(d, "load", bench.file("fast.xref", (SPIN + "fault spin-ms 2\n").encode()), "--name", "fast", "--priority", "realtime")
        ask = lambda: load(tcp(d), "/v1/infer/fast", body, shaped(1, 4), 4, seconds=seconds, rate=50,
                           expect=[answer_of(5)])
        alone = ask()
        with Load(tcp(d), "/v1/infer/slow", body, shaped(1, 4), 4, seconds=seconds + 2, expect=[answer_of(5)]):
            time.sleep(0.7)
            beside = ask()
    bench.say("realtime_p99_us", "%d alone, %d beside" % (alone["p99_us"], beside["p99_us"]),
              "realtime alone and beside a 400 ms network of class batch, p99 µs")
    bench.say("realtime_ratio", round(beside["p99_us"] / alone["p99_us"], 2), "…ratio (goal: at most 2)")


# ---- batching ----

def rate_at(d, name, body, headers, connections, seconds, expect):
    return load(tcp(d), "/v1/infer/" + name, body, headers, connections, seconds=seconds, expect=[expect])


def measure_batching(bench):
    """What batches of 8 gain over requests one by one, and what they cost a lone request."""
    seconds = 0.5 if bench.quick else 5
    simulated = SPIN + "cost-us 2000 100\n"
    body = bench.file("x", floats(5, 0, 0, 0))
    with simulated_daemon(bench) as d:
        for name, batch in (("one", 1), ("eight", 8)):
            load_simulated(d, bench, name, simulated, batch)
        rates = {n: rate_at(d, n, body, shaped(1, 4), 16, seconds, answer_of(5)) for n in ("one", "eight")}
        lone = {n: median([rate_at(d, n, body, shaped(1, 4), 1, seconds / 3, answer_of(5))["p50_us"] for _ in range(3)])
                for n in ("one", "eight")}
    bench.say("batch_simulated_gain", round(rates["eight"]["rate"] / rates["one"]["rate"], 2),
              "simulated device (2 ms a run + 0.1 ms a row), concurrency 16: throughput, 8 over 1")
    bench.say("batch_lone_ratio", round(lone["eight"] / lone["one"], 3),
              "…p50 at concurrency 1, 8 over 1 (goal: no added delay)")
    net = made.network(512, 8, 1, 4.0, batch="n")
    rows = bench.file("x", bytes(4 * 512))
    with Daemon() as d:
        path = bench.file("net.onnx", net)
        for name, batch in (("one", 1), ("eight", 8)):
            cli(d, "load", path, "--name", name, "--max-batch", batch)
        rates = {n: rate_at(d, n, rows, shaped(1, 1, 512), 16, seconds, made.marked(4.0)) for n in ("one", "eight")}
    bench.say("batch_cpu_gain", round(rates["eight"]["rate"] / rates["one"]["rate"], 2),
              "8 square layers of 512 on this CPU, concurrency 16: throughput, 8 over 1")


@contextlib.contextmanager
def simulated_daemon(bench):
    path = bench.file("config.json", json.dumps(
        {"engine_dir": os.path.join(harness.build_dir(), "test", "engines-simulated")}).encode())
    with Daemon("--config", path) as d:
        yield d


def load_simulated(d, bench, name, text, batch):
    folder = pathlib.Path(bench.dir, "package-" + name)
    folder.mkdir()
    package = models.package(folder, name, text, engine="simulated", device="GPU.0")
    cli(d, "load", package, "--name", name, "--max-batch", batch, "--instances", "1")


# ---- cores ----

def measure_oversubscription(bench):
    """Four models busy at once on all cores, against the same work in-process, one after another."""
    seconds = 0.5 if bench.quick else 10
    nets = {"n%d" % i: dict(width=512, depth=40 + 10 * i, rows=96, mark=float(i)) for i in range(3)}
    jpeg, tensor = os.path.join(bench.dir, "cat.jpg"), bench.file("x", bytes(4 * 512))
    with Daemon() as d:
        cli(d, "load", DETECTOR, "--name", "detector")
        cli(d, "infer", "detector", os.path.join(PICTURES, "chelsea.png"), "--picture", jpeg)
        jobs = {"detector": (jpeg, ["Content-Type: image/jpeg"], ["--input", jpeg])}
        for name, net in nets.items():
            cli(d, "load", bench.file(name + ".onnx", made.network(**net)), "--name", name)
            jobs[name] = (tensor, shaped(1, 512), ["--shape", "1,512"])
        links = {n: os.path.join(d.state, "links", session(d, n)["digest"]) for n in jobs}
        alone, served, generators = {}, {n: [] for n in jobs}, []
        for _ in range(1 if bench.quick else 3):
            for name, (_, _, what) in jobs.items():
                for lanes, threads in ((0, 1), (1, 0)):  # a thread a request, or all for one
                    alone.setdefault(name, {}).setdefault((lanes, threads), []).append(
                        run_tool("inproc", "--links", links[name], *what, "--seconds", seconds / 2,
                                 "--lanes", lanes, "--threads", threads)["rate"])
            with contextlib.ExitStack() as stack:
                running = {n: stack.enter_context(Load(
                    tcp(d), "/v1/infer/" + n, body, headers, 4, seconds=seconds))
                    for n, (body, headers, _) in jobs.items()}
                for n, r in running.items():
                    got = r.result()
                    served[n].append(got["rate"])
                    generators.append(got["cpu_us"] / got["seconds"] / 1e6)
    alone = {n: max(median(rates) for rates in of.values()) for n, of in alone.items()}
    shares = {n: median(served[n]) / alone[n] for n in jobs}
    bench.say("cores_alone", {n: round(r, 1) for n, r in alone.items()}, "in-process, each alone, best of settings, inferences/s")
    bench.say("cores_served", {n: round(median(r), 1) for n, r in served.items()}, "…served, all four at once")
    bench.say("cores_generators", round(4 * median(generators), 3), "…cores used by the four load generators")
    bench.say("cores_sum", round(sum(shares.values()), 3), "…sum of the shares (goal: at least 0.95)")


ALL = {"swap": measure_swap, "crash": measure_crash, "poison": measure_poison, "memory": measure_memory,
       "fairness": measure_fairness, "batching": measure_batching, "cores": measure_oversubscription}
