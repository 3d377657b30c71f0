"""Bodies and answers in gzip and deflate, packed and unpacked by Python's zlib."""
import gzip
import json
import os
import struct
import zlib

import pytest

import models
from daemon import Daemon, wait_for
from models import ask, floats, numbers
from test_http2 import curl
from test_http_abuse import code, metric, say

pytestmark = pytest.mark.tsan
PACK = {"gzip": gzip.compress, "deflate": zlib.compress}
UNPACK = {"gzip": gzip.decompress, "deflate": zlib.decompress}
RAW = {"Content-Type": "application/octet-stream", "Xinfer-Dtype": "FP32"}


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


def packed(how, body):
    return PACK[how](body), {"Content-Encoding": how}


def in_pieces(body, size):
    return (body[i:i + size] for i in range(0, len(body), size))


def tensor(n):
    """n rows, as bytes that pack to about a third."""
    return b"".join(struct.pack("<4f", i % 31, i % 7, 1, 0.5) for i in range(n))


@pytest.mark.parametrize("how", PACK)
@pytest.mark.parametrize("rows", [1, 300, 5000, 300000])
@pytest.mark.parametrize("chunk", [None, 900, 100000])
def test_a_tensor_comes_packed(server, how, rows, chunk):
    """4.8 MB takes the workers and several places; the answer is as for bytes that were not packed."""
    if rows > 5000 and chunk == 900:
        pytest.skip("nothing new")
    body, headers = packed(how, tensor(rows))
    headers.update(RAW, **{"Xinfer-Shape": "%d,4" % rows, "Accept": "application/octet-stream"})
    plain = server.post("/v1/infer/double", tensor(rows), headers={
        k: v for k, v in headers.items() if k != "Content-Encoding"})
    answer = server.post("/v1/infer/double", body if chunk is None else in_pieces(body, chunk),
                         headers=headers)
    assert plain.status == answer.status == 200, answer
    n = int(answer.headers["inference-header-content-length"])
    assert answer.body[n:] == plain.body[int(plain.headers["inference-header-content-length"]):]
    assert answer.body[n:][:16] == floats(1, 1, 3, 2)


@pytest.mark.parametrize("how", PACK)
def test_lengths_count_what_was_packed(server, how):
    """Inference-Header-Content-Length is of the JSON before it was packed, as tritonclient sends it."""
    head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2000, 4],
                                   "parameters": {"binary_data_size": 32000}}]}).encode()
    body, headers = packed(how, head + tensor(2000))
    assert len(body) < len(head) + 10000
    for length, status in ((len(head), 200), (len(head) - 1, 400), (len(head) + 32001, 400)):
        answer = server.post("/v1/infer/double", body, headers={
            **headers, "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(length)})
        assert answer.status == status, answer
        if status == 200:
            assert numbers(answer)[:8] == [1, 1, 3, 2, 3, 3, 3, 2]


@pytest.mark.parametrize("how", PACK)
def test_json_comes_packed(server, how):
    rows = 10000
    text = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, 4],
                                   "data": [i % 97 for i in range(4 * rows)]}]}).encode()
    body, headers = packed(how, text)
    answer = server.post("/v1/infer/double", body,
                         headers={**headers, "Content-Type": "application/json"})
    assert numbers(answer) == [2 * (i % 97) + 1 for i in range(4 * rows)]


@pytest.mark.parametrize("how", PACK)
def test_control_takes_packed_text(server, how):
    body, headers = packed(how, json.dumps({"package": "no such" + " " * 20000}).encode())
    answer = server.post("/v1/control/load", body,
                         headers={**headers, "Content-Type": "application/json"})
    assert answer.status in (400, 404) and "XI-0" in answer.json()["code"], answer
    body, headers = packed(how, json.dumps({"name": "nobody"}).encode())
    answer = server.post("/v1/control/unload", body,
                         headers={**headers, "Content-Type": "application/json"})
    assert answer.status == 404 and "nobody" in answer.json()["detail"], answer


def test_gzip_may_have_several_members(server):
    body = tensor(100)
    answer = server.post("/v1/infer/double", gzip.compress(body[:700]) + gzip.compress(body[700:]),
                         headers={**RAW, "Xinfer-Shape": "100,4", "Content-Encoding": "x-gzip"})
    assert len(numbers(answer)) == 400


