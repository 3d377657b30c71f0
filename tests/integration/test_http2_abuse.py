"""Bad clients over HTTP/2: whatever frames come, the daemon stays, other requests are served, nothing
is left behind, and the connection ends with a word of why."""
import json
import re
import shutil
import socket
import struct
import subprocess

import h2.config
import h2.connection
import h2.events
import hpack
import pytest

import models
from daemon import Daemon, wait_for
from models import ask, floats, numbers

pytestmark = pytest.mark.tsan
DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL, REFUSED, CANCEL = 0, 1, 3, 7, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
TENSOR = [("content-type", "application/octet-stream"), ("xinfer-dtype", "FP32"),
          ("xinfer-shape", "1,4")]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    d = Daemon().start()
    said = d.cli("load", models.write(tmp_path_factory.mktemp("models"), "double"))
    assert said.rc == 0, said
    yield d
    d.close()


@pytest.fixture(autouse=True)
def unharmed(server):
    """After each test the model answers over both protocols, and nothing is held."""
    yield
    assert numbers(ask(server, "double", 1, 2, 3, 4)) == [3, 5, 7, 9]
    with Wire(server) as w:
        assert w.ask("GET", "/v1/health/live")[0] == 200
    wait_for(lambda: metric(server, "xinfer_input_memory_used_bytes") == 0, 10, "memory to come back")
    wait_for(lambda: metric(server, "xinfer_http_connections") <= 1, 10, "connections to end")


def metric(server, name):
    text = server.get("/metrics").body.decode()
    return float(re.search(r"^%s(?:\{[^}]*\})? (\S+)$" % name, text, re.M).group(1))


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


class Wire:
    """Frames by hand. Reads what comes back only when asked to."""

    def __init__(self, server, settings=b""):
        self.sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        self.encoder, self.decoder, self.data = hpack.Encoder(), hpack.Decoder(), b""
        self.stream = -1
        self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        """False when the server has hung up."""
        try:
            self.sock.sendall(data)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def head(self, method="POST", path="/v1/echo", more=(), end=False):
        self.stream += 2
        lines = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "localhost")]
        block = self.encoder.encode(lines + list(more))
        first, rest = block[:16384], [block[i:i + 16384] for i in range(16384, len(block), 16384)]
        flags = (0 if rest else END_HEADERS) | (END_STREAM if end else 0)
        return frame(HEADERS, flags, self.stream, first) + b"".join(
            frame(CONTINUATION, END_HEADERS if part is rest[-1] else 0, self.stream, part)
            for part in rest)

    def read(self):
        """(kind, flags, stream, payload) of the next frame; None at the end."""
        while len(self.data) < 9 or len(self.data) < 9 + int.from_bytes(self.data[:3], "big"):
            try:
                piece = self.sock.recv(65536)
            except ConnectionResetError:
                piece = b""
            if not piece:
                return None
            self.data += piece
        n = int.from_bytes(self.data[:3], "big")
        kind, flags, stream = self.data[3], self.data[4], int.from_bytes(self.data[5:9], "big")
        payload, self.data = self.data[9:9 + n], self.data[9 + n:]
        return kind, flags, stream, payload

    def until_end(self):
        """Reads until the server hangs up; the code of its GOAWAY, None when it did not get here."""
        code = None
        while (f := self.read()) is not None:
            if f[0] == GOAWAY:
                code = int.from_bytes(f[3][4:8], "big")
        return code

    def answer(self, stream):
        """(status, body) of a stream; (None, code) when it was reset."""
        status, body = None, b""
        while True:
            f = self.read()
            assert f is not None, "the connection ended"
            kind, flags, at, payload = f
            if kind == HEADERS:
                lines = dict(self.decoder.decode(payload))
                if at == stream:
                    status = int(lines.get(":status", status or 0))
            if at != stream:
                continue
            if kind == RST:
                return None, int.from_bytes(payload, "big")
            if kind == DATA:
                body += payload
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                return status, body

    def ask(self, method, path, more=(), body=b""):
        self.send(self.head(method, path, more, end=not body) +
                  (frame(DATA, END_STREAM, self.stream, body) if body else b""))
        return self.answer(self.stream)


