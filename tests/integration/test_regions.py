"""Shared memory that clients own: the protocol's own client registers and uses it, and what a hostile
one tries. What a model answers is computed here from its definition."""
import contextlib
import hashlib
import json
import os
import secrets

import pytest
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
