"""Shared memory that clients own: the protocol's own client registers and uses it, and what a hostile
one tries. What a model answers is computed here from its definition."""
import concurrent.futures
import contextlib
import hashlib
import json
import os
import secrets
import struct
import threading
import time

import models
import numpy
import pytest
from daemon import wait_for
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as shm

PAGE = 4096


@pytest.fixture
def client(daemon):
    with contextlib.closing(triton.InferenceServerClient("127.0.0.1:%d" % daemon.port)) as c:
        yield c


@pytest.fixture
def memory():
    """memory(bytes): (key, handle) of shared memory of our own."""
    made = []

    def make(size):
        key = "/xi-%s" % secrets.token_hex(8)
        made.append(shm.create_shared_memory_region("made", key, size))
        return key, made[-1]

    yield make
    for handle in made:
        with contextlib.suppress(KeyError):  # the test removed it
            shm.destroy_shared_memory_region(handle)


def path_of(key):
    return "/dev/shm" + key


def problem(call, *args, **kw):
    with pytest.raises(InferenceServerException) as caught:
        call(*args, **kw)
    return caught.value


# ---- registering ----

def test_what_is_registered_is_told_until_it_is_unregistered(client, memory):
    key, _ = memory(2 * PAGE)
    assert client.get_system_shared_memory_status() == []
    client.register_system_shared_memory("input data:0", key, 2 * PAGE)
    client.register_system_shared_memory("second", key, 100, offset=50)
    first = {"name": "input data:0", "key": key, "offset": 0, "byte_size": 2 * PAGE}
    second = {"name": "second", "key": key, "offset": 50, "byte_size": 100}
    told = client.get_system_shared_memory_status()
    assert sorted(told, key=lambda r: r["name"]) == [first, second]
    assert client.get_system_shared_memory_status("second") == [second]
    assert "third" in str(problem(client.get_system_shared_memory_status, "third"))
    assert "already" in str(problem(client.register_system_shared_memory, "second", key, 1))
    client.unregister_system_shared_memory("second")
    client.unregister_system_shared_memory("second")  # the protocol says that this is fine
    assert client.get_system_shared_memory_status() == [first]
    client.unregister_system_shared_memory()
    assert client.get_system_shared_memory_status() == []


def test_cudas_memory_is_not_offered_and_nothing_is_registered_there(client):
    assert client.get_cuda_shared_memory_status() == []
    client.unregister_cuda_shared_memory()  # perf_analyzer does this, whatever it uses
    client.unregister_cuda_shared_memory("x")
    assert "CUDA" in str(problem(client.register_cuda_shared_memory, "x", b"handle", 0, 64))


def register(daemon, name, **body):
    return daemon.post("/v2/systemsharedmemory/region/%s/register" % name, body)


def test_what_is_no_region_is_refused(daemon, memory):
    key, _ = memory(PAGE)

    def refused(status, name="x", **body):
        said = register(daemon, name, **{"key": key, "byte_size": 8, **body})
        assert said.status == status, (name, body, said)
        assert "/dev/shm" not in said.body.decode()

    for offset, size in ((0, PAGE + 1), (PAGE, 1), (1, PAGE), (2 ** 63 - 1, 2), (2 ** 62, 2 ** 35)):
        refused(400, offset=offset, byte_size=size)
    refused(413, byte_size=2 ** 40)
    for body in ({"offset": -1}, {"byte_size": 0}, {"byte_size": -8}, {"byte_size": 2 ** 64 - 1},
                 {"byte_size": "8"}, {"byte_size": 1.5}, {"key": 7}, {"key": None}, {"keys": key}):
        refused(400, **body)
    for wrong in ("", "/", "..", "../shm" + key, "/dev/shm" + key, "sem.x", "a\x00b", "a\nb", "k" * 300):
        refused(400, key=wrong)
    refused(404, key="/xi-nonesuch")
    refused(400, "%00")
    refused(400, "a%2Fb")
    refused(400, "n" * 129)
    refused(404, "a/b")

    # What else can have a name there.
    for make in (lambda p: os.symlink(path_of(key), p), os.mkfifo, os.mkdir,
                 lambda p: os.symlink("/etc/passwd", p)):
        name = "/xi-%s" % secrets.token_hex(8)
        make(path_of(name))
        try:
            refused(400, key=name)
        finally:
            (os.rmdir if os.path.isdir(path_of(name)) else os.unlink)(path_of(name))
    assert daemon.get("/v2/systemsharedmemory/status").json() == []
    assert register(daemon, "x", key=key, byte_size=PAGE).status == 200


