"""What a daemon tells of itself while it works: the log's last lines, and those that come."""
import contextlib
import hashlib
import http.client
import json

import pytest

import models
from daemon import wait_for

pytestmark = pytest.mark.tsan


class Stream:
    """Server-sent events of one route, read as a client does."""

    def __init__(self, daemon, path, headers=None):
        self.connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20)
        self.connection.request("GET", path, headers=headers or {})
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        assert self.answer.getheader("Content-Type") == "text/event-stream"

    def next(self):
        """(event, object) of the next event; None at the end."""
        name = None
        while line := self.answer.readline().decode():
            if line.startswith("event: "):
                name = line[7:].rstrip("\n")
            elif line.startswith("data: "):
                return name, json.loads(line[6:])
        return None

    def until(self, wanted):
        while (got := self.next()) is not None:
            if wanted(*got):
                return got[1]
        raise AssertionError("the stream ended")


@contextlib.contextmanager
def stream(daemon, path, headers=None):
    s = Stream(daemon, path, headers)
    try:
        yield s
    finally:
        s.answer.close()
        s.connection.close()


def with_tokens(new_daemon, tmp_path, *lines):
    """Tokens are "tenant-role"."""
    path = tmp_path / "tokens"
    path.write_text("".join("%s %s %s\n" % (hashlib.sha256(t.encode()).hexdigest(), *t.split("-"))
                            for t in lines))
    path.chmod(0o600)
    return new_daemon("--token-file", str(path)).start()


def bearer(token):
    return {"Authorization": "Bearer " + token}


def test_the_last_events_of_the_log(daemon, tmp_path):
    assert daemon.cli("load", models.write(tmp_path, "night", models.DOUBLE)).rc == 0
    session = models.session(daemon, "night")
    events = daemon.get("/v1/events").json()["events"]
    assert [e["seq"] for e in events] == sorted(e["seq"] for e in events)
    load = next(e for e in events if e["event"] == "session.load")
    assert load["level"] == "info"
    assert load["fields"]["id"] == session["id"] and load["fields"]["name"] == "night"
    assert load["text"] in daemon.log()
    assert abs(load["at_ms"] - session["loaded_at_ms"]) < 60000
    assert events[-2:] == daemon.get("/v1/events?last=2").json()["events"]
    assert daemon.get("/v1/events?last=0").json() == {"events": []}


@pytest.mark.parametrize("query", ["last", "last=", "last=-1", "last=1025", "last=9999999999999999",
                                   "last=1&last=1", "lost=1", "last=1&", "&", "last=1%30"])
def test_a_query_that_is_wrong_is_refused(daemon, query):
    for path in ("/v1/events", "/v1/events/stream"):
        said = daemon.get(path + "?" + query)
        assert (said.status, said.json()["code"]) == (400, "XI-0101"), said
    assert daemon.get("/v1/models?x=1").status == 400


def test_events_come_as_they_happen(daemon, tmp_path):
    package = models.write(tmp_path, "night", models.DOUBLE)
    with stream(daemon, "/v1/events/stream?last=1024") as s, stream(daemon, "/v1/events/stream") as t:
        assert s.until(lambda _, e: e["event"] == "daemon.ready")["seq"] >= 1
        assert daemon.cli("load", package).rc == 0
        assert daemon.cli("unload", "night").rc == 0
        for one in (s, t):
            seen = []
            one.until(lambda _, e: seen.append(e["event"]) or e["event"] == "session.gone")
            assert seen.index("session.load") < seen.index("session.ready") < len(seen) - 1
    # The clients have gone: so have their streams, and nothing is held.
    wait_for(lambda: "\nxinfer_event_streams 0\n" in daemon.get("/metrics").body.decode())


def test_a_tenant_sees_what_is_its_own_and_what_is_nobodys(new_daemon, tmp_path):
    daemon = with_tokens(new_daemon, tmp_path, "acme-control", "rival-control", "default-admin",
                         "acme-infer")
    package = models.write(tmp_path, "night", models.DOUBLE)
    assert daemon.cli("load", package, env={"XINFER_TOKEN": "acme-control"}).rc == 0

    def events(token):
        return daemon.get("/v1/events?last=1024", headers=bearer(token)).json()["events"]

    names = {t: [e["event"] for e in events(t)]
             for t in ("acme-control", "rival-control", "default-admin")}
    assert "session.load" in names["acme-control"] and "session.ready" in names["acme-control"]
    assert "session.load" in names["default-admin"]
    assert not [e for e in names["rival-control"] if e.startswith(("session.", "host."))]
    assert "package.installed" in names["rival-control"]
    acme = {**bearer("default-admin"), "Xinfer-Tenant": "acme"}
    assert "session.load" in [e["event"] for e in
                              daemon.get("/v1/events?last=1024", headers=acme).json()["events"]]
    assert daemon.get("/v1/events", headers=bearer("acme-infer")).status == 403
    changed = daemon.post("/v1/control/configure", {"tenants": {"acme": {"weight": 7}}},
                          headers=bearer("default-admin"))
    assert changed.status == 200, changed
    assert "config.changed" in [e["event"] for e in events("default-admin")]
    assert "config.changed" not in [e["event"] for e in events("rival-control")]
    with stream(daemon, "/v1/events/stream", bearer("rival-control")) as s:
        assert daemon.cli("unload", "night", env={"XINFER_TOKEN": "acme-control"}).rc == 0
        assert daemon.cli("load", package, "--name", "mine",
                          env={"XINFER_TOKEN": "rival-control"}).rc == 0
        first = s.until(lambda _, e: e["event"].startswith("session."))
        assert (first["event"], first["fields"]["tenant"]) == ("session.load", "rival")


def test_streams_are_counted_and_end_with_the_daemon(daemon):
    with contextlib.ExitStack() as all_of_them:
        many = [all_of_them.enter_context(stream(daemon, "/v1/events/stream")) for _ in range(64)]
        said = daemon.get("/v1/events/stream")
        assert said.status == 503 and int(said.headers["retry-after"]) >= 1
        assert daemon.get("/v1/models").status == 200
        head = daemon.request("HEAD", "/v1/events/stream")
        assert (head.status, head.body) == (200, b"")
        assert daemon.stop() == 0
        for one in many:  # an end, not a cut
            while one.next() is not None:
                pass