def test_many_inferences_on_one_connection(server):
    """With a client library that others wrote; their answers come in any order."""
    conn = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    got = {}
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as s:
        conn.initiate_connection()
        for i in range(100):
            stream = conn.get_next_available_stream_id()
            conn.send_headers(stream, [(":method", "POST"), (":path", "/v1/infer/double"),
                                       (":scheme", "http"), (":authority", "localhost"), *TENSOR])
            conn.send_data(stream, floats(i, i + 1, i + 2, i + 3), end_stream=True)
            got[stream] = [i, None, b"", False]
        s.sendall(conn.data_to_send())
        while not all(done for _, _, _, done in got.values()):
            for event in conn.receive_data(s.recv(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    got[event.stream_id][1] = dict(event.headers)[":status"]
                elif isinstance(event, h2.events.DataReceived):
                    got[event.stream_id][2] += event.data
                    conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    got[event.stream_id][3] = True
            s.sendall(conn.data_to_send())
    for i, status, body, _ in got.values():
        assert status == "200"
        assert json.loads(body)["outputs"][0]["data"] == [2 * (i + k) + 1 for k in range(4)]


@pytest.mark.skipif(shutil.which("h2load") is None, reason="nghttp2-client is not installed")
def test_a_crowd(server, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(floats(1, 2, 3, 4))
    said = subprocess.run(["h2load", "-n", "2000", "-c", "8", "-m", "32", "-d", str(body),
                           *(x for k, v in TENSOR for x in ("-H", "%s: %s" % (k, v))),
                           server.url + "/v1/infer/double"],
                          capture_output=True, text=True, timeout=60, check=True).stdout
    assert "2000 succeeded, 0 failed, 0 errored" in said, said


# 8: floods

def test_rapid_reset(server):
    """Requests that are given up at once: the model is not kept busy by them for long."""
    with Wire(server) as w:
        for _ in range(50):
            burst = b""
            for _ in range(100):
                burst += w.head("POST", "/v1/infer/double", TENSOR)
                burst += frame(DATA, END_STREAM, w.stream, floats(1, 2, 3, 4))
                burst += frame(RST, 0, w.stream, struct.pack(">I", CANCEL))
            if not w.send(burst):
                break
        assert w.until_end() not in (None, NO_ERROR)


def test_resets_that_the_server_is_made_to_send(server):
    with Wire(server) as w:
        for _ in range(50):
            burst = b"".join(w.head() + frame(WINDOW, 0, w.stream, bytes(4)) for _ in range(100))
            if not w.send(burst):
                break
        assert w.until_end() not in (None, NO_ERROR)


@pytest.mark.parametrize("kind, payload, flags", [(PING, bytes(8), 0), (SETTINGS, b"", 0),
                                                  (WINDOW, b"\0\0\0\1", 0), (PING, bytes(8), ACK),
                                                  (PRIORITY, b"\0\0\0\0\x10", 0)])
def test_floods_of_frames_that_bring_nothing(server, kind, payload, flags):
    """Read or unread, they end: the daemon keeps no more answers than some."""
    with Wire(server) as w:
        burst = frame(kind, flags, 1 if kind == PRIORITY else 0, payload) * 1000
        for _ in range(200):
            if not w.send(burst):
                break
        assert w.until_end() != NO_ERROR
    assert metric(server, "process_resident_memory_bytes") < 300e6


def test_empty_data(server):
    with Wire(server) as w:
        w.send(w.head())
        burst = frame(DATA, 0, w.stream) * 1000
        for _ in range(200):
            if not w.send(burst):
                break
        assert w.until_end() != NO_ERROR


def test_continuations_without_end(server):
    with Wire(server) as w:
        block = hpack.Encoder().encode([("x-%d" % i, "v" * 50) for i in range(100)])
        w.send(frame(HEADERS, 0, 1, block))
        assert not all(w.send(frame(CONTINUATION, 0, 1, block) * 10) for _ in range(1000))


def test_more_streams_than_agreed(server):
    """Those beyond are refused and may be tried again; those within are served."""
    with Wire(server) as w:
        first = w.stream + 2
        w.send(b"".join(w.head() for _ in range(200)))
        refused = set()
        while len(refused) < 200 - 128:
            kind, _, stream, payload = w.read()
            if kind == RST:
                assert int.from_bytes(payload, "big") == REFUSED
                refused.add(stream)
        w.send(frame(DATA, END_STREAM, first, b"hello"))
        assert w.answer(first) == (200, b"hello")


def test_heads_have_a_size(server):
    with Wire(server) as w:
        status, body = w.ask("GET", "/v1/models", [("x-large", "v" * 8000)] * 5)
        assert (status, json.loads(body)["code"]) == (431, "XI-0108")
        status, body = w.ask("GET", "/v1/models", [("x-%d" % i, "v") for i in range(101)])
        assert (status, json.loads(body)["code"]) == (431, "XI-0108")
        assert w.ask("GET", "/v1/models", [("x-large", "v" * 8000)] * 3)[0] == 200
        # What a table of the codec makes large is not kept, whatever it grows to.
        status, body = w.ask("GET", "/v1/models", [("x-large", "v" * 4000)] * 2000)
        assert status in (None, 431)
        assert w.ask("GET", "/v1/models")[0] == 200


# 3: what could be read in two ways

@pytest.mark.parametrize("more, body", [
    ([("transfer-encoding", "chunked")], b""),
    ([("connection", "close")], b""),
    ([("content-length", "3")], b"hello"),
    ([("content-length", "9")], b"hello"),
    ([("content-length", "5"), ("content-length", "5")], b"hello"),
    ([("content-length", "-5")], b"hello"),
    ([("Upper", "case")], b""),
    ([("a\0b", "nul")], b""),
    ([("a", "b\r\nc: d")], b""),
    ([(":path", "/v1/models")], b""),
    ([(":unknown", "x")], b""),
])
def test_malformed_requests_are_reset(server, more, body):
    with Wire(server) as w:
        assert w.ask("POST", "/v1/echo", more, body) == (None, PROTOCOL_ERROR)
        assert w.ask("GET", "/v1/health/live")[0] == 200  # the connection goes on


def test_hosts(server):
    with Wire(server) as w:
        status, body = w.ask("GET", "/v1/models", [("host", "elsewhere")])
        assert (status, json.loads(body)["code"]) == (400, "XI-0109")
        block = w.encoder.encode([(":method", "GET"), (":path", "/v1/models"), (":scheme", "http"),
                                  (":authority", "attacker.example")])
        w.stream += 2
        w.send(frame(HEADERS, END_HEADERS | END_STREAM, w.stream, block))
        status, body = w.answer(w.stream)
        assert (status, json.loads(body)["code"]) == (403, "XI-0604")
        status, body = w.ask("GET", "/v1/models", [("origin", "http://attacker.example")])
        assert (status, json.loads(body)["code"]) == (403, "XI-0603")


@pytest.mark.parametrize("data", [
    frame(DATA, 0, 0, b"x"),
    frame(DATA, 0, 7, b"x"),
    frame(HEADERS, END_HEADERS, 2, b"\x82"),
    frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
    frame(CONTINUATION, END_HEADERS, 1, b"\x82"),
    frame(SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff"),
    frame(SETTINGS, 0, 0, bytes(5)),
    frame(SETTINGS, 0, 0, b"\0\1\0\0\0\0" * 100),
    frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff"),
    frame(PING, 0, 0, bytes(9)),
    b"\xff\xff\xff\0\0\0\0\0\1",
], ids=range(11))
def test_frames_that_end_the_connection(server, data):
    with Wire(server) as w:
        assert w.send(data)
        assert w.until_end() not in (None, NO_ERROR)


def test_a_preface_that_is_none(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as s:
        s.sendall(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
        while s.recv(65536):
            pass


# Windows

def test_a_client_that_opens_no_window(server):
    """Its answers wait with it; when it leaves, what they held is given back."""
    with Wire(server, settings=b"\0\4\0\0\0\0") as w:
        body = bytes(16000)
        for _ in range(60):
            w.send(w.head("POST", "/v1/echo") + frame(DATA, END_STREAM, w.stream, body))
        heads = 0
        while heads < 60:
            kind, _, _, _ = w.read()
            heads += kind == HEADERS
            assert kind != DATA
        assert numbers(ask(server, "double", 1, 2, 3, 4)) == [3, 5, 7, 9]
        # One is let through.
        w.send(frame(WINDOW, 0, 1, struct.pack(">I", 16000)))
        kind, flags, stream, payload = w.read()
        assert (kind, flags, stream, payload) == (DATA, END_STREAM, 1, body)
        w.send(frame(WINDOW, 0, 3, b"\0\0\0\1"))
        assert w.read() == (DATA, 0, 3, b"\0")


def test_a_client_that_ignores_windows(server):
    """A stream has 256 KiB while nobody takes its body; who sends more is reset."""
    with Wire(server) as w:
        w.send(w.head("POST", "/v1/nowhere"))
        w.send(frame(SETTINGS, ACK, 0))
        assert w.answer(w.stream)[0] == 404
        for _ in range(20):
            w.send(frame(DATA, 0, w.stream, bytes(16384)))
        while (f := w.read()) is not None and f[0] != RST:
            pass
        assert f is not None and int.from_bytes(f[3], "big") == FLOW_CONTROL
        assert w.ask("GET", "/v1/health/live")[0] == 200


def test_clients_that_leave_in_the_middle(server):
    for i in range(30):
        with Wire(server) as w:
            w.send(w.head("POST", "/v1/infer/double", TENSOR + [("content-length", "16")]))
            w.send(frame(DATA, 0, w.stream, floats(1, 2, 3, 4)[:i % 16]))
            w.send(w.head("POST", "/v1/infer/double", TENSOR))
            w.send(frame(DATA, END_STREAM, w.stream, floats(1, 2, 3, 4)))