@pytest.fixture
def shared(new_daemon, tmp_path):
    """A daemon whose tokens are infer and others of two tenants."""
    tokens = tmp_path / "tokens"
    with os.fdopen(os.open(tokens, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
        for tenant in ("acme", "bond"):
            f.write("%s %s infer\n" % (hashlib.sha256(tenant.encode()).hexdigest(), tenant))
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"token_file": str(tokens)}))
    return new_daemon("--config", config).start(ready=False)


def test_a_tenants_regions_are_its_own(shared, memory):
    key, _ = memory(PAGE)
    acme, bond = ({"Authorization": "Bearer " + t} for t in ("acme", "bond"))
    where = "/v2/systemsharedmemory/region/x/"
    body = {"key": key, "byte_size": PAGE}
    assert shared.post(where + "register", body).status == 401
    assert shared.post(where + "register", body, headers=acme).status == 200
    assert shared.get("/v2/systemsharedmemory/status", headers=bond).json() == []
    assert shared.get(where + "status", headers=bond).status == 404
    said = shared.post(where + "register", body, headers=bond)
    assert said.status == 403 and b"acme" not in said.body and key.encode() not in said.body
    assert shared.post(where + "unregister", headers=bond).status == 200
    assert shared.post("/v2/systemsharedmemory/unregister", headers=bond).status == 200
    assert len(shared.get("/v2/systemsharedmemory/status", headers=acme).json()) == 1


def test_a_client_that_died_holding_all_it_may_leaves_room(daemon, memory):
    key, handle = memory(PAGE)
    fds = daemon.open_fds()
    for i in range(1024):
        assert register(daemon, "r%d" % i, key=key, byte_size=PAGE).status == 200
    said = register(daemon, "more", key=key, byte_size=PAGE)
    assert (said.status, said.json()["code"]) == (429, "XI-0503")
    shm.destroy_shared_memory_region(handle)
    key, _ = memory(PAGE)
    assert register(daemon, "more", key=key, byte_size=PAGE).status == 200
    assert [r["name"] for r in daemon.get("/v2/systemsharedmemory/status").json()] == ["more"]
    daemon.post("/v2/systemsharedmemory/unregister")
    assert daemon.open_fds() <= fds + 2


# ---- inference ----

class Memory:
    """Shared memory that is registered as the region `name`, to be cut and looked at."""

    def __init__(self, daemon, name, key, size):
        self.daemon, self.name, self.key, self.size = daemon, name, key, size
        self.fd = os.open(path_of(key), os.O_RDWR)
        assert register(daemon, name, key=key, byte_size=size).status == 200

    def put(self, data, at=0):
        os.pwrite(self.fd, data, at)

    def get(self, size, at=0):
        return os.pread(self.fd, size, at)

    def cut(self, size):
        os.ftruncate(self.fd, size)

    def place(self, at, size):
        return {"shared_memory_region": self.name, "shared_memory_offset": at,
                "shared_memory_byte_size": size}


@pytest.fixture
def region(daemon, memory):
    made = []

    def make(name, size):
        made.append(Memory(daemon, name, memory(size)[0], size))
        return made[-1]

    yield make
    for m in made:
        os.close(m.fd)


def load(daemon, tmp_path, name, text, *options):
    said = daemon.cli("load", models.write(tmp_path, name, text), "--name", name, *options)
    assert said.rc == 0, said


