"""What people watch a daemon with: xinfer top and xinfer logs."""
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

import models
from daemon import clean_env, program, wait_for
from models import ask


def test_logs_show_what_happened_and_follow_what_happens(daemon, tmp_path):
    assert daemon.cli("load", models.write(tmp_path, "one")).rc == 0
    said = daemon.cli("logs")
    assert said.rc == 0 and re.search(r"^\S+ \S+ info  session.ready .*name=one", said.stdout, re.M), said
    lines = [json.loads(line) for line in daemon.cli("logs", "--json", "-n", "3").stdout.splitlines()]
    assert len(lines) == 3 and lines[-1]["fields"]["name"] == "one"
    follower = subprocess.Popen([program("xinfer"), "logs", "-f", "--json", "-n", "1"], text=True,
                                stdout=subprocess.PIPE, env=clean_env(daemon.home, {"XINFER_SERVER": daemon.url}))
    try:
        assert json.loads(follower.stdout.readline())["fields"]["name"] == "one"
        assert daemon.cli("load", models.write(tmp_path, "two")).rc == 0
        seen = []
        while not any(e["event"] == "session.ready" for e in seen):
            seen.append(json.loads(follower.stdout.readline()))
        assert all(e["fields"].get("name") == "two" for e in seen if e["event"].startswith("session."))
    finally:
        follower.terminate()
        follower.communicate()


def test_logs_of_a_level_and_worse(daemon):
    daemon.post("/v1/control/packages", b"no package", headers={"Content-Type": "application/vnd.xinfer.xpkg"})
    said = daemon.cli("logs", "--json", "--level", "warn")
    assert {json.loads(line)["level"] for line in said.stdout.splitlines()} <= {"warn", "error"}
    wrong = daemon.cli("logs", "--level", "loud")
    assert wrong.rc == 2 and "loud" in wrong.stderr


def test_top_on_a_pipe_is_one_page_and_json_one_object_each(daemon, tmp_path):
    assert daemon.cli("load", models.write(tmp_path, "seen")).rc == 0
    page = daemon.cli("top").stdout
    assert "\x1b" not in page and re.search(r"^ seen +default +READY", page, re.M), page
    assert re.search(r"^ cpu\S* +cpu ", page, re.M | re.I), page
    said = daemon.cli("top", "--json", "--count", "2", "--interval", "100")
    objects = [json.loads(line) for line in said.stdout.splitlines()]
    assert len(objects) == 2 and objects[0]["sessions"][0]["name"] == "seen"
    assert daemon.cli("top", "--sort", "beauty").rc == 2


class Terminal:
    """A program on a terminal of its own, 120 by 30."""

    def __init__(self, command, env):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, env)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        self.text = ""

    def read_until(self, what, seconds=20):
        end = time.monotonic() + seconds
        while what not in self.text and time.monotonic() < end:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:  # it closed its side
                    break
        assert what in self.text, self.text

    def press(self, key):
        os.write(self.fd, key.encode())


def test_top_on_a_terminal_lives_and_leaves_it_as_it_was(daemon, tmp_path):
    assert daemon.cli("load", models.write(tmp_path, "alive")).rc == 0
    for i in range(20):
        assert ask(daemon, "alive", float(i), 0, 0, 0).status == 200
    env = clean_env(daemon.home, {"XINFER_SERVER": daemon.url, "TERM": "xterm", "LC_ALL": "C.UTF-8"})
    t = Terminal([program("xinfer"), "top", "--interval", "200"], env)
    try:
        t.read_until("alive")
        t.read_until("by fps")
        t.press("n")
        t.read_until("by name")
        t.press("p")
        t.read_until("paused")
        t.press("q")
        t.read_until("\x1b[?1049l")
        assert all(len(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)) <= 120
                   for line in t.text.replace("\r", "").split("\n"))
    finally:
        os.close(t.fd)
    gone = wait_for(lambda: os.waitpid(t.pid, os.WNOHANG)[0] == t.pid, 10, "top to end")
    assert gone
