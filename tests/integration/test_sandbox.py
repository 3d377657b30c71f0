"""A hostile engine in its host: what it tries fails or ends that host, and nobody else notices."""
import json
import os
import struct

import pytest

import models
from daemon import build_dir, wait_for
from models import ask, numbers, session

pytestmark = pytest.mark.release  # sanitizers need the calls that are refused

# What must be refused with an errno, or end the host. The detail says how many steps worked.
FORBIDDEN = {1: "kill the daemon", 2: "open /etc/passwd", 3: "open a socket", 4: "fork",
             6: "ptrace the daemon", 7: "read the daemon's memory", 8: "become a shell",
             10: "signal the daemon by pidfd", 12: "resize or punch what it was given",
             14: "signal a thread of the daemon", 15: "set up io_uring", 16: "make namespaces",
             18: "connect to Unix sockets", 19: "fork 50 times", 25: "open the daemon's memory",
             26: "change the daemon's limits"}
# What may do harm to its own host only, which may live or end.
SELF_HARM = {5: "take 64 GiB", 9: "write files", 11: "scribble over shared memory",
             13: "close its descriptors", 17: "send garbage to the daemon",
             20: "claim a gigabyte of output", 21: "claim rank 100", 22: "claim dtype 99",
             23: "claim negative dimensions", 24: "change the output after the answer"}


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """A folder with the reference engine and the hostile one."""
    folder = tmp_path_factory.mktemp("engines")
    for where, name in (("lib/xinfer", "reference"), ("test/engines", "hostile")):
        file = "libxinfer_engine_%s.so" % name
        os.link(os.path.join(build_dir(), where, file), folder / file) if same_disk(
            os.path.join(build_dir(), where, file), folder) else copy(
            os.path.join(build_dir(), where, file), folder / file)
    return str(folder)


def same_disk(a, b):
    return os.stat(a).st_dev == os.stat(b).st_dev


def copy(source, target):
    target.write_bytes(open(source, "rb").read())
    target.chmod(0o755)


@pytest.fixture
def attacked(new_daemon, engines, tmp_path):
    """A daemon with a hostile session and a neighbour."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"engine_dir": engines, "host_memory": "512MiB",
                                  "watchdog_min_ms": 3000}))
    daemon = new_daemon("--config", str(config)).start()
    (tmp_path / "m.bin").write_bytes(b"anything")
    recipe = {"recipe": 1, "manifest": {"xpkg": 1, "name": "hostile", "version": "1.0.0",
                           "license": "Apache-2.0", "description": "attacks its host",
                           "input": "tensors", "output": "tensors",
                           "models": {"main": {"variants": [
                               {"id": "h", "files": ["variants/m.bin"], "format": "hostile",
                                "engine": {"name": "hostile"}, "precision": "f32"}]}}},
              "files": {"variants/m.bin": {"file": "m.bin"}}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    package = str(tmp_path / "hostile.xpkg")
    said = daemon.cli("pack", tmp_path / "recipe.json", "-o", package)
    assert said.rc == 0, said
    for what in (package, models.write(tmp_path, "neighbour")):
        said = daemon.cli("load", what)
        assert said.rc == 0, said
    return daemon


def attack(daemon, code, argument=0.0):
    """[errno, code, detail] of the attack, or None when there was no answer."""
    body = struct.pack("<4f", code, argument, 0, 0)
    answer = daemon.post("/v1/infer/hostile", body, timeout=90,
                         headers={"Content-Type": "application/octet-stream",
                                  "Xinfer-Dtype": "FP32", "Xinfer-Shape": "4"})
    if answer.status != 200:
        assert answer.json()["code"].startswith("XI-"), answer
        return None
    return numbers(answer)


def assert_nobody_noticed(daemon):
    assert daemon.process.poll() is None, daemon.log()
    assert numbers(ask(daemon, "neighbour", 1, 2, 3, 4)) == [3, 5, 7, 9]
    assert session(daemon, "neighbour")["crashes"] == 0


@pytest.mark.parametrize("code", FORBIDDEN, ids=FORBIDDEN.values())
def test_it_cannot(attacked, code):
    got = attack(attacked, code)
    assert got is None or got[0] != 0, "the attack worked: %s" % got
    assert_nobody_noticed(attacked)


@pytest.mark.parametrize("code", SELF_HARM, ids=SELF_HARM.values())
def test_it_harms_itself_alone(attacked, code):
    got = attack(attacked, code, 1.0 if code == 24 else 0.0)
    if code == 9 and got is not None:
        assert got[2] == 0, "it wrote %d files after it was READY" % got[2]
    if code == 5 and got is not None:
        assert got[2] < 1024, "it got %d MiB, the limit is 512" % got[2]
    assert_nobody_noticed(attacked)
    # Code 24 spoils its own answers while it lasts, one second.
    wait_for(lambda: attack(attacked, 0, 7.0) == [0, 0, 7.0, 0], 20,
             "the hostile session to serve again")


def test_capabilities_say_what_is_in_force(attacked):
    said = session(attacked, "hostile")
    assert "seccomp" in said["sandbox"]