def infer(daemon, model, inputs, outputs=()):
    """inputs: (name, dtype, shape, parameters or data); outputs: (name, parameters)."""
    return daemon.post("/v1/infer/" + model, {
        "inputs": [{"name": n, "datatype": t, "shape": s,
                    ("parameters" if isinstance(v, dict) else "data"): v} for n, t, s, v in inputs],
        "outputs": [{"name": n, "parameters": p} for n, p in outputs]})


def wide(n, line="t = mul x 2\ny = add t 1\n"):
    return "xref 1\ninput x FP32 [1,%d]\noutput y FP32 [1,%d]\n%s" % (n, n, line)


def refused(said, status, code):
    assert (said.status, said.json()["code"]) == (status, code), said
    return said.json()


def copied(daemon):
    lines = daemon.get("/metrics").body.decode().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("xinfer_copied_bytes_total"))


def test_tensors_are_read_and_written_where_they_lie(daemon, region, tmp_path):
    n = 65536
    load(daemon, tmp_path, "wide", wide(n))
    r = region("io", 8 * n + 200)
    values = [float(i % 1000) for i in range(n)]
    wanted = struct.pack("<%df" % n, *[2 * v + 1 for v in values])
    for at, out, in_place in ((0, 4 * n, True), (200, 4 * n + 200, True), (3, 4 * n + 9, False)):
        r.put(b"\xff" * r.size)
        r.put(models.floats(*values), at)
        before = copied(daemon)
        said = infer(daemon, "wide", [("x", "FP32", [1, n], r.place(at, 4 * n))],
                     [("y", r.place(out, 4 * n))])
        assert said.status == 200, said
        (y,) = said.json()["outputs"]
        assert (y["name"], y["shape"], "data" in y) == ("y", [1, n], False)
        assert y["parameters"] == r.place(out, 4 * n)
        assert r.get(4 * n, out) == wanted
        assert r.get(4 * n, at) == models.floats(*values)
        moved = copied(daemon) - before  # the request's own text counts, too
        assert moved < 1000 if in_place else 8 * n <= moved < 8 * n + 1000
    # A region on one side only, and both kinds of it at once.
    said = infer(daemon, "wide", [("x", "FP32", [1, n], r.place(3, 4 * n))])
    assert said.json()["outputs"][0]["data"][:4] == [1, 3, 5, 7]
    said = infer(daemon, "wide", [("x", "FP32", [1, n], values)], [("y", r.place(0, 4 * n))])
    assert said.status == 200 and r.get(4 * n) == wanted


MANY = """xref 1
input b BYTES [-1]
input i INT64 [-1]
input f FP32 [-1]
output bo BYTES [-1]
output io INT64 [-1]
output fo FP32 [-1]
bo = copy b
io = copy i
fo = add f 1
"""


def test_texts_and_indexes_too_and_beside_others(daemon, region, tmp_path):
    load(daemon, tmp_path, "many", MANY)
    r = region("io", 4 * PAGE)
    texts = b"".join(struct.pack("<I", len(t)) + t for t in (b"", b"hello", "\u00fc".encode()))
    numbers = struct.pack("<3q", -1, 0, 2 ** 62)
    r.put(texts, 1)
    r.put(numbers, 100)
    r.put(models.floats(1.5, -2), PAGE)
    inputs = [("b", "BYTES", [3], r.place(1, len(texts))), ("i", "INT64", [3], r.place(100, 24)),
              ("f", "FP32", [2], r.place(PAGE, 8))]
    said = infer(daemon, "many", inputs, [("bo", r.place(2 * PAGE, 100)), ("io", r.place(3 * PAGE, 24)),
                                          ("fo", {})])
    assert said.status == 200, said
    by_name = {o["name"]: o for o in said.json()["outputs"]}
    assert by_name["bo"]["parameters"]["shared_memory_byte_size"] == len(texts)
    assert r.get(len(texts), 2 * PAGE) == texts and r.get(24, 3 * PAGE) == numbers
    assert by_name["fo"]["data"] == [2.5, -1]

    # Texts whose lengths do not add up are refused before an engine sees them.
    for wrong in (b"\xff\xff\xff\x7f", struct.pack("<I", 6) + b"hello", b"\0\0"):
        r.put(wrong, 1)
        refused(infer(daemon, "many", [("b", "BYTES", [1], r.place(1, len(wrong))), *inputs[1:]]),
                400, "XI-0102")


