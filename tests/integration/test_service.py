"""As a service: readiness, watchdog and passed sockets as systemd has them, and who may do what."""
import grp
import os
import signal
import socket
import subprocess
import time

import pytest

import models
from daemon import clean_env, program, wait_for

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


class Supervisor:
    """What systemd does for a service of Type=notify with sockets."""

    def __init__(self, home):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.path = os.path.join(home, "notify")
        self.sock.bind(self.path)
        self.heard = []

    def listen(self, until, seconds=10):
        """Waits for a message that holds this text."""
        def found():
            self.sock.settimeout(0.05)
            try:
                while True:
                    self.heard.append((time.monotonic(), self.sock.recv(4096).decode()))
            except TimeoutError:
                pass
            return [m for m in self.heard if until in m[1]]
        return wait_for(found, seconds, until)


def start_passed(d, sockets, *args, notify=None, watchdog_us=None):
    """Starts xinferd with these descriptors as 3, 4, …, by a shell that then becomes it."""
    env = clean_env(d.home, {"LISTEN_FDS": str(len(sockets))})
    if notify:
        env["NOTIFY_SOCKET"] = notify
    if watchdog_us:
        env["WATCHDOG_USEC"] = str(watchdog_us)
    moves = " ".join("%d<&%d" % (3 + i, 100 + i) for i in range(len(sockets)))
    for i, s in enumerate(sockets):
        os.dup2(s.fileno(), 100 + i, inheritable=True)
    try:
        with open(d.log_path, "ab") as log:
            d.process = subprocess.Popen(
                ["/bin/bash", "-c", 'export LISTEN_PID=$$; exec "$@" ' + moves, "sh",
                 program("xinferd"), "--state", d.state, *map(str, args)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                pass_fds=[100 + i for i in range(len(sockets))])
    finally:
        for i in range(len(sockets)):
            os.close(100 + i)
    d.expected_to_live = True
    return d


def test_readiness_watchdog_and_stopping_are_told(new_daemon):
    d = new_daemon()
    supervisor = Supervisor(d.home)
    d.env = {"NOTIFY_SOCKET": supervisor.path, "WATCHDOG_USEC": "400000"}
    d.start()
    supervisor.listen("READY=1")
    supervisor.listen("STATUS=serving on 127.0.0.1:%d, 0 models" % d.port)
    wait_for(lambda: len(supervisor.listen("WATCHDOG=1")) >= 5, 10, "signs of life")
    # A loop that does not turn is missed: no sign while it is stopped.
    os.kill(d.pid, signal.SIGSTOP)
    time.sleep(0.3)
    supervisor.listen("WATCHDOG=1")
    before = len(supervisor.heard)
    time.sleep(0.6)
    supervisor.listen("WATCHDOG=1")
    assert len(supervisor.heard) == before
    os.kill(d.pid, signal.SIGCONT)
    assert d.stop() == 0
    supervisor.listen("STOPPING=1")


def test_passed_sockets_are_served_and_stay(new_daemon):
    d = new_daemon()
    tcp, local = socket.create_server(("127.0.0.1", d.port)), socket.socket(socket.AF_UNIX)
    with tcp, local:
        os.makedirs(d.state)
        local.bind(d.sock)
        local.listen()
        for _ in range(2):  # connections that wait while it restarts are answered by the next one
            start_passed(d, [local, tcp])
            assert d.get("/v1/health/live").status == 200
            assert d.get("/v1/health/live", unix=True).status == 200
            assert d.stop() == 0
            assert os.path.exists(d.sock)
    os.unlink(d.sock)


@pytest.mark.parametrize("wrong", ["datagram", "connected", "two", "public"])
def test_what_is_no_listener_of_ours_is_refused(new_daemon, wrong):
    d = new_daemon()
    made = {"datagram": lambda: [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)],
            "connected": lambda: list(socket.socketpair())[:1],
            "two": lambda: [socket.create_server(("127.0.0.1", 0)) for _ in range(2)],
            "public": lambda: [socket.create_server(("0.0.0.0", 0))]}[wrong]()
    start_passed(d, made)
    d.expected_to_live = False
    assert d.process.wait(20) != 0
    assert "xinferd: " in d.log()
    d.process = None
    for s in made:
        s.close()


def ask_as(d, uid, groups, *command):
    done = subprocess.run([program("xinfer"), "--server", "unix:" + d.sock, *command],
                          user=uid, group=uid, extra_groups=groups, env=clean_env("/nonexistent"),
                          capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


@as_root
def test_the_socket_knows_who_administers(new_daemon, tmp_path):
    group = grp.getgrnam("games")
    d = new_daemon("--admin-group", group.gr_name, "--config", service_config(tmp_path))
    os.chmod(d.home, 0o755)
    d.start()
    os.chmod(d.state, 0o755)
    assert d.cli("load", models.write(tmp_path, "m"), "--name", "m",
                 env={"XINFER_SERVER": "unix:" + d.sock}).rc == 0
    assert ask_as(d, 65534, [], "ps")[0] == 0
    rc, said = ask_as(d, 65534, [], "unload", "m")
    assert rc != 0 and "XI-0602" in said and "group" in said
    assert ask_as(d, 65534, [group.gr_gid], "config", "set", "log_level=debug")[0] == 0
    assert ask_as(d, 65534, [group.gr_gid], "unload", "m")[0] == 0
    # TCP says nothing of who calls: inference, no control, even for root.
    assert d.get("/v1/models").status == 200
    assert d.post("/v1/control/unload", {"name": "m"}).status == 403
    assert d.get("/v1/control/configure").status == 403
    assert d.get("/metrics").status == 403


def service_config(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"anonymous": "infer"}')
    return path


def test_a_group_that_is_not_there_is_told(new_daemon):
    said = subprocess.run([program("xinferd"), "--admin-group", "no-such-group", "--state", "/tmp/x",
                           "--check-config"], capture_output=True, text=True, check=False,
                          env=clean_env("/nonexistent"))
    assert said.returncode != 0 and "no-such-group" in said.stderr
