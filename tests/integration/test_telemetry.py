"""Telemetry as a console sees it: once, and again and again."""
import contextlib
import json
import os
import shutil
import threading
import time

import pytest

import models
from daemon import ROOT, wait_for
from test_events import bearer, stream, with_tokens

pytestmark = pytest.mark.tsan


@contextlib.contextmanager
def busy(daemon, model, headers=None):
    """Somebody who asks all the time; yields the list of what each answer took."""
    stop, done = threading.Event(), []

    def work():
        while not stop.is_set():
            assert models.ask(daemon, model, 1, 2, 3, 4, headers=headers).status == 200
            done.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def test_figures_of_the_machine_and_of_what_runs(daemon, tmp_path):
    assert daemon.cli("load", models.write(tmp_path, "night", models.DOUBLE)).rc == 0
    session = models.session(daemon, "night")
    with busy(daemon, "night") as done:
        time.sleep(4)
        got = daemon.get("/v1/telemetry").json()
        seen = len([t for t in done if t > time.monotonic() - 3]) / 3
    one = got["sessions"][0]
    assert (one["id"], one["name"], one["state"]) == (session["id"], "night", "READY")
    assert seen / 3 < one["fps"] < seen * 3  # an average of other seconds
    assert got["fps"] == pytest.approx(one["fps"])
    assert 0 < one["latency_us"]["p50"] <= one["latency_us"]["p99"] <= one["latency_us"]["max"]
    assert sum(count for _, count in one["histogram"]) == one["requests"] > 0
    assert [upper for upper, _ in one["histogram"]] == sorted(u for u, _ in one["histogram"])
    for key in ("gpu_temp", "cpu_temp", "npu_temp", "vram_usage", "ram_usage", "cpu_load"):
        assert got[key] is None or 0 <= got[key] < 150, key
    assert 0 < got["ram_usage"] < 1 and 0 < got["cpu_load"] <= 1
    tenant = got["tenants"][0]
    assert (tenant["name"], tenant["weight"]) == ("default", 1)
    cpu = next(d for d in got["devices"] if d["kind"] == "cpu")
    assert cpu["sessions"] == 1 and 0 < cpu["load"] <= 1
    assert got["uptime_s"] >= 4 and got["daemon"]["rss"] > 1e6
    assert abs(got["at_ms"] / 1000 - time.time()) < 60


def test_the_stream_repeats_it(daemon, tmp_path):
    assert daemon.cli("load", models.write(tmp_path, "night", models.DOUBLE)).rc == 0
    with contextlib.ExitStack() as several:
        streams = [several.enter_context(stream(daemon, "/v1/telemetry/stream?interval_ms=250"))
                   for _ in range(8)]
        began = time.monotonic()
        for _ in range(4):
            for s in streams:
                name, got = s.next()
                assert name == "telemetry" and got["sessions"][0]["name"] == "night"
        assert 0.5 < time.monotonic() - began < 30
        assert daemon.cli("unload", "night").rc == 0
        streams[0].until(lambda _, t: t["sessions"] == [])
    for wrong in ("interval_ms=10", "interval_ms=60001", "interval_ms=x", "interval=1000"):
        assert daemon.get("/v1/telemetry/stream?" + wrong).status == 400


def test_a_tenant_sees_its_own(new_daemon, tmp_path):
    daemon = with_tokens(new_daemon, tmp_path, "acme-control", "rival-infer", "default-admin")
    package = models.write(tmp_path, "night", models.DOUBLE)
    assert daemon.cli("load", package, env={"XINFER_TOKEN": "acme-control"}).rc == 0

    def telemetry(token):
        return daemon.get("/v1/telemetry", headers=bearer(token)).json()

    assert [s["name"] for s in telemetry("acme-control")["sessions"]] == ["night"]
    assert [t["name"] for t in telemetry("acme-control")["tenants"]] == ["acme"]
    rival = telemetry("rival-infer")
    assert rival["sessions"] == [] and rival["pool"] is None and rival["daemon"] is None
    assert all(d["sessions"] == 0 for d in rival["devices"])
    everything = telemetry("default-admin")
    assert [s["tenant"] for s in everything["sessions"]] == ["acme"]
    assert {"default", "acme"} <= {t["name"] for t in everything["tenants"]}
    with stream(daemon, "/v1/telemetry/stream?interval_ms=250", bearer("rival-infer")) as s:
        assert s.next()[1]["sessions"] == []
        assert s.next()[1]["sessions"] == []