def test_what_is_no_part_of_a_region_is_refused(daemon, region, tmp_path):
    load(daemon, tmp_path, "double", models.DOUBLE)
    r = region("io", PAGE)
    r.put(models.floats(1, 2, 3, 4))

    def ask(place, out=None):
        return infer(daemon, "double", [("x", "FP32", [1, 4], place)], [("y", out or {})])

    assert ask(r.place(0, 16), r.place(PAGE - 16, 16)).status == 200
    for at in (PAGE - 15, PAGE, 2 ** 62, 2 ** 64 - 1, 2 ** 64 - 16):
        refused(ask(r.place(at, 16)), 400, "XI-0111")
        refused(ask(r.place(0, 16), r.place(at, 16)), 400, "XI-0111")
    for size in (0, 15, 17, 2 ** 64 - 1):
        refused(ask(r.place(0, size)), 400, "XI-0102")
    refused(ask(r.place(0, 16), r.place(0, 2 ** 64 - 1)), 400, "XI-0111")
    refused(ask(r.place(0, 16), r.place(32, 15)), 400, "XI-0111")  # no room for the output
    assert r.get(16, 32) == bytes(16)
    said = refused(ask({**r.place(0, 16), "shared_memory_region": "other"}), 404, "XI-0201")
    assert "other" in json.dumps(said)
    assert ask(r.place(0, 16)).json()["outputs"][0]["data"] == [3, 5, 7, 9]


def test_a_region_that_is_cut_ends_the_requests_that_use_it_alone(daemon, region, tmp_path):
    """Abuse 13: before a request, and while a model runs, whose host then goes on."""
    n = 64 * 1024
    slow = wide(n, "y = add x 1\nfault delay-ms 400\n")
    load(daemon, tmp_path, "slow", slow, "--instances", "2")
    hosts = daemon.hosts()
    r, other = region("r", 8 * n), region("other", 8 * n)
    r.put(models.floats(*[1.0] * n))
    other.put(models.floats(*[2.0] * n))

    def ask(m):
        return infer(daemon, "slow", [("x", "FP32", [1, n], m.place(0, 4 * n))],
                     [("y", m.place(4 * n, 4 * n))])

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for size in (4 * PAGE, 0):
            mine, theirs = pool.submit(ask, r), pool.submit(ask, other)
            time.sleep(0.2)
            r.cut(size)
            said = refused(mine.result(), 400, "XI-0111")
            assert "shorter" in said.get("error", said.get("detail"))
            assert theirs.result().status == 200
            assert other.get(4 * n, 4 * n) == models.floats(*[3.0] * n)
            refused(ask(r), 400, "XI-0111")  # known beforehand now
            r.cut(8 * n)
            r.put(models.floats(*[5.0] * n))
            assert ask(r).status == 200  # whole again
            assert r.get(4 * n, 4 * n) == models.floats(*[6.0] * n)
    assert daemon.hosts() == hosts


BATCHED = "xref 1\ninput x FP32 [-1,4]\noutput y FP32 [-1,4]\ny = add x 1\nfault delay-ms 300\n"


def quarter(daemon, m):
    return infer(daemon, "slow", [("x", "FP32", [1, 4], m.place(0, 16))], [("y", m.place(16, 16))])


