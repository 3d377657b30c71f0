"""perf_analyzer, unchanged, against xInfer: that it works, and what it says. It takes both cores for
itself, so its figures are printed and not judged."""
import os
import re
import stat
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import measure  # noqa: E402

PEERS = os.path.join(measure.ROOT, "build", "deps", "peers")
PROGRAM = os.path.join(PEERS, "perf-analyzer", "perf_analyzer")
DOORS = {"HTTP": ["-i", "http"], "gRPC": ["-i", "grpc"],
         "HTTP, shared memory": ["-i", "http", "--shared-memory", "system", "--output-shared-memory-size", "4096"],
         "gRPC, shared memory": ["-i", "grpc", "--shared-memory", "system", "--output-shared-memory-size", "4096"]}
SAID = re.compile(r"^Concurrency: (\d+), throughput: ([\d.]+) infer/sec, latency ([\d.]+) usec", re.MULTILINE)


def analyze(at, more, seconds):
    os.chmod(PROGRAM, os.stat(PROGRAM).st_mode | stat.S_IXUSR)
    command = [PROGRAM, "-m", "identity", "-u", at, "--concurrency-range", "8",
               "--measurement-interval", str(int(seconds * 1000)), "--stability-percentage", "100", *more]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False,
                              env={**os.environ, "LD_LIBRARY_PATH": os.path.join(PEERS, "cudart")})
    except subprocess.TimeoutExpired:
        return {"failed": "no figures within a minute"}
    found = SAID.search(done.stdout)
    if done.returncode != 0 or found is None:
        return {"failed": (done.stderr or done.stdout).strip()[-300:]}
    return {"concurrency": int(found[1]), "rate": float(found[2]), "latency_us": float(found[3])}


def figures(http, grpc, seconds):
    return {door: analyze(grpc if "grpc" in more else http, more, seconds) for door, more in DOORS.items()}