def test_sensors_of_another_board(new_daemon, tmp_path):
    board, config = tmp_path / "board", tmp_path / "config.json"
    shutil.copytree(os.path.join(ROOT, "tests", "data", "boards", "rk3588-npu"), board)
    config.write_text(json.dumps({"sensors_root": str(board)}))
    daemon = new_daemon("--config", str(config)).start()
    got = wait_for(lambda: (t := daemon.get("/v1/telemetry").json())["npu_temp"] and t)
    assert (got["npu_temp"], got["gpu_temp"], got["cpu_temp"]) == (47.5, 43, 46)
    assert got["vram_usage"] is None and got["board_power_w"] is None
    npu = next(d for d in got["devices"] if d["id"] == "npu:0")
    assert (npu["kind"], npu["source"], npu["load"], npu["clock_mhz"]) == ("npu", "devfreq", 0.3, 1000)
    sensors = {s["name"]: s for s in daemon.get("/v1/device/capabilities").json()["sensors"]}
    assert sensors["devfreq"] == {"name": "devfreq", "state": "present", "missing": None}
    assert sensors["nvml"]["state"] == "absent" and "libnvidia-ml" in sensors["nvml"]["missing"]
    assert "devfreq" in daemon.cli("doctor").stdout
    with stream(daemon, "/v1/events/stream") as s:
        (board / "sys/class/thermal/thermal_zone3/temp").write_text("115000\n")
        hot = s.until(lambda _, e: daemon.get("/v1/telemetry") and e["event"] == "device.hot")
        assert (hot["fields"]["device"], hot["level"]) == ("npu:0", "error")
        (board / "sys/class/thermal/thermal_zone3/temp").write_text("90000\n")
        cool = s.until(lambda _, e: e["event"].startswith("device."))
        assert (cool["event"], cool["fields"]["device"]) == ("device.cool", "npu:0")
    shutil.rmtree(board / "sys" / "class" / "devfreq")
    wait_for(lambda: not [d for d in daemon.get("/v1/telemetry").json()["devices"]
                          if d["kind"] == "npu"])
    assert "sensor.gone" in daemon.log()


def test_sessions_leave_a_device_that_is_too_hot(simulated, tmp_path):
    board = tmp_path / "board"
    shutil.copytree(os.path.join(ROOT, "tests", "data", "boards", "rk3588-npu"), board)
    zone = board / "sys/class/thermal/thermal_zone3/temp"
    daemon = simulated(sensors_root=str(board)).start()
    for name, device in (("cold", "GPU.0"), ("warm", "NPU.0")):
        path = models.package(tmp_path, name, models.DOUBLE, engine="simulated", device=device)
        assert daemon.cli("load", path).rc == 0
    got = daemon.get("/v1/telemetry").json()
    npu = next(d for d in got["devices"] if d["kind"] == "npu")
    assert (npu["id"], npu["source"], npu["engine"]) == ("npu:0", "devfreq", "simulated")
    assert npu["sessions"] == 1

    def state(name):
        daemon.get("/v1/telemetry")  # somebody looks: sensors are read each second
        return models.session(daemon, name)["state"]

    zone.write_text("115500\n")
    wait_for(lambda: state("warm") == "FAILED")
    assert "too hot" in models.session(daemon, "warm")["why"]["detail"]
    assert state("cold") == "READY"
    zone.write_text("60000\n")
    wait_for(lambda: state("warm") == "READY")
    assert models.numbers(models.ask(daemon, "warm", 1, 2, 3, 4)) == [3, 5, 7, 9]


def test_metrics_have_series_of_what_is_loaded_only(daemon, tmp_path):
    package = models.write(tmp_path, "night", models.DOUBLE)

    def series():
        return len([line for line in daemon.get("/metrics").body.decode().splitlines()
                    if not line.startswith("#")])

    before = series()
    for i in range(10):
        assert daemon.cli("load", package, "--name", "m%d" % i).rc == 0
        assert daemon.cli("unload", "m%d" % i).rc == 0
    for i in range(1000):
        assert daemon.get("/v1/models/no-such-%d" % i).status == 404
    wait_for(lambda: series() == before, 10, "series to go")