def test_a_region_that_is_cut_ends_one_request_of_its_batch(daemon, region, tmp_path):
    load(daemon, tmp_path, "slow", BATCHED, "--max-batch", "4", "--instances", "1")
    hosts = daemon.hosts()
    made = [region("r%d" % i, PAGE) for i in range(4)]
    for i, m in enumerate(made):
        m.put(models.floats(*[float(i)] * 4))
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        first = pool.submit(quarter, daemon, made[0])
        time.sleep(0.1)
        answers = [pool.submit(quarter, daemon, m) for m in made]  # these share the next run
        time.sleep(0.1)
        made[2].cut(0)
        assert first.result().status == 200
        refused(answers.pop(2).result(), 400, "XI-0111")
        assert [a.result().status for a in answers] == [200] * 3
    for i in (0, 1, 3):
        assert made[i].get(16, 16) == models.floats(*[i + 1.0] * 4)
    assert daemon.hosts() == hosts


def test_what_runs_keeps_its_region_when_it_is_unregistered(daemon, region, tmp_path):
    """Abuse 17: in a batch with another client's."""
    load(daemon, tmp_path, "slow", BATCHED, "--max-batch", "4", "--instances", "1")
    made = [region("r%d" % i, PAGE) for i in range(4)]
    for i, m in enumerate(made):
        m.put(models.floats(*[float(i)] * 4))
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(quarter, daemon, m) for m in [made[0], *made]]  # the first one runs, four wait
        time.sleep(0.1)
        daemon.post("/v2/systemsharedmemory/unregister")
        for answer in answers:
            assert answer.result().status == 200
    for i, m in enumerate(made):
        assert m.get(16, 16) == models.floats(*[i + 1.0] * 4)
    refused(quarter(daemon, made[0]), 404, "XI-0201")


def test_inputs_that_change_while_they_are_read_harm_nobody(daemon, region, tmp_path):
    """Abuse 15: lengths of texts and a tensor are rewritten all the time."""
    load(daemon, tmp_path, "many", MANY)
    hosts = daemon.hosts()
    r = region("io", 2 * PAGE)
    good = struct.pack("<I", 996) + b"a" * 996
    over = threading.Event()

    def rewrite():
        while not over.is_set():
            r.put(struct.pack("<I", 2 ** 31))
            r.put(os.urandom(64), PAGE)
            r.put(good[:4])

    r.put(good)
    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        seen = set()
        for _ in range(100):
            said = infer(daemon, "many", [("b", "BYTES", [1], r.place(0, 1000)),
                                          ("i", "INT64", [8], r.place(PAGE, 64)),
                                          ("f", "FP32", [16], r.place(PAGE, 64))],
                         [("bo", {"binary_data": True})])
            seen.add(said.status)
            if said.status == 200:
                assert said.body.endswith(good)
            else:
                refused(said, 400, "XI-0102")
    finally:
        over.set()
        thread.join()
    assert 200 in seen and daemon.hosts() == hosts


def test_holes_read_as_zeros(daemon, region, tmp_path):
    load(daemon, tmp_path, "double", models.DOUBLE)
    r = region("io", 4 * PAGE)
    r.cut(0)
    r.cut(4 * PAGE)
    said = infer(daemon, "double", [("x", "FP32", [1, 4], r.place(PAGE, 16))],
                 [("y", r.place(2 * PAGE, 16))])
    assert said.status == 200 and r.get(16, 2 * PAGE) == models.floats(1, 1, 1, 1)


def test_a_host_that_dies_loses_no_region(daemon, region, tmp_path):
    """The request is tried again in a new host, which is shown the region."""
    n = 4096
    load(daemon, tmp_path, "slow", wide(n, "y = add x 1\nfault delay-ms 400\n"))
    r = region("io", 8 * n)
    r.put(models.floats(*[1.0] * n))
    (host,) = daemon.hosts()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        said = pool.submit(infer, daemon, "slow", [("x", "FP32", [1, n], r.place(0, 4 * n))],
                           [("y", r.place(4 * n, 4 * n))])
        time.sleep(0.2)
        os.kill(host, 9)
        assert said.result().status == 200, said.result()
    assert r.get(4 * n, 4 * n) == models.floats(*[2.0] * n)
    wait_for(lambda: host not in daemon.hosts(), 5, "the dead host to go")


