"""What the benchmarks share: the load generator, CPU time of processes, paired ratios, the machine."""
import json
import os
import platform
import statistics
import subprocess
import sys

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


def load(to, path, body=None, headers=(), connections=4, seconds=5.0, warm=0.3):
    command = [tool("load"), "--to", to, "--path", path, "--connections", str(connections),
               "--seconds", str(seconds), "--warm", str(warm)]
    if body:
        command += ["--body", body]
    for h in headers:
        command += ["--header", h]
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          timeout=seconds * 3 + 60)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    result = json.loads(done.stdout)
    if result["errors"] or not result["requests"]:
        raise RuntimeError("load on %s: %s" % (path, result))
    return result


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
