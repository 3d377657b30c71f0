"""The zoo's voice-activity on half a minute of recorded conversation. What is expected was computed
by onnxruntime with Silero's own streaming model (zoo/voice-activity/make_golden.py)."""
import array
import json
import os
import signal
import threading
import wave

import pytest

from daemon import ROOT, Daemon, is_sanitized

FRAME, CONTEXT, RATE = 512, 64, 16000
SECONDS = 6 if is_sanitized() else 16  # that are streamed by each client


@pytest.fixture(scope="module")
def conversation():
    path = os.path.join(ROOT, "build", "deps", "sound", "conversation.wav")
    assert os.path.exists(path), "%s is missing: run  deps/fetch zoo" % path
    return path


@pytest.fixture(scope="module")
def expected():
    with open(os.path.join(ROOT, "tests", "data", "voice-activity", "conversation.json")) as f:
        return json.load(f)["speech"]


@pytest.fixture(scope="module")
def samples(conversation):
    with wave.open(conversation) as w:
        return w.readframes(w.getnframes())


@pytest.fixture(scope="module")
def ears():
    package = os.path.join(ROOT, "build", "zoo", "voice-activity.xpkg")
    assert os.path.exists(package), "%s is missing: run  make zoo" % package
    d = Daemon()
    d.crashing = ("voice-activity",)
    try:
        d.start()
        said = d.cli("load", package)
        assert said.rc == 0, said
        yield d
    finally:
        d.close()


def post(daemon, body, kind="application/octet-stream", **headers):
    sent = {"Content-Type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}}
    return daemon.post("/v1/infer/voice-activity", body, headers=sent)


def speech(answer):
    assert answer.status == 200, answer
    return answer.json()["outputs"]["speech"]


def close(got, wanted):
    assert len(got) == len(wanted)
    worst = max(abs(g - w) for g, w in zip(got, wanted))
    assert worst <= 1e-3, worst


def stream(daemon, samples, name, frames, after=None):
    """All of it in requests of so many frames; each brings the context. Returns the numbers."""
    got, n = [], SECONDS * RATE // FRAME
    for at in range(0, n, frames):
        begin = 2 * (at * FRAME - (CONTEXT if at else 0))
        end = 2 * min(at + frames, n) * FRAME
        flag = ";start" if at == 0 else ""
        got += speech(post(daemon, samples[begin:end], Xinfer_Sequence=name + flag))
        if after:
            after(len(got))
    return got


def test_clients_that_stream_at_once_get_their_own_numbers(ears, samples, expected):
    host = ears.get("/v1/models/voice-activity").json()["host_pid"]
    got, killed = {}, threading.Event()

    def kill_in_the_middle(n):
        if n > SECONDS * RATE // FRAME // 2 and not killed.is_set():
            killed.set()
            os.kill(host, signal.SIGKILL)

    def talk(name, frames, after=None):
        got[name] = stream(ears, samples, name, frames, after)

    clients = [threading.Thread(target=talk, args=("by-1", 1, kill_in_the_middle)),
               threading.Thread(target=talk, args=("by-4", 4)),
               threading.Thread(target=talk, args=("by-16", 16)),
               threading.Thread(target=talk, args=("by-31", 31))]
    for c in clients:
        c.start()
    for c in clients:
        c.join()
    assert killed.is_set() and len(got) == 4
    for numbers in got.values():
        close(numbers, expected[:SECONDS * RATE // FRAME])
    assert ears.get("/v1/models/voice-activity").json()["host_pid"] != host


def test_a_whole_file_in_one_request(ears, conversation, samples, expected):
    with open(conversation, "rb") as f:
        answer = post(ears, f.read(), kind="audio/wav")
    close(speech(answer), expected)
    assert answer.json()["outputs"]["frames"] == {"size": 512, "context": 64, "rate": RATE}
    cut = speech(post(ears, samples[:64000]))  # 62.5 frames: the last is filled up with silence
    assert len(cut) == 63
    close(cut[:62], expected[:62])


def test_raw_floats_are_the_same_sound(ears, samples, expected):
    whole = array.array("h", samples[:2 * 31 * FRAME])
    as_floats = array.array("f", [s / 32768 for s in whole]).tobytes()
    close(speech(post(ears, as_floats, Xinfer_Dtype="FP32")), expected[:31])
    close(speech(post(ears, whole.tobytes(), Xinfer_Dtype="INT16")), expected[:31])


def test_what_would_be_wrong_is_refused(ears, samples):
    assert post(ears, samples[:1024], Xinfer_Sequence="forgets;start").status == 200
    forgot = post(ears, samples[1024:2048], Xinfer_Sequence="forgets")
    assert (forgot.status, forgot.json()["code"]) == (400, "XI-0102")
    assert "64 samples" in forgot.json()["hint"]
    assert post(ears, b"RIFF\0\0\0\0WAVEfmt ", kind="audio/wav").json()["code"] == "XI-0104"
    assert post(ears, b"", Xinfer_Sequence="empty;start").status == 400
    assert post(ears, b"\xff\xd8\xff\xe0", kind="image/jpeg").status == 415
    assert post(ears, samples[:1024], Xinfer_Dtype="FP64").json()["code"] == "XI-0102"


def test_the_command_says_when_somebody_speaks(ears, conversation, expected):
    said = ears.cli("infer", "voice-activity", conversation, "--json")
    assert said.rc == 0, said
    segments = [json.loads(line) for line in said.stdout.splitlines()]
    spoken = [i for i, p in enumerate(expected) if p >= 0.5]
    frame_s = FRAME / RATE
    assert abs(segments[0]["start"] - spoken[0] * frame_s) < 1e-3
    assert abs(segments[-1]["end"] - len(samples_of(conversation)) / 2 / RATE) < 0.05
    inside = sum(any(s["start"] <= i * frame_s < s["end"] for s in segments) for i in spoken)
    assert inside >= 0.98 * len(spoken)
    silent = [i for i, p in enumerate(expected) if p < 0.1]
    assert not [i for i in silent[:150]
                if any(s["start"] <= i * frame_s < s["end"] for s in segments)]
    table = ears.cli("infer", "voice-activity", conversation)
    assert table.stdout.split()[:4] == ["START", "END", "SECONDS", "SPEECH"]
    assert len(table.stdout.splitlines()) == len(segments) + 1


def samples_of(path):
    with wave.open(path) as w:
        return w.readframes(w.getnframes())