# ---- with the protocol's own client ----

DOORS = {"grpc": triton_grpc}


@pytest.fixture(params=sorted(DOORS))
def door(request, daemon):
    """(the client's module, a client of it)"""
    module = DOORS[request.param]
    with contextlib.closing(module.InferenceServerClient("127.0.0.1:%d" % daemon.port)) as c:
        yield module, c


def test_tritonclient_infers_from_and_into_its_memory(daemon, door, memory, tmp_path):
    module, client = door
    n = 100000
    load(daemon, tmp_path, "wide", wide(n))
    key, handle = memory(8 * n)
    client.register_system_shared_memory("io", key, 8 * n)
    x = module.InferInput("x", [1, n], "FP32")
    x.set_shared_memory("io", 4 * n)
    y = module.InferRequestedOutput("y")
    y.set_shared_memory("io", 4 * n, offset=4 * n)
    for first in (0, 7):
        values = numpy.arange(first, first + n, dtype=numpy.float32)
        shm.set_shared_memory_region(handle, [values])
        client.infer("wide", [x], outputs=[y])
        got = shm.get_contents_as_numpy(handle, numpy.float32, [n], offset=4 * n)
        assert (got == 2 * values + 1).all()
    # The answer itself, without a region.
    assert (client.infer("wide", [x]).as_numpy("y") == 2 * values + 1).all()
    # Cut by its owner, then whole again.
    os.truncate(path_of(key), PAGE)
    assert "io" in str(problem(client.infer, "wide", [x], outputs=[y]))
    os.truncate(path_of(key), 8 * n)
    shm.set_shared_memory_region(handle, [values])
    client.infer("wide", [x], outputs=[y])
    client.unregister_system_shared_memory("io")
    assert "io" in str(problem(client.infer, "wide", [x], outputs=[y]))


def test_tritonclients_texts(daemon, door, memory, tmp_path):
    module, client = door
    load(daemon, tmp_path, "texts", "xref 1\ninput x BYTES [-1]\noutput y BYTES [-1]\ny = copy x\n")
    words = numpy.array([b"", b"hello", "\u00fc".encode()], dtype=object)
    raw = b"".join(struct.pack("<I", len(w)) + w for w in words)
    key, handle = memory(PAGE)
    client.register_system_shared_memory("io", key, PAGE)
    shm.set_shared_memory_region(handle, [numpy.frombuffer(raw, dtype=numpy.uint8)])
    x = module.InferInput("x", [3], "BYTES")
    x.set_shared_memory("io", len(raw))
    y = module.InferRequestedOutput("y")
    y.set_shared_memory("io", 100, offset=1000)
    client.infer("texts", [x], outputs=[y])
    assert bytes(shm.get_contents_as_numpy(handle, numpy.uint8, [len(raw)], offset=1000)) == raw
    assert list(client.infer("texts", [x]).as_numpy("y")) == list(words)


def test_tritonclient_mixes_regions_with_what_it_sends(daemon, door, memory, tmp_path):
    module, client = door
    load(daemon, tmp_path, "many", MANY)
    key, handle = memory(PAGE)
    client.register_system_shared_memory("io", key, PAGE)
    numbers = numpy.array([-1, 2 ** 62], dtype=numpy.int64)
    shm.set_shared_memory_region(handle, [numbers])
    b, i, f = (module.InferInput(*a) for a in (("b", [1], "BYTES"), ("i", [2], "INT64"), ("f", [3], "FP32")))
    b.set_data_from_numpy(numpy.array([b"hello"], dtype=object))
    i.set_shared_memory("io", 16)  # this one is copied, the others come behind the request
    f.set_data_from_numpy(numpy.array([1, 2.5, -3], dtype=numpy.float32))
    answer = client.infer("many", [b, i, f])
    assert list(answer.as_numpy("bo")) == [b"hello"]
    assert (answer.as_numpy("io") == numbers).all()
    assert list(answer.as_numpy("fo")) == [2, 3.5, -2]
