"""Bad clients: whatever comes over the socket, the daemon stays, other requests are served, nothing is
left behind, and the answer says what was wrong."""
import json
import os
import re
import socket
import struct
import subprocess
import threading
import time

import pytest

import models
from daemon import Daemon, UnixConnection, is_sanitized, wait_for
from models import ask, floats, numbers

pytestmark = pytest.mark.tsan
HEAD = b"POST /v1/infer/double HTTP/1.1\r\nHost: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
RAW = b"Content-Type: application/octet-stream\r\n"
TENSOR = RAW + b"Xinfer-Dtype: FP32\r\nXinfer-Shape: 1,4\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    d = Daemon().start()
    said = d.cli("load", models.write(tmp_path_factory.mktemp("models"), "double"))
    assert said.rc == 0, said
    yield d
    d.close()


@pytest.fixture(autouse=True)
def unharmed(server):
    """After each test the model answers, and no input memory is held."""
    yield
    assert numbers(ask(server, "double", 1, 2, 3, 4)) == [3, 5, 7, 9]
    wait_for(lambda: metric(server, "xinfer_input_memory_used_bytes") == 0, 10, "memory to come back")


def metric(server, name):
    text = server.get("/metrics").body.decode()
    return float(re.search(r"^%s(?:\{[^}]*\})? (\S+)$" % name, text, re.M).group(1))


