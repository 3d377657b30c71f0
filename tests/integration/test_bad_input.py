"""What people do wrong, and what breaks around a daemon: a clear typed error each, nothing lost."""
import io
import json
import os
import shutil
import struct
import subprocess
import tempfile
import time
import zipfile
import zlib

import pytest
from PIL import Image

import models
from daemon import (build_dir, clean_env, free_port, is_sanitized, program, run_program, wait_for)
from models import ask, floats, numbers, session

COLOURS = """xref 1
input x FP32 [1,2,2,3]
output y FP32 [1,2,2,3]
y = copy x
"""
FLOW = {"steps": [{"op": "decode_image", "in": "input", "out": "photo"},
                  {"op": "resize", "in": "photo", "out": "small", "width": 2, "height": 2,
                   "filter": "nearest"},
                  {"op": "to_tensor", "in": "small", "out": "pixels"},
                  {"op": "infer", "model": "main", "in": "pixels", "out": "y"}],
        "output": {"tensors": ["y"]}}


class Guarded:
    """A daemon with a neighbour that must notice nothing of what a test does."""
    def __init__(self, daemon):
        self.daemon = daemon
        self.sessions = self.names()

    def names(self):
        return sorted(s["name"] for s in self.daemon.get("/v1/models").json()["models"])

    def check(self):
        assert numbers(ask(self.daemon, "neighbour", 1, 2, 3, 4)) == [3, 5, 7, 9]
        assert self.names() == self.sessions
        assert self.daemon.get("/v1/health/ready").status == 200
        staging = os.path.join(self.daemon.state, "staging")
        wait_for(lambda: os.listdir(staging) == [], 5, "staging to be empty")
        wait_for(lambda: len(self.daemon.hosts()) == len(self.sessions), 5, "as many hosts as sessions")


@pytest.fixture
def guarded(daemon, tmp_path):
    assert daemon.cli("load", models.write(tmp_path, "neighbour")).rc == 0
    g = Guarded(daemon)
    yield g
    g.check()


@pytest.fixture
def eye(daemon, tmp_path):
    """A model that takes pictures: it answers the four corners' colours."""
    folder = tmp_path / "eye"
    folder.mkdir()
    said = daemon.cli("load", models.package(folder, "eye", COLOURS, flow=FLOW))
    assert said.rc == 0, said


@pytest.fixture
def guarded_eye(eye, guarded):
    return guarded


def refused(answer, status, code, *words):
    """A problem document (RFC 9457) with our code, and a sentence with these words in it."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["code"] == code and told["status"] == status, told
    assert len(told["detail"]) >= 15 and told["title"], told
    for word in words:
        assert word in told["detail"] + " " + told.get("hint", ""), told
    assert "/src/" not in told["detail"] and "staging" not in told["detail"], told
    return told


def told_by_command(said, code, *words):
    assert said.rc != 0 and said.stdout == "", said
    told = json.loads(said.stderr)
    assert told["code"] == code, said
    for word in words:
        assert word in told["detail"] + " " + told.get("hint", ""), said
    return told


# ---- pictures ----

def encoded(kind, size=(40, 30), colour=(10, 20, 30)):
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


def png_of(width, height):
    """A PNG whose header says so; its data is that of a small picture."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b""))


