"""What the benchmarks share: the load generator, CPU time of processes, paired ratios, the machine."""
import json
import os
import platform
import statistics
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))

import daemon as harness  # noqa: E402  (the tests' private xinferd)

TICKS = os.sysconf("SC_CLK_TCK")


def tool(name):
    return os.path.join(harness.build_dir(), "bench", name)


def machine():
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "kernel": platform.release()}


def cpu_us(pid):
    """User and system time of a process so far, in µs (resolution: one tick, 10 ms)."""
    with open("/proc/%d/stat" % pid, encoding="utf-8") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000000 // TICKS


def schedstat_us(pid):
    """CPU time of all threads of a process in µs, to the nanosecond the scheduler counts."""
    total = 0
    for tid in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/schedstat" % (pid, tid), encoding="utf-8") as f:
            total += int(f.read().split()[0])
    return total / 1000.0


def children(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open("/proc/%s/stat" % entry, encoding="utf-8") as f:
                    if int(f.read().rsplit(")", 1)[1].split()[1]) == pid:
                        found.append(int(entry))
            except (OSError, ValueError):
                continue
    return found


class Daemon(harness.Daemon):
    """A private xinferd for the length of a with block."""

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()


class Meter:
    """CPU time of a daemon and its hosts over a stretch of work."""

    def __init__(self, pid):
        self.pids = [pid, *children(pid)]
        self.start = [schedstat_us(p) for p in self.pids]

    def used_us(self):
        return sum(schedstat_us(p) - s for p, s in zip(self.pids, self.start))


def load_command(to, path, body=None, headers=(), connections=4, seconds=5.0, warm=0.3, rate=0.0,
                 expect=(), record=None, protocol="http1", streams=1, answer=None):
    command = [tool("load"), "--to", to, "--path", path, "--connections", str(connections),
               "--seconds", str(seconds), "--warm", str(warm), "--rate", str(rate),
               "--protocol", protocol, "--streams", str(streams)]
    for flag, value in (("--body", body), ("--record", record), ("--answer", answer)):
        command += [flag, value] if value else []
    for h in headers:
        command += ["--header", h]
    for e in expect:
        command += ["--expect", e]
    return command


def load(to, path, *args, **kw):
    """Loads to the end; any error of the load or of an answer is one of the benchmark."""
    with Load(to, path, *args, **kw) as running:
        result = running.result()
    if result["errors"] or not result["requests"]:
        raise RuntimeError("%s: %d answers, by status %s" % (path, result["requests"], result["status"]))
    return result


class Load:
    """The load generator beside what a benchmark does. Ends with its with block."""

    def __init__(self, *args, **kw):
        self.seconds = kw.get("seconds", 5.0)
        self.process = subprocess.Popen(load_command(*args, **kw), stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def result(self):
        """Waits for its end."""
        out, err = self.process.communicate(timeout=self.seconds * 3 + 60)
        if self.process.returncode != 0:
            raise RuntimeError(err)
        return json.loads(out)


def answer(to, path, *args, **kw):
    """Asks once and gives the body of the answer (gRPC: its message)."""
    with tempfile.TemporaryDirectory(prefix="xinfer-bench-") as folder:
        kept = os.path.join(folder, "answer")
        load(to, path, *args, answer=kept, **kw)
        with open(kept, "rb") as f:
            return f.read()


class Samples:
    """What --record wrote: each request's due time, latency, status and how its answer ended."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.all = list(struct.iter_unpack("<QIHH", f.read()))

    def bad(self):
        return [s for s in self.all if s[3] == 255]

    def split(self, windows):
        """Latencies of right answers, in µs: those due inside any window (ns, sorted), the others."""
        inside, outside, at = [], [], 0
        for due, latency, _, expected in sorted(self.all):
            while at < len(windows) and windows[at][1] <= due:
                at += 1
            within = at < len(windows) and windows[at][0] <= due
            if expected != 255:
                (inside if within else outside).append(latency / 1000)
        return inside, outside


def quantile(values, q):
    return sorted(values)[int((len(values) - 1) * q)] if values else float("nan")


def run_tool(name, *args, timeout=120):
    done = subprocess.run([tool(name), *map(str, args)], capture_output=True, text=True,
                          check=True, timeout=timeout)
    return json.loads(done.stdout.strip().splitlines()[-1])


def median(values):
    return statistics.median(values)


def spread(values):
    return "%.3g (%.3g to %.3g)" % (median(values), min(values), max(values))


def metric(daemon, name, **labels):
    """Sum of a metric's samples whose labels agree."""
    total = 0.0
    for line in daemon.get("/metrics").body.decode().splitlines():
        if not line.startswith(name) or line[len(name)] not in "{ ":
            continue
        if all('%s="%s"' % (k, v) in line for k, v in labels.items()):
            total += float(line.rsplit(" ", 1)[1])
    return total