def connect(server, timeout=20):
    s = socket.create_connection(("127.0.0.1", server.port), timeout=timeout)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def read_answer(s):
    """(status, headers, body) of one answer; status 0 when the connection just ended."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = s.recv(65536)
        if not piece:
            return 0, {}, data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
    while len(body) < int(headers.get("content-length", 0)):
        piece = s.recv(65536)
        if not piece:
            break
        body += piece
    return int(lines[0].split()[1]), headers, body


def say(server, *pieces, timeout=20):
    """Sends the pieces, each by itself, and reads one answer. A server may close while we send."""
    with connect(server, timeout) as s:
        try:
            for piece in pieces:
                s.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            return read_answer(s)
        except ConnectionResetError:
            return 0, {}, b""


def code(answer):
    status, headers, body = answer
    assert headers.get("content-type") == "application/problem+json", answer
    document = json.loads(body)
    assert document["status"] == status and document["detail"], answer
    return document["code"]


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def door(request):
    """What the bad thing comes through; the good ones beside it come through the other one, too."""
    return request.param


def send(server, door, lines, body):
    """One inference with these header lines: (status, headers, body)."""
    if door == "HTTP/1.1":
        return say(server, HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(body), body)
    done = subprocess.run(
        ["curl", "-sS", "-i", "--max-time", "60", "--http2-prior-knowledge", "--data-binary", "@-",
         *(word for line in lines.decode().split("\r\n") if line
           # the way in which curl says that a header is there and empty
           for word in ("-H", line.rstrip(": ") + ";" if line.endswith(": ") else line)),
         server.url + "/v1/infer/double"], input=body, capture_output=True, timeout=90, check=False)
    head, _, answer = done.stdout.partition(b"\r\n\r\n")
    status, *rest = head.decode("latin-1").split("\r\n")
    assert status.startswith("HTTP/2 "), done
    return int(status.split()[1]), dict(line.split(": ", 1) for line in rest), answer


def infer_json(server, document, door="HTTP/1.1"):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return send(server, door, JSON, body)


# 1: chunks

@pytest.mark.parametrize("rows", [2000, pytest.param(190000, marks=pytest.mark.release)])
def test_a_body_in_tiny_chunks_is_taken(server, rows):
    """The larger one has 3 MB in 870,000 chunks."""
    body = floats(*range(4 * rows))
    wire = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in
                    (body[i:i + 1 + i % 6] for i in chunk_starts(len(body))))
    status, _, answer = say(server, HEAD + RAW + b"Xinfer-Dtype: FP32\r\nXinfer-Shape: %d,4\r\n"
                            b"Transfer-Encoding: chunked\r\n\r\n" % rows, wire + b"0\r\n\r\n")
    assert status == 200, answer
    assert json.loads(answer)["outputs"][0]["data"][:3] == [1, 3, 5]


def chunk_starts(n):
    at = 0
    while at < n:
        yield at
        at += 1 + at % 6


def test_100k_chunks(server):
    wire = b"10\r\n" + b"x" * 16 + b"\r\n"
    status, _, _ = say(server, HEAD + TENSOR + b"Transfer-Encoding: chunked\r\n\r\n",
                       wire * 100000 + b"0\r\n\r\n", timeout=60)
    assert status == 400  # 1.6 MB where the shape needs 16 bytes


@pytest.mark.parametrize("chunk", [b"ffffffffffffffff\r\n", b"10000000000000000\r\n", b"-1\r\n",
                                   b"0x10\r\n", b"7fffffffffffffff\r\n", b"0" * 100000,
                                   b"1;" + b"e" * 100000])
def test_chunk_sizes_that_lie(server, chunk):
    answer = say(server, HEAD + TENSOR + b"Transfer-Encoding: chunked\r\n\r\n", chunk)
    assert answer[0] in (400, 413), answer
    assert code(answer) in ("XI-0109", "XI-0107")


def test_a_flood_of_trailers(server):
    flood = b"".join(b"T%d: %s\r\n" % (i, b"x" * 100) for i in range(10000))
    answer = say(server, HEAD + TENSOR + b"Transfer-Encoding: chunked\r\n\r\n",
                 b"10\r\n" + floats(1, 2, 3, 4) + b"\r\n0\r\n" + flood + b"\r\n")
    assert answer[0] in (431, 0), answer


# 2: slow clients (the limit is 10 s)

def test_half_open_heads_are_closed_while_others_are_served(server):
    crowd = [connect(server, 60) for _ in range(200)]
    body = connect(server, 60)
    try:
        for s in crowd:
            s.sendall(HEAD)
        body.sendall(HEAD + TENSOR + b"Content-Length: 16\r\n\r\n" + b"x")
        begun = time.monotonic()
        assert numbers(ask(server, "double", 1, 2, 3, 4)) == [3, 5, 7, 9]
        assert time.monotonic() - begun < (10 if is_sanitized() else 2)
        for s in crowd + [body]:
            status, _, _ = read_answer(s)
            assert status == 408
            assert s.recv(1) == b""
        assert 8 < time.monotonic() - begun < 40
    finally:
        for s in crowd + [body]:
            s.close()


@pytest.mark.release  # 20 s of waiting
def test_a_reader_that_never_reads_is_cut(server):
    slow = metric(server, "xinfer_http_slow_total")
    size = 64 << 20
    with connect(server, 60) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.sendall(b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
        piece = b"x" * (1 << 20)
        for _ in range(size // len(piece)):
            s.sendall(piece)
        wait_for(lambda: metric(server, "xinfer_http_slow_total") > slow, 40, "the cut")


def test_bytes_behind_an_early_answer_are_dropped(server):
    """They wait behind a request under way, and the next one is refused before its body is read."""
    first = HEAD + TENSOR + b"Content-Length: 16\r\n\r\n" + floats(1, 2, 3, 4)
    second = b"POST /v1/infer/nobody HTTP/1.1\r\nHost: localhost\r\n" + TENSOR
    status, _, _ = say(server, first + second + b"Content-Length: 1000\r\n\r\n" + b"x" * 100)
    assert status == 200


# 3: heads

CONFLICTS = [
    b"Content-Length: 16\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 16\r\n",
    b"Content-Length: 16\r\nContent-Length: 17\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 1e9\r\n",
    b"Content-Length : 16\r\n",
    b"A\x00B: c\r\n",
    b"A: b\nC: d\r\n",
    b"A: b\r\n folded\r\n",
    b"Host: other\r\n",
]


@pytest.mark.parametrize("lines", CONFLICTS)
def test_what_could_be_read_in_two_ways_is_refused(server, lines):
    answer = say(server, HEAD + TENSOR + lines + b"\r\n" + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")
    assert answer[0] == 400 and code(answer) == "XI-0109", answer
    assert answer[1]["connection"] == "close"


def test_heads_have_a_size(server):
    assert code(say(server, HEAD + b"A: " + b"a" * (1 << 20) + b"\r\n\r\n")) == "XI-0108"
    assert code(say(server, HEAD + b"".join(b"H%d: x\r\n" % i for i in range(10000)))) == "XI-0108"
    assert code(say(server, b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")) \
        == "XI-0108"


# 4: the binary layout

def binary_header(size=16, shape=(1, 4)):
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": list(shape),
                                   "parameters": {"binary_data_size": size}}]}).encode()


def infer_binary(server, door, length, head, tail):
    lines = b"" if length is None else b"Inference-Header-Content-Length: %s\r\n" % length
    return send(server, door, RAW + lines, head + tail)


def test_the_binary_layout_works(server, door):
    head = binary_header()
    status, _, body = infer_binary(server, door, b"%d" % len(head), head, floats(1, 2, 3, 4))
    assert status == 200 and json.loads(body)["outputs"][0]["data"] == [3, 5, 7, 9]


@pytest.mark.parametrize("length", [b"-1", b"1e9", b"99999", b"4294967296", b"18446744073709551615",
                                    b"", b"0x10", b"0", b"5", None])
def test_header_lengths_that_lie(server, door, length):
    answer = infer_binary(server, door, length, binary_header(), floats(1, 2, 3, 4))
    assert answer[0] == 400, answer
    assert code(answer).startswith("XI-01")


@pytest.mark.parametrize("size,shape,tail", [
    (16, (1, 4), 15), (16, (1, 4), 17), (16, (1, 4), 0), (12, (1, 4), 16), (-16, (1, 4), 16),
    (1 << 63, (1, 4), 16), (16, (1, 3), 16), (0, (0, 4), 16), (16, (2**60 + 2, 16), 16)])
def test_binary_sizes_that_lie(server, door, size, shape, tail):
    head = binary_header(size, shape)
    answer = infer_binary(server, door, b"%d" % len(head), head, b"\0" * tail)
    assert answer[0] == 400, answer


# 5, 6: JSON and shapes

def tensor(**kw):
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4], **kw}]}


def test_json_tensors_work(server, door):
    status, _, body = infer_json(server, tensor(data=[[1, 2, 3, 4]]), door)
    assert status == 200 and json.loads(body)["outputs"][0]["data"] == [3, 5, 7, 9]


BAD_JSON = {
    "deep": b"[" * 250000 + b"]" * 250000,
    "deep in data": json.dumps(tensor()).replace("[1, 2, 3, 4]", "[" * 70 + "]" * 70).encode(),
    "long number": json.dumps(tensor()).replace("[1, 2", "[" + "1" * 10000000 + ", 2").encode(),
    "duplicate key": b'{"inputs":[],"inputs":[]}',
    "lone surrogate": json.dumps(tensor(name="\ud800")).encode(),
    "invalid utf-8": b'{"inputs":[{"name":"\xff\xfe"}]}',
    "overlong": b'{"inputs":[{"name":"\xc0\xaf"}]}',
    "cut": b'{"inputs":[{"name":"x"',
    "nothing": b" ",
    "no object": b"[1,2]",
    "tail": json.dumps(tensor()).encode() + b"{}",
    "NaN": json.dumps(tensor(data=[float("nan")] * 4)).encode(),
}


@pytest.mark.parametrize("what", BAD_JSON)
def test_json_that_is_none(server, door, what):
    answer = infer_json(server, BAD_JSON[what], door)
    assert answer[0] == 400, answer
    assert code(answer) in ("XI-0103", "XI-0101", "XI-0102")


def test_json_has_a_size(server, door):
    answer = infer_json(server, b'{"inputs":"' + b"x" * (17 << 20) + b'"}', door)
    assert answer[0] == 413, answer


@pytest.mark.parametrize("outputs", [[{"name": "y"}, {"name": "y"}], [{"name": "nobody"}], [{}], [1],
                                     [{"name": "o%d" % i} for i in range(100000)]])
def test_outputs_that_are_not_there(server, door, outputs):
    answer = infer_json(server, {**tensor(), "outputs": outputs}, door)
    assert answer[0] == 400, answer


@pytest.mark.parametrize("shape", [[16, 2**60 + 2], [-1], [-1, 4], [1] * 65, [2**32, 2**32], [0], [],
                                   [4, 1], [1.5], ["1"], [2**63], [1, 4, 1], None])
def test_shapes_that_do_not_fit(server, door, shape):
    answer = infer_json(server, tensor(shape=shape), door)
    assert answer[0] == 400, answer
    raw = ask(server, "double", 1, 2, 3, 4, headers={"Xinfer-Shape": ",".join(map(str, shape or []))})
    assert raw.status == 400, raw


@pytest.mark.parametrize("change", [{"datatype": "BYTES", "data": ["a"] * 4}, {"datatype": "FP64"},
                                    {"datatype": "fp32"}, {"datatype": ""}, {"name": "z"},
                                    {"data": [1, 2, 3]}, {"data": [1, 2, 3, 4, 5]},
                                    {"data": [1, 2, 3, "4"]}, {"data": [1, 2, 3, 1e39]}, {"data": {}}])
def test_tensors_that_do_not_fit(server, door, change):
    answer = infer_json(server, tensor(**change), door)
    assert answer[0] == 400, answer


def test_an_empty_batch_and_wrong_byte_counts(server):
    for n in (0, 4, 12, 20, 1000):
        values = [0.0] * (n // 4)
        sent = {"Content-Type": "application/octet-stream", "Xinfer-Dtype": "FP32",
                "Xinfer-Shape": "1,4"}
        answer = server.post("/v1/infer/double", struct.pack("<%df" % len(values), *values),
                             headers=sent)
        assert answer.status == 400 and answer.json()["code"] == "XI-0102", answer


# 10: names

@pytest.mark.parametrize("name", ["..%2fx", "a%2fb", "%2e%2e", "a" * 256, "%20%20", "a%00b", "%",
                                  "%zz", "d%C3%B6uble", "%EF%BD%84ouble", "-double", "double%0d%0a"])
def test_names_that_are_none(server, name):
    for answer in (server.get("/v1/models/" + name),
                   server.post("/v1/infer/" + name, b"x", headers={"Content-Type": "image/png"})):
        assert answer.status == 400, answer


def test_names_that_are_somebody_elses(server):
    for name in ("Double", "DOUBLE", "double.", "doublé".encode("ascii", "ignore").decode() + "x"):
        assert server.get("/v1/models/" + name).status == 404
    for path in ("/v1/models/a/b", "/v1/models//double", "/v1/infer/double/", "/v1/models/"):
        assert server.get(path).status in (404, 405)


# 11: other people's pages

@pytest.mark.parametrize("headers", [
    {"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example"}, {"Origin": "null"},
    {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://localhost.evil.example"}])
def test_foreign_pages_stay_out(server, headers):
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/control/unload"),
                         ("GET", "/v1/health/live")):
        answer = server.request(method, path, headers=headers)
        assert answer.status == 403 and answer.json()["code"] in ("XI-0603", "XI-0604"), answer


def test_a_simple_form_cannot_control(server):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = server.post("/v1/control/unload", b'{"name":"double"}', headers={"Content-Type": kind})
        assert answer.status == 415, answer


# 12: tokens

@pytest.fixture
def guarded(new_daemon, tmp_path):
    import hashlib
    tokens = tmp_path / "tokens"
    with os.fdopen(os.open(tokens, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
        for role in ("infer", "control", "admin"):
            f.write("%s %s %s\n" % (hashlib.sha256(role.encode()).hexdigest(),
                                    "default" if role == "admin" else "acme", role))
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"token_file": str(tokens)}))
    return new_daemon("--config", config).start(ready=False)


def test_every_route_wants_its_role(guarded):
    description = guarded.get("/v1/openapi.json").json()
    order = ["public", "infer", "control", "admin"]
    seen = 0
    for path, methods in description["paths"].items():
        for method, row in methods.items():
            for held, role in enumerate(order):
                headers = {"Authorization": "Bearer " + role} if held else {}
                concrete = re.sub(r"\{[a-z]+\}", "nobody", path)
                status = guarded.status(method.upper(), concrete, headers)
                assert (status in (401, 403)) == (held < order.index(row["x-role"])), (
                    method, path, role, status)
                seen += 1
            if row["x-role"] != "public":
                for spelling in (path + "/", "/" + path, path.replace("/v1/", "/v1//"),
                                 path.replace("/v1/", "/v1%2f"), path.upper()):
                    answer = guarded.request(method.upper(), re.sub(r"\{[a-z]+\}", "x", spelling),
                                             headers={"X-HTTP-Method-Override": "GET"})
                    assert answer.status in (400, 401, 404, 405), (spelling, answer)
    assert seen >= 4 * 15


def test_a_tenant_is_named_by_administrators_only(guarded):
    def status(role, tenant):
        return guarded.get("/v1/models", headers={"Authorization": "Bearer " + role,
                                                  "Xinfer-Tenant": tenant}).status
    assert status("control", "default") == 403
    assert status("control", "acme") == 200
    assert status("admin", "acme") == 200
    assert status("admin", "../acme") == 400


# and a client that goes away

def test_clients_that_leave_leave_nothing(server):
    def leave():
        for i in range(20):
            s = connect(server)
            s.sendall((HEAD + TENSOR + b"Content-Length: 16\r\n\r\n" + floats(1, 2, 3, 4))
                      [:60 + i * 10])
            s.close()
    threads = [threading.Thread(target=leave) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    wait_for(lambda: metric(server, "xinfer_http_connections") <= 2, 10, "connections to end")


def test_a_large_body_is_not_copied(server):
    before = metric(server, "xinfer_http_copied_bytes_total")
    body = os.urandom(24883200)
    connection = UnixConnection(server.sock, 60)
    connection.request("POST", "/v1/echo", body, {"Content-Type": "application/octet-stream"})
    assert connection.getresponse().read() == body
    connection.close()
    assert metric(server, "xinfer_http_copied_bytes_total") - before <= 64 * 1024
