"""HTTP/2 on the port and on the socket that speak HTTP/1.1, with clients that others wrote."""
import json
import subprocess

import pytest

import models


def curl(*args, body=None, how="--http2-prior-knowledge"):
    """(status, protocol version, body) of one request over HTTP/2."""
    done = subprocess.run(["curl", "-sS", "--max-time", "30", how,
                           "-w", "\n%{http_code} %{http_version}", *args],
                          input=body, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    said, _, line = done.stdout.rpartition(b"\n")
    status, version = line.decode().split()
    return int(status), version, said


@pytest.mark.parametrize("over", ["tcp", "socket"])
def test_curl(daemon, over):
    where = ["--unix-socket", daemon.sock] if over == "socket" else []
    url = daemon.url if over == "tcp" else "http://localhost"
    assert curl(*where, url + "/v1/health/live") == (200, "2", b'{"live":true}')
    status, version, body = curl(*where, url + "/v1/nowhere")
    assert (status, version, json.loads(body)["code"]) == (404, "2", "XI-0202")
    assert curl("-I", *where, url + "/v1/models")[0] == 200
    # The port speaks HTTP/1.1, too, and stays with it: there is nothing to upgrade to.
    assert curl(*where, url + "/v1/health/live", how="--http2") == (200, "1.1", b'{"live":true}')


def test_bodies_come_back_as_they_went(daemon, tmp_path):
    """Below a frame, beyond a window, and of a length that nobody knows beforehand."""
    for n in (0, 1, 1000, 70_000, 3_000_001):
        body = bytes(i * 7 % 251 for i in range(1000)) * (n // 1000 + 1)
        path = tmp_path / "body"
        path.write_bytes(body[:n])
        octets = ["-H", "Content-Type: application/octet-stream", daemon.url + "/v1/echo"]
        assert curl("--data-binary", "@%s" % path, *octets) == (200, "2", body[:n])
        assert curl("-X", "POST", "-T", "-", *octets, body=body[:n]) == (200, "2", body[:n])


def test_a_package_is_uploaded_and_asked(daemon, tmp_path):
    path = models.package(tmp_path, "double", models.DOUBLE)
    status, _, body = curl("--data-binary", "@%s" % path, "-H",
                           "Content-Type: application/vnd.xinfer.xpkg",
                           daemon.url + "/v1/control/packages")
    assert status == 201, body
    status, _, body = curl("-H", "Content-Type: application/json", "-d", '{"package":"double"}',
                           daemon.url + "/v1/control/load")
    assert status == 200, body
    status, _, body = curl("--data-binary", "@-", "-H", "Content-Type: application/octet-stream",
                           "-H", "Xinfer-Dtype: FP32", "-H", "Xinfer-Shape: 1,4",
                           daemon.url + "/v1/infer/double", body=models.floats(1, 2, 3, 4))
    assert (status, json.loads(body)["outputs"][0]["data"]) == (200, [3, 5, 7, 9])


def test_an_answer_that_comes_early_is_whole(daemon, tmp_path):
    path = tmp_path / "body"
    path.write_bytes(bytes(3_000_000))
    status, _, body = curl("--data-binary", "@%s" % path, "-H", "Content-Type: application/json",
                           daemon.url + "/v1/control/load")
    assert (status, json.loads(body)["code"]) == (413, "XI-0107")
