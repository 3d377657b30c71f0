"""The servers that are measured, each as its makers would have it for two threads.

A peer is started with everything it serves; for a model and a door it gives an Ask, or None where
it has no such door. `setting` is what the report says about how it was set up.
"""
import base64
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import measure  # noqa: E402
from doors import Ask, Region, floats, oip  # noqa: E402

VENV = os.path.join(measure.ROOT, "build", "peers")
SITE = os.path.join(VENV, "lib", "python3.11", "site-packages")
TRITON = os.path.join(SITE, "pytriton", "tritonserver")
SERVE = os.path.join(HERE, "serve")
OIP_DOORS = ("json", "binary", "grpc", "grpc-one", "memory", "memory-grpc")


def tree(pid):
    """A process and all that come from it."""
    found, at = [pid], 0
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open("/proc/%s/stat" % entry, encoding="utf-8") as f:
                    parents.setdefault(int(f.read().rsplit(")", 1)[1].split()[1]), []).append(int(entry))
            except OSError:
                continue
    while at < len(found):
        found += parents.get(found[at], [])
        at += 1
    return found


def request(to, method, path, body=None):
    host, port = to.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Peer:
    """A server that is a process tree or several."""

    name = setting = ""
    doors = OIP_DOORS

    def __init__(self, folder, models):
        self.folder = os.path.join(folder, self.name.replace(" ", "-").lower())
        os.makedirs(self.folder)
        self.models, self.model_files = models, os.path.join(folder, "models")
        self.processes, self.regions = {}, {}

    def spawn(self, key, command, **env):
        log = open(os.path.join(self.folder, key + ".log"), "wb")  # noqa: SIM115
        self.processes[key] = subprocess.Popen(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
            env={**os.environ, "PATH": VENV + "/bin:" + os.environ["PATH"], "BENCH_SERVE": SERVE,
                 "BENCH_MODELS": self.model_files, "PYTHONPATH": SERVE, "PYTHONDONTWRITEBYTECODE": "1",
                 **env})
        log.close()

    def ports(self, n):
        found = set()
        while len(found) < n:
            found.add(measure.harness.free_port())
        return sorted(found)

    def wait(self, to, path, key, seconds=60):
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if self.processes[key].poll() is not None:
                break
            try:
                if request(to, "GET", path)[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        with open(os.path.join(self.folder, key + ".log"), encoding="utf-8", errors="replace") as f:
            raise RuntimeError("%s (%s) does not start: %s" % (self.name, key, f.read()[-2000:]))

    def region(self, model, http_at):
        if model.name not in self.regions:
            region = self.regions[model.name] = Region(model, self.name.replace(" ", "-").lower())
            said = request(http_at, "POST", "/v2/systemsharedmemory/region/%s/register" % region.name,
                           json.dumps({"key": "/" + region.name, "offset": 0, "byte_size": region.bytes}))
            if said[0] != 200:
                raise RuntimeError("%s takes no region: %s" % (self.name, said))
        return self.regions[model.name]

    def pids(self):
        return [p for process in self.processes.values() for p in tree(process.pid)]

    def cpu_us(self):
        total = 0
        for pid in self.pids():
            try:
                total += measure.cpu_us(pid)
            except OSError:
                continue
        return total

    def close(self):
        for region in self.regions.values():
            region.close()
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                pass
            try:
                os.killpg(process.pid, signal.SIGKILL)  # a session of our own: workers that stayed
            except ProcessLookupError:
                pass


def has_engine(name):
    return os.path.exists(os.path.join(measure.harness.build_dir(), "lib", "xinfer",
                                       "libxinfer_engine_%s.so" % name))


class XInfer(Peer):
    """The engine is the peers', ONNX Runtime, where it was built."""

    name = "xInfer"
    engine = "onnxruntime" if has_engine("onnxruntime") else "openvino"
    setting = "two instances of one thread in %s; the identity is a copy, as the peers', in the reference engine" % engine

    def start(self):
        self.daemon = measure.Daemon().start()
        self.http = "127.0.0.1:%d" % self.daemon.port
        for name in self.models:
            said = self.daemon.cli("load", self.file_of(name), "--name", name, "--instances", "2", timeout=120)
            if said.rc != 0:
                raise RuntimeError(said)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def file_of(self, name):
        if name == "identity":
            return self.write("identity.xref",
                              "xref 1\ninput x FP32 [1,256]\noutput y FP32 [1,256]\ny = copy x\n")
        variant = {"id": self.engine, "files": ["variants/model.onnx"], "format": "onnx", "precision": "f32",
                   "engine": {"name": self.engine}}
        recipe = {"recipe": 1, "files": {"variants/model.onnx": {"file": name + ".onnx"}},
                  "manifest": {"xpkg": 1, "name": name, "version": "1.0.0", "license": "Apache-2.0",
                               "description": "a model of the benchmarks", "input": "tensors", "output": "tensors",
                               "models": {"main": {"variants": [variant]}}}}
        shutil.copy(os.path.join(self.model_files, name + ".onnx"), self.folder)
        package = os.path.join(self.folder, name + ".xpkg")
        said = measure.harness.run_program("xinfer", "pack", self.write(name + ".json", json.dumps(recipe)),
                                           "-o", package)
        if said.rc != 0:
            raise RuntimeError(said)
        return package

    def pids(self):
        return tree(self.daemon.pid)

    def ask(self, model, door):
        if door not in self.doors:
            return None
        region = self.region(model, self.http) if door.startswith("memory") else None
        return oip(model, door, model.name, self.http, self.http, region)

    def close(self):
        super().close()
        self.daemon.close()


class XInferOpenVino(XInfer):
    """The engine that xInfer takes for such models by itself, beside the peers'."""

    name, engine = "xInfer OpenVINO", "openvino"
    setting = "the same in OpenVINO"

    def ask(self, model, door):
        return super().ask(model, door) if model.name != "identity" else None


TRITON_TYPES = {"FP32": "TYPE_FP32", "UINT8": "TYPE_UINT8"}
CONFIG = """backend: "%s"
max_batch_size: 0
input [{ name: "x" data_type: %s dims: %s }]
output [{ name: "%s" data_type: TYPE_FP32 dims: %s }]
instance_group [{ count: 2 kind: KIND_CPU }]
"""


class Triton(Peer):
    """NVIDIA's tritonserver, as its package on PyPI brings it."""

    name, backend = "Triton Python", "python"
    setting = "the Python backend (the only one in the wheel), two instances"

    def lay_out(self, model):
        place = os.path.join(self.folder, "repository", model.name)
        os.makedirs(os.path.join(place, "1"))
        with open(os.path.join(place, "config.pbtxt"), "w", encoding="utf-8") as f:
            f.write(CONFIG % (self.backend, TRITON_TYPES[model.dtype], model.shape, model.output, model.out_shape))
        self.add_code(model, os.path.join(place, "1"))

    def add_code(self, model, place):
        shutil.copy(os.path.join(SERVE, "triton_model.py"), os.path.join(place, "model.py"))

    def lay_out_backend(self):
        """By links: its programs find their libraries relative to where they really lie."""
        place = os.path.join(self.folder, "backends", "python")
        os.makedirs(place)
        brought = os.path.join(TRITON, "backends", "python")
        stub = os.path.join(TRITON, "python_backend_stubs", "3.11", "triton_python_backend_stub")
        for path in [os.path.join(brought, n) for n in os.listdir(brought)] + [stub]:
            os.symlink(path, os.path.join(place, os.path.basename(path)))

    def start(self):
        for model in self.models.values():
            self.lay_out(model)
        self.lay_out_backend()
        http_port, grpc_port = self.ports(2)
        self.http, self.grpc = "127.0.0.1:%d" % http_port, "127.0.0.1:%d" % grpc_port
        self.spawn("server", [os.path.join(TRITON, "bin", "tritonserver"),
                              "--model-repository", os.path.join(self.folder, "repository"),
                              "--backend-directory", os.path.join(self.folder, "backends"),
                              "--http-address", "127.0.0.1", "--http-port", str(http_port),
                              "--grpc-address", "127.0.0.1", "--grpc-port", str(grpc_port),
                              "--allow-metrics", "false", "--log-info", "false"])
        self.wait(self.http, "/v2/health/ready", "server")

    def ask(self, model, door):
        region = self.region(model, self.http) if door.startswith("memory") else None
        return oip(model, door, model.name, self.http, self.grpc, region)


class TritonNative(Triton):
    name, backend = "Triton native", "native"
    setting = "a backend in C of ours (bench/peers/triton_backend.c), two instances of one thread"

    def add_code(self, model, place):
        if model.name != "identity":
            shutil.copy(os.path.join(self.model_files, model.name + ".onnx"), os.path.join(place, "model.onnx"))

    def lay_out_backend(self):
        place = os.path.join(self.folder, "backends", "native")
        os.makedirs(place)
        shutil.copy(measure.tool("libtriton_native.so"), place)


class MLServer(Peer):
    """Its workers help models that compute; for the identity they cost more than they bring."""

    name, doors = "MLServer", ("json", "grpc", "grpc-one")
    setting = "custom runtime on numpy; the classifier in two parallel workers, the identity in the server itself"

    def start(self):
        self.at = {}
        for name in self.models:
            place = os.path.join(self.folder, name)
            os.makedirs(place)
            http_port, grpc_port = self.ports(2)
            self.write(place, "settings.json", {
                "debug": False, "host": "127.0.0.1", "http_port": http_port, "grpc_port": grpc_port,
                "parallel_workers": 0 if name == "identity" else 2, "metrics_endpoint": None,
                "gzip_enabled": False, "grpc_max_message_length": 1 << 30})
            self.write(place, "model-settings.json", {"name": name, "implementation": "bench_mlserver.Runtime"})
            self.spawn(name, [VENV + "/bin/mlserver", "start", place])
            self.at[name] = "127.0.0.1:%d" % http_port, "127.0.0.1:%d" % grpc_port
        for name, (http_at, _) in self.at.items():
            self.wait(http_at, "/v2/models/%s/ready" % name, name)

    @staticmethod
    def write(folder, name, value):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            json.dump(value, f)

    def ask(self, model, door):
        if door not in self.doors or (door == "json" and model.values is None):
            return None
        return oip(model, door, model.name, *self.at[model.name], None)


class LitServe(Peer):
    """Its own interface: JSON both ways; tensors other than numbers in JSON go as base64."""

    name, doors = "LitServe", ("json", "binary")
    setting = "fast_queue, one API server, two workers; its HTTP takes no raw body, so binary is base64 in JSON"

    def start(self):
        self.at = {}
        for name in self.models:
            port, = self.ports(1)
            self.spawn(name, [VENV + "/bin/python", os.path.join(SERVE, "bench_litserve.py"), name, str(port),
                              "2", "1"])
            self.at[name] = "127.0.0.1:%d" % port
        for name, at in self.at.items():
            self.wait(at, "/health", name)

    def ask(self, model, door):
        if door not in self.doors or (door == "json" and model.values is None):
            return None
        body = {"data": model.values} if door == "json" else {"base64": base64.b64encode(model.tensor).decode()}
        return Ask(self.at[model.name], "/predict", json.dumps(body).encode(), ["Content-Type: application/json"],
                   read=lambda a: json.loads(a)["data"])


class Mosec(Peer):
    """Its own interface: bytes both ways; the HTTP side is in Rust."""

    name, doors = "Mosec", ("json", "binary")
    setting = "two workers; its own interface, raw bytes for binary"

    def start(self):
        self.at = {}
        for name in self.models:
            port, = self.ports(1)
            self.spawn(name, [VENV + "/bin/python", os.path.join(SERVE, "bench_mosec.py"), "--address", "127.0.0.1",
                              "--port", str(port), "--log-level", "error", "--max-request-size", str(1 << 30),
                              "--path", os.path.join(self.folder, name + ".sock")],
                       BENCH_MODEL=name, BENCH_WORKERS="2")
            self.at[name] = "127.0.0.1:%d" % port
        for name, at in self.at.items():
            self.wait(at, "/metrics", name)

    def ask(self, model, door):
        if door not in self.doors or (door == "json" and model.values is None):
            return None
        if door == "json":
            return Ask(self.at[model.name], "/inference", json.dumps({"data": model.values}).encode(),
                       read=lambda a: json.loads(a)["data"])
        return Ask(self.at[model.name], "/inference", model.tensor, read=lambda a: floats(a, model.count_out()))


OURS = (XInfer, XInferOpenVino) if XInfer.engine != XInferOpenVino.engine else (XInfer,)
PEERS = (Triton, TritonNative, MLServer, LitServe, Mosec)