GZIP = gzip.compress(tensor(100))
BROKEN = {
    "nothing": ("gzip", b"", "XI-0112"),
    "text": ("gzip", b"this is no gzip at all", "XI-0112"),
    "cut": ("gzip", GZIP[:-1], "XI-0112"),
    "half": ("gzip", GZIP[:len(GZIP) // 2], "XI-0112"),
    "a wrong checksum": ("gzip", GZIP[:-6] + b"\0\0" + GZIP[-4:], "XI-0112"),
    "a wrong size": ("gzip", GZIP[:-4] + b"\0\0\0\0", "XI-0112"),
    "a tail": ("gzip", GZIP + b"tail", "XI-0112"),
    "the other one": ("deflate", GZIP, "XI-0112"),
    "deflate with a tail": ("deflate", zlib.compress(tensor(100)) + b"x", "XI-0112"),
    "a dictionary": ("deflate", b"\x78\xbb\x00\x00\x00\x01abc", "XI-0112"),
    "twice": ("gzip", gzip.compress(GZIP), "XI-0102"),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("chunked", [False, True])
def test_streams_that_are_none(server, what, chunked):
    how, body, wanted = BROKEN[what]
    answer = server.post("/v1/infer/double", in_pieces(body, 50) if chunked else body, headers={
        **RAW, "Xinfer-Shape": "100,4", "Content-Encoding": how})
    assert answer.status == 400, answer
    assert answer.json()["code"] == (wanted if body or chunked else "XI-0102"), answer


@pytest.mark.parametrize("coding", ["zstd", "br", "compress", "gzip, gzip", "gzip, deflate", "", "gzip;q=1"])
def test_codings_that_are_not_known(server, coding):
    answer = server.post("/v1/infer/double", GZIP, headers={
        **RAW, "Xinfer-Shape": "100,4", "Content-Encoding": coding})
    assert answer.status == 415 and answer.json()["code"] == "XI-0106", answer
    assert answer.headers["accept-encoding"] == "gzip, deflate"


def test_two_lines_of_coding_are_refused(server):
    answer = say(server, b"POST /v1/infer/double HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
                 b"Content-Encoding: gzip\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc")
    assert answer[0] == 415 and code(answer) == "XI-0106", answer


def test_a_package_comes_as_it_is(server):
    answer = server.post("/v1/control/packages", GZIP, headers={
        "Content-Type": "application/vnd.xinfer.xpkg", "Content-Encoding": "gzip"})
    assert answer.status == 415 and answer.headers["accept-encoding"] == "identity", answer


def over_h2(server, body, *headers, streamed=False):
    """The same door over HTTP/2, by curl; streamed: of a length that nobody knows."""
    sent = [word for h in (*headers, "Content-Type: application/octet-stream", "Xinfer-Dtype: FP32")
            for word in ("-H", h)]
    how = ["-X", "POST", "-T", "-"] if streamed else ["--data-binary", "@-"]
    return curl(*sent, *how, server.url + "/v1/infer/double", body=body)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_same_over_http2(server, bomb, streamed):
    rows = 300000
    status, _, body = over_h2(server, gzip.compress(tensor(rows), 1), "Content-Encoding: gzip",
                              "Xinfer-Shape: %d,4" % rows, "Accept: application/octet-stream",
                              "Accept-Encoding: deflate", streamed=streamed)
    assert status == 200
    last = ((rows - 1) % 31, (rows - 1) % 7, 1, 0.5)
    assert zlib.decompress(body)[-16:] == floats(*(2 * v + 1 for v in last))
    for packed_body, wanted in ((bomb, 413), (GZIP[:-3], 400), (b"none", 400), (GZIP + b"tail", 400)):
        status, _, body = over_h2(server, packed_body, "Content-Encoding: gzip",
                                  "Xinfer-Shape: 100,4", streamed=streamed)
        assert status == wanted and json.loads(body)["code"] in ("XI-0107", "XI-0112"), body


# bombs

@pytest.fixture(scope="module")
def bomb():
    """A megabyte that is a gigabyte."""
    return gzip.compress(bytes(100 << 20)) * 10  # in ten members


def test_a_bomb_is_met_before_it_bursts(server, bomb):
    before = metric(server, "process_resident_memory_bytes")
    answer = server.post("/v1/infer/double", bomb, headers={
        **RAW, "Xinfer-Shape": "65536000,4", "Content-Encoding": "gzip"})
    assert answer.status == 413 and answer.json()["code"] == "XI-0107", answer
    assert "128" in answer.json()["detail"]
    if os.environ.get("XINFER_BUILD", "release") == "release":  # sanitizers keep what was freed
        assert metric(server, "process_resident_memory_bytes") - before < 200 << 20


def test_text_is_not_larger_than_its_route_takes(server, bomb):
    for path, kind in (("/v1/control/load", "application/json"), ("/v1/infer/double", "application/json")):
        answer = server.post(path, bomb[:200000], headers={"Content-Type": kind,
                                                           "Content-Encoding": "gzip"})
        assert answer.status == 413 and answer.json()["code"] == "XI-0107", answer


def test_a_bomb_inside_a_bomb_opens_once(server, bomb):
    twice = gzip.compress(bomb)
    assert len(twice) < 10000
    answer = server.post("/v1/infer/double", twice, headers={
        **RAW, "Xinfer-Shape": "100,4", "Content-Encoding": "gzip"})
    assert answer.status == 400, answer


# answers

@pytest.mark.parametrize("how", PACK)
@pytest.mark.parametrize("accept", ["application/json", "application/octet-stream"])
@pytest.mark.parametrize("rows", [100, 400, 30000])
def test_answers_leave_packed(server, how, accept, rows):
    headers = {"Accept": accept, "Accept-Encoding": how}
    answer = ask(server, "double", *[i % 31 for i in range(4 * rows)], headers=headers)
    assert answer.status == 200 and answer.headers["content-encoding"] == how, answer
    body = UNPACK[how](answer.body)
    assert len(answer.body) < len(body) / 2
    n = int(answer.headers.get("inference-header-content-length", len(body)))
    output = json.loads(body[:n])["outputs"][0]
    want = [2 * (i % 31) + 1 for i in range(4 * rows)]
    if accept == "application/json":
        assert output["data"] == want
    else:
        assert body[n:] == floats(*want)


@pytest.mark.parametrize("asked", ["", "identity", "br", "gzip;q=0", "*"])
def test_who_does_not_ask_gets_the_bytes(server, asked):
    answer = ask(server, "double", *range(4000), headers={"Accept-Encoding": asked})
    assert "content-encoding" not in answer.headers and len(numbers(answer)) == 4000
    answer = ask(server, "double", 1, 2, 3, 4, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers and len(numbers(answer)) == 4


def test_documents_leave_packed(server):
    for path in ("/v1/openapi.json", "/metrics"):
        answer = server.get(path, headers={"Accept-Encoding": "gzip, deflate"})
        assert answer.headers["content-encoding"] == "gzip", answer
        assert gzip.decompress(answer.body).decode().count("infer") > 1
        assert "content-encoding" not in server.request("HEAD", path, headers={
            "Accept-Encoding": "gzip"}).headers


def test_what_does_not_shrink_leaves_as_it_is(server):
    noise = zlib.compress(b"".join(struct.pack("<d", 1 / (i + 3)) for i in range(20000)), 9)
    answer = server.post("/v1/echo", noise, headers={"Accept-Encoding": "gzip"})
    assert answer.body == noise and "content-encoding" not in answer.headers


def test_a_client_that_leaves_while_we_pack_or_unpack(server, bomb):
    import socket
    body = gzip.compress(tensor(300000))
    head = ("POST /v1/infer/double HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
            "Xinfer-Dtype: FP32\r\nXinfer-Shape: 300000,4\r\nContent-Encoding: gzip\r\n"
            "Accept-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)).encode()
    for sent in (0, 1, 1000, len(body) // 2, len(body) - 1, len(body)):
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port)) as s:
                s.sendall(head + body[:sent])
    with socket.create_connection(("127.0.0.1", server.port)) as s:
        s.sendall(head.replace(b"%d" % len(body), b"%d" % len(bomb)) + bomb)