def jpeg_of(width, height):
    """A JPEG whose frame header says so (a side has 16 bits)."""
    data = bytearray(encoded("JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at:at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def see(daemon, body, kind="image/png"):
    return daemon.post("/v1/infer/eye", body, headers={"Content-Type": kind})


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_good_picture_for_comparison(guarded_eye, kind):
    answer = see(guarded_eye.daemon, encoded(kind), "image/" + kind.lower())
    assert answer.status == 200, answer
    values = answer.json()["outputs"]["tensors"][0]["data"]
    assert len(values) == 12
    assert all(abs(v - w) <= 2 for v, w in zip(values, [10, 20, 30] * 4)), values


BAD_PICTURES = {
    "text as a JPEG": (b"Dear Sir or Madam, this is a letter.", "image/jpeg"),
    "nothing": (b"", "image/jpeg"),
    "one byte": (b"\xff", "image/jpeg"),
    "half a PNG": (encoded("PNG")[:60], "image/png"),
    "half a JPEG": (encoded("JPEG")[:400], "image/jpeg"),
    "a JPEG without its end": (encoded("JPEG", (300, 300))[:-200], "image/jpeg"),
    "0x0 PNG": (png_of(0, 0), "image/png"),
    "100k x 100k PNG": (png_of(100000, 100000), "image/png"),
    "a PNG of 2^31-1 x 2^31-1": (png_of(2**31 - 1, 2**31 - 1), "image/png"),
    "a PNG with less data than it says": (png_of(2000, 2000), "image/png"),
    "0x0 JPEG": (jpeg_of(0, 0), "image/jpeg"),
    "65535 x 65535 JPEG": (jpeg_of(65535, 65535), "image/jpeg"),
    "a GIF": (encoded("GIF"), "image/png"),
    "a PNG with a broken checksum": (encoded("PNG")[:40] + b"\0\0\0\0" + encoded("PNG")[44:],
                                     "image/png"),
}


@pytest.mark.parametrize("what", BAD_PICTURES)
def test_pictures_that_are_none(guarded_eye, what):
    body, kind = BAD_PICTURES[what]
    before = session(guarded_eye.daemon, "eye")
    refused(see(guarded_eye.daemon, body, kind), 400, "XI-0104")
    after = session(guarded_eye.daemon, "eye")
    assert (after["host_pid"], after["restarts"]) == (before["host_pid"], 0)
    assert see(guarded_eye.daemon, encoded("PNG")).status == 200


def test_the_command_tells_of_a_bad_picture(guarded_eye, tmp_path):
    letter = tmp_path / "photo.jpg"
    letter.write_bytes(encoded("JPEG")[:300])
    told_by_command(guarded_eye.daemon.cli("infer", "eye", letter, "--json"), "XI-0104")
    letter.write_text("Dear Sir or Madam")
    told = told_by_command(guarded_eye.daemon.cli("infer", "eye", letter, "--json"), "XI-0104")
    assert "JPEG" in told["detail"]
    told = told_by_command(guarded_eye.daemon.cli("infer", "neighbour", letter, "--json"), "XI-0101")
    assert "--shape" in told["hint"]


# ---- tensors and names ----

@pytest.mark.parametrize("dtype,shape,values,words", [
    ("FP32", "1,3", 3, ["1,3"]), ("FP32", "4", 4, []), ("FP32", "1,1,4", 4, []),
    ("FP64", "1,4", 8, ["FP64"]), ("INT32", "1,4", 4, ["INT32"]), ("FP32", "1,4", 3, []),
    ("FP32", "1,4", 5, []), ("FP32", "1,-4", 4, []), ("FP32", "1152921504606846976,4", 4, []),
    ("FP32", "one,4", 4, []), ("FLOAT", "1,4", 4, ["FLOAT"]), ("FP32", ",".join(["1"] * 65), 1, []),
])
def test_tensors_that_do_not_fit(guarded, dtype, shape, values, words):
    answer = guarded.daemon.post("/v1/infer/neighbour", bytes(4 * values), headers={
        "Content-Type": "application/octet-stream", "Xinfer-Dtype": dtype, "Xinfer-Shape": shape})
    assert answer.status == 400, answer
    refused(answer, 400, answer.json()["code"], *words)
    assert answer.json()["code"] in ("XI-0101", "XI-0102")


def test_a_picture_for_a_model_of_tensors(guarded):
    answer = guarded.daemon.post("/v1/infer/neighbour", encoded("PNG"),
                                 headers={"Content-Type": "image/png"})
    assert answer.status in (400, 415), answer
    refused(answer, answer.status, answer.json()["code"])


def test_a_model_that_is_not_there(guarded):
    refused(ask(guarded.daemon, "neigbour", 1, 2, 3, 4), 404, "XI-0201", "neighbour")
    refused(ask(guarded.daemon, "0d1d3f2e-0000-4000-8000-000000000000", 1, 2, 3, 4), 404, "XI-0201")
    refused(guarded.daemon.post("/v1/control/unload", {"name": "nieghbour"}), 404, "XI-0201",
            "neighbour")
    refused(guarded.daemon.post("/v1/control/load", {"package": "neighbor"}), 404, "XI-0201",
            "neighbour")


# ---- packages ----

def broken_packages(good):
    foreign = io.BytesIO()
    with zipfile.ZipFile(foreign, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("readme.txt", "a zip, but no package")
    return {
        "nothing in it": b"\0",
        "a letter": b"Dear Sir or Madam",
        "half": good[:len(good) // 2],
        "its last byte missing": good[:-1],
        "one byte more": good + b"\0",
        "another zip": foreign.getvalue(),
        "a flipped byte in the manifest": flipped(good, good.index(b'"xpkg"') + 1),
        "a flipped byte in the model": flipped(good, good.index(b"xref 1\n") + 9),
        "a flipped byte in its directory": flipped(good, good.rindex(b"PK\1\2") + 16),
    }


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1:]


@pytest.mark.parametrize("what", broken_packages(b'"xpkg" xref 1\n              PK\1\2' + bytes(40)))
def test_packages_that_are_broken(guarded, tmp_path, what):
    folder = tmp_path / "p"
    folder.mkdir()
    package = models.package(folder, "tiny", models.DOUBLE)
    data = broken_packages(package.read_bytes())[what]
    sent = {"Content-Type": "application/vnd.xinfer.xpkg"}
    answer = guarded.daemon.post("/v1/control/packages", data, headers=sent)
    assert answer.status == 422, answer
    refused(answer, 422, answer.json()["code"])
    assert answer.json()["code"] in ("XI-0301", "XI-0303"), answer
    package.write_bytes(data)
    told_by_command(guarded.daemon.cli("load", package, "--json"), answer.json()["code"], "tiny.xpkg")
    assert [p["name"] for p in guarded.daemon.get("/v1/packages").json()["packages"]] == ["neighbour"]


def test_a_package_for_an_engine_that_is_not_here(guarded, tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    package = models.package(folder, "exotic", models.DOUBLE, engine="nosuch")
    told = told_by_command(guarded.daemon.cli("load", package, "--json"), "XI-0401", "nosuch")
    assert "xinfer doctor" in told["hint"]


# ---- starting a daemon ----

def start(*args, **kw):
    return run_program("xinferd", *args, timeout=20, **kw)


def test_a_port_in_use(guarded, new_daemon):
    said = start("--listen", "127.0.0.1:%d" % guarded.daemon.port, "--state", new_daemon().state)
    assert said.rc == 1 and "XI-0803" in said.stderr and str(guarded.daemon.port) in said.stderr, said


def test_a_second_daemon_on_the_same_store(guarded):
    said = start("--listen", "127.0.0.1:%d" % free_port(), "--state", guarded.daemon.state)
    assert said.rc == 1 and "XI-0802" in said.stderr, said
    assert str(guarded.daemon.pid) in said.stderr and "--state" in said.stderr


@pytest.fixture
def other_home():
    home = tempfile.mkdtemp(prefix="xi-")
    yield home
    shutil.rmtree(home)


def test_a_store_that_is_a_file(other_home):
    path = os.path.join(other_home, "state")
    with open(path, "w") as f:
        f.write("not a directory")
    said = start("--listen", "127.0.0.1:%d" % free_port(), "--state", path)
    assert said.rc == 1 and "XI-0505" in said.stderr and path in said.stderr, said
    with open(path) as f:
        assert f.read() == "not a directory"


def test_a_store_that_may_not_be_written(other_home):
    if os.geteuid() != 0:
        os.chmod(other_home, 0o555)
        prefix = []
    else:
        os.chmod(other_home, 0o755)
        prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = subprocess.run([*prefix, program("xinferd"), "--listen", "127.0.0.1:%d" % free_port(),
                           "--state", other_home + "/state"], env=clean_env("/nonexistent"), text=True,
                          capture_output=True, timeout=60, check=False, cwd="/")
    os.chmod(other_home, 0o755)
    if done.returncode == 127:
        pytest.skip("the build lies where others cannot enter")
    assert done.returncode == 1 and "XI-0505" in done.stderr and "--state" in done.stderr, done
    assert os.listdir(other_home) == []


@pytest.mark.parametrize("text,words", [
    ('{"lisen": "127.0.0.1:1"}', ["lisen", "listen"]), ('{"cores": "many"}', ["cores"]),
    ('{"queue_limit": 0}', ["queue_limit", "1"]), ('{"sandbox": 1}', ["sandbox"]), ("[]", ["object"]),
    ('{"listen": ', []), ('{"listen": "nowhere"}', ["listen"]), ('{"drain_ms": 1e9}', ["drain_ms"]),
    ('{"listen": "0.0.0.0:9"}', ["token"]), ('{"state": "/x", "state": "/y"}', ["state"]),
])
def test_settings_that_are_wrong(other_home, text, words):
    path = os.path.join(other_home, "config.json")
    with open(path, "w") as f:
        f.write(text)
    for args in (["--check-config"], []):
        said = start("--config", path, "--state", other_home + "/state", *args)
        assert said.rc != 0 and said.stdout == "" and "XI-0801" in said.stderr, said
        for word in words:
            assert word in said.stderr, said
    assert os.listdir(other_home) == ["config.json"], "nothing was made"


def test_settings_that_are_right(other_home):
    path = os.path.join(other_home, "config.json")
    with open(path, "w") as f:
        json.dump({"listen": "127.0.0.1:1", "x-note": "mine", "input_memory": "64MiB"}, f)
    said = start("--config", path, "--state", other_home + "/state", "--check-config")
    assert said.rc == 0 and "127.0.0.1:1" in said.stdout and said.stderr == "", said
    assert os.listdir(other_home) == ["config.json"]


def test_a_flag_that_is_nearly_right():
    said = start("--lisen", "127.0.0.1:1")
    assert said.rc == 2 and "--listen" in said.stderr, said


# ---- engine plugins that are none ----

BAD_ENGINES = {
    "badabi": "ABI", "badtable": "table", "nosymbol": "xi_engine_entry", "ctorcrash": "SIGABRT",
    "probecrash": "SIGSEGV", "probehang": "5 s", "open": "everybody can write",
    "text": "cannot be opened",
}


@pytest.mark.crashes("probe")
def test_engines_that_are_none(new_daemon, tmp_path, other_home):
    os.chmod(other_home, 0o755)
    engines = os.path.join(other_home, "engines")
    os.mkdir(engines, 0o755)

    def install(source, name, mode=0o755):
        path = os.path.join(engines, "libxinfer_engine_%s.so" % name)
        shutil.copy(source, path)
        os.chmod(path, mode)
    reference = os.path.join(build_dir(), "lib/xinfer/libxinfer_engine_reference.so")
    install(reference, "reference")
    install(reference, "open", 0o777)
    for name in BAD_ENGINES:
        if name not in ("open", "text"):
            install(os.path.join(build_dir(), "test/engines/libxinfer_engine_%s.so" % name), name)
    with open(os.path.join(engines, "libxinfer_engine_text.so"), "w") as f:
        f.write("not even a program")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"engine_dir": engines}))
    daemon = new_daemon("--config", str(config))
    daemon.start()
    assert daemon.cli("load", models.write(tmp_path, "neighbour")).rc == 0
    told = {e["name"]: e for e in daemon.get("/v1/device/capabilities").json()["engines"]}
    assert set(told) == set(BAD_ENGINES) | {"reference"}
    assert told["reference"]["present"] and told["reference"]["missing"] is None
    for name, why in BAD_ENGINES.items():
        assert not told[name]["present"], told[name]
        if not (is_sanitized() and name in ("ctorcrash", "probecrash")):  # those end by exit code
            assert why in told[name]["missing"], told[name]
    said = daemon.cli("doctor", "--json")
    assert said.rc == 0, said
    checks = {c["name"]: c for c in map(json.loads, said.stdout.splitlines())}
    assert checks["engine reference"]["state"] == "ok"
    for name in BAD_ENGINES:
        assert checks["engine " + name]["state"] == "warn", checks
        assert checks["engine " + name]["value"] == told[name]["missing"]
    folder = tmp_path / "p"
    folder.mkdir()
    wanted = daemon.cli("load", models.package(folder, "wants", models.DOUBLE, engine="probecrash"), "--json")
    told_by_command(wanted, "XI-0401", "probecrash")
    Guarded(daemon).check()


# ---- models that leave things behind ----

@pytest.mark.parametrize("fault", ["fds 300", "threads 40", "print 200000"])
def test_a_model_that_leaves_things_behind(guarded, tmp_path, fault):
    daemon = guarded.daemon
    before, began = daemon.open_fds(), time.monotonic()
    assert daemon.cli("load", models.write(tmp_path, "messy", models.DOUBLE, fault), "--instances",
                      "1").rc == 0
    for i in range(30):
        answer = ask(daemon, "messy", float(i), 0, 0, 0)
        assert answer.status in (200, 500, 503, 507), answer
        if answer.status == 200:
            assert numbers(answer)[0] == 2 * i + 1
        else:
            assert answer.json()["code"].startswith("XI-04") or answer.json()["code"] == "XI-0504", answer
        assert numbers(ask(daemon, "neighbour", 1, 2, 3, 4)) == [3, 5, 7, 9]
    assert daemon.cli("unload", "messy").rc == 0
    assert time.monotonic() - began < 10, "threads that sleep take no time from others"
    wait_for(lambda: len(daemon.hosts()) == 1, 10, "its host to end with all it held")
    wait_for(lambda: daemon.open_fds() <= before + 4, 10, "the daemon's descriptors to come back")


def test_texts_come_back_and_lengths_that_lie_are_refused(daemon, tmp_path):
    text = "xref 1\ninput x BYTES [-1]\noutput y BYTES [-1]\ny = copy x\n"
    assert daemon.cli("load", models.write(tmp_path, "texts", text), "--name", "texts").rc == 0
    words = ["", "hello", "\u00fc\u20ac", "a" * 5000]
    said = daemon.post("/v1/infer/texts", {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [4],
                                                       "data": words}]})
    assert said.status == 200 and said.json()["outputs"][0]["data"] == words
    for body in (b"\x06\0\0\0hello", b"\xff\xff\xff\xff", b"\0\0"):
        said = daemon.post("/v1/infer/texts", body, headers={
            "Content-Type": "application/octet-stream", "Xinfer-Dtype": "BYTES", "Xinfer-Shape": "1"})
        assert said.status == 400, said
