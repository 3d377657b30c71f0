"""The load generator of the benchmarks, against servers whose answers this test knows."""
import contextlib
import os
import socket
import socketserver
import sys
import threading
from concurrent import futures

import grpc
import pytest

from daemon import ROOT

sys.path.insert(0, os.path.join(ROOT, "bench"))
import measure  # noqa: E402

# A tool that ends as soon as it has printed: what it held is the system's, which LeakSanitizer minds.
pytestmark = pytest.mark.release

RIGHT = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nlate"


class Handler(socketserver.BaseRequestHandler):
    """Answers each request of `server.length` bytes with the next of server.answers; None hangs up."""

    def handle(self):
        with contextlib.suppress(ConnectionError):
            self.talk()

    def talk(self):
        got = b""
        while True:
            while len(got) < self.server.length:
                more = self.request.recv(65536)
                if not more:
                    return
                got += more
            with self.server.lock:
                answer = self.server.answers[self.server.served % len(self.server.answers)]
                self.server.served += 1
                self.server.requests.add(got[:self.server.length])
            got = got[self.server.length:]
            if answer is None:
                return
            self.request.sendall(answer)


class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class Tcp(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads, address_family = True, socket.AF_INET


@contextlib.contextmanager
def serving(tmp_path, answers, length, kind=Tcp):
    server = kind(("127.0.0.1", 0) if kind is Tcp else str(tmp_path / "sock"), Handler)
    server.answers, server.length, server.served, server.requests = answers, length, 0, set()
    server.lock = threading.Lock()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def at(server):
    where = server.server_address
    return "unix:" + where if isinstance(where, str) else "%s:%d" % where


def ask(server, body, expect=(), **kw):
    with measure.Load(at(server), "/x", str(body), ["A: b"], 2, seconds=0.4, warm=0,
                      expect=[e.hex() for e in expect], **kw) as load:
        return load.result()


@pytest.fixture
def body(tmp_path):
    path = tmp_path / "body"
    path.write_bytes(b"body")
    return path


REQUEST = b"POST /x HTTP/1.1\r\nHost: localhost\r\nA: b\r\nContent-Length: 4\r\n\r\nbody"


@pytest.mark.parametrize("kind", [Tcp, Unix])
def test_it_sends_the_request_as_it_is_and_counts_the_answers(tmp_path, body, kind):
    with serving(tmp_path, [RIGHT], len(REQUEST), kind) as server:
        said = ask(server, body)
        assert server.requests == {REQUEST}
        assert said["errors"] == 0 and said["status"] == {"200": said["requests"]}
        assert 0 < said["requests"] <= server.served <= said["requests"] + 2
        assert 0 < said["p50_us"] <= said["p90_us"] <= said["p99_us"] <= said["p999_us"]
        assert 0 < said["cpu_us"] <= said["seconds"] * 1e6


def test_refusals_and_connections_that_break_are_errors(tmp_path, body):
    with serving(tmp_path, [RIGHT, BUSY, None], len(REQUEST)) as server:
        said = ask(server, body)
        right, busy, broke = (said["status"].get(s, 0) for s in ("200", "503", "0"))
        assert said["requests"] == right and said["errors"] == busy + broke
        assert right > 0 and abs(right - busy) <= 2 and abs(right - broke) <= 2


def test_an_answer_that_ends_otherwise_than_expected_is_an_error(tmp_path, body):
    other = RIGHT.replace(b"answer", b"wrongs")
    with serving(tmp_path, [RIGHT, other], len(REQUEST)) as server:
        said = ask(server, body, expect=[b"swer"])
        assert abs(said["requests"] - said["errors"]) <= 2 and said["errors"] > 0
        both = ask(server, body, expect=[b"swer", b"wrongs"])
        assert both["errors"] == 0 and sum(both["expected"]) == both["requests"]


def test_a_rate_is_kept(tmp_path, body):
    with serving(tmp_path, [RIGHT], len(REQUEST)) as server:
        said = ask(server, body, rate=50)
        assert 5 <= said["requests"] + said["errors"] <= 21


@pytest.mark.parametrize("protocol, streams", [("http1", 1), ("h2", 1), ("h2", 8)])
def test_it_counts_what_the_daemon_counts(daemon, body, protocol, streams):
    """Over HTTP/2 too: each stream's answer is held to its end."""
    to = "127.0.0.1:%d" % daemon.port
    args = (to, "/v1/echo", str(body), ["Content-Type: application/octet-stream"], 2)
    with measure.Load(*args, seconds=0.3, warm=0, protocol=protocol, streams=streams,
                      expect=[b"body".hex()]) as load:
        said = load.result()
    assert said["errors"] == 0 and said["status"] == {"200": said["requests"]}
    counted = measure.metric(daemon, "xinfer_http_requests_total")
    assert said["requests"] <= counted <= said["requests"] + 2 * streams + 10
    with measure.Load(*args, seconds=0.1, warm=0, protocol=protocol, streams=streams,
                      expect=[b"ydob".hex()]) as load:
        said = load.result()
    assert said["requests"] == 0 and said["errors"] > 0


class Calls(grpc.GenericRpcHandler):
    """A gRPC server of somebody else's: /t/Echo gives back the message, /t/Busy says UNAVAILABLE."""

    def __init__(self):
        self.seen = []

    def service(self, call):
        return grpc.unary_unary_rpc_method_handler(self.echo if call.method == "/t/Echo" else self.busy)

    def echo(self, message, _):
        self.seen.append(message)
        return message

    def busy(self, message, context):
        context.abort(grpc.StatusCode.UNAVAILABLE, "later")


@pytest.fixture
def calls():
    handler = Calls()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handler,))
    handler.to = "127.0.0.1:%d" % server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler
    server.stop(None).wait()


def call(calls, method, body, streams=1, expect=b"body"):
    with measure.Load(calls.to, method, str(body), [], 2, seconds=0.3, warm=0, protocol="grpc",
                      streams=streams, expect=[expect.hex()]) as load:
        return load.result()


@pytest.mark.parametrize("streams", [1, 8])
def test_calls_are_counted_as_the_other_side_counts_them(calls, body, streams):
    said = call(calls, "/t/Echo", body, streams)
    assert said["errors"] == 0 and set(calls.seen) == {b"body"}
    assert 0 < said["requests"] <= len(calls.seen) <= said["requests"] + 2 * streams
    assert measure.answer(calls.to, "/t/Echo", str(body), protocol="grpc") == b"body"


def test_calls_that_fail_are_errors(calls, body):
    said = call(calls, "/t/Busy", body)
    assert said["requests"] == 0 and said["status"] == {"514": said["errors"]}
    assert call(calls, "/t/Echo", body, expect=b"ydob")["requests"] == 0


def test_one_answer_can_be_kept(tmp_path, body):
    with serving(tmp_path, [RIGHT], len(REQUEST)) as server:
        assert measure.answer(at(server), "/x", str(body), ["A: b"]) == b"answer"
