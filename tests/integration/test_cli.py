"""The xinfer command as its user meets it: every verb, what it prints where, and how it exits."""
import http.server
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import pytest

import models
from daemon import (ROOT, Daemon, build_dir, clean_env, free_port, is_running, is_sanitized, program,
                    run_program, wait_for)
from models import floats, numbers, session

VERBS = ["run", "serve", "load", "unload", "promote", "rollback", "infer", "ls", "ps", "top", "logs", "why",
         "pack", "inspect", "doctor", "config", "help", "version"]
RAW = ("--dtype", "FP32", "--shape", "1,4")


@pytest.fixture
def model(tmp_path):
    return models.write(tmp_path, "double")


@pytest.fixture
def numbers_file(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(floats(1, 2, 3, 4))
    return str(path)


@pytest.fixture
def loaded(daemon, model):
    said = daemon.cli("load", model)
    assert said.rc == 0, said
    return daemon


def lines(text):
    """Each line of --json output, parsed."""
    return [json.loads(line) for line in text.splitlines()]


def problem(said, exit_code, code):
    """The one object that a refused command with --json leaves on stderr."""
    assert said.rc == exit_code, said
    assert said.stdout == "", said
    found = lines(said.stderr)
    assert len(found) == 1, said
    assert found[0]["code"] == code, said
    assert found[0]["detail"] and found[0]["title"], said
    return found[0]


# ---- a daemon that runs already ----

def test_load_infer_ps_ls_unload(daemon, model, numbers_file):
    said = daemon.cli("load", model)
    assert said.rc == 0 and said.stdout.startswith("double "), said
    assert "READY" in said.stdout and said.stdout.count("\n") == 1
    assert "xinfer infer double" in said.stderr  # what to type next is no data

    said = daemon.cli("infer", "double", numbers_file, *RAW)
    assert said.rc == 0 and said.stdout == "y  FP32 [1,4]  [3, 5, 7, 9]\n", said

    head, row = daemon.cli("ps").stdout.splitlines()
    assert head.split() == ["NAME", "VERSION", "TENANT", "STATE", "ENGINE", "DEVICE", "MEMORY",
                            "FPS", "QUEUE", "P50", "ISOLATION", "ID"]
    assert row.split()[0] == "double" and "READY" in row and "reference 1.0" in row
    head, row = daemon.cli("ls").stdout.splitlines()
    assert head.split()[:4] == ["NAME", "VERSION", "SIZE", "DIGEST"] and row.startswith("double ")

    said = daemon.cli("unload", "double")
    assert (said.rc, said.stdout) == (0, "") and "given back" in said.stderr
    assert len(daemon.cli("ps").stdout.splitlines()) == 1
    assert len(daemon.cli("ls").stdout.splitlines()) == 2  # the package stays


def test_json_is_one_object_a_line_and_nothing_else(daemon, model, numbers_file, tmp_path):
    package = str(tmp_path / "double.xpkg")
    said = daemon.cli("pack", model, "-o", package, "--json")
    assert said.rc == 0 and lines(said.stdout)[0]["file"] == package, said
    digest = lines(said.stdout)[0]["digest"]
    said = daemon.cli("load", package, "--json")
    assert said.rc == 0 and said.stderr == "", said
    loaded, = lines(said.stdout)
    assert loaded["state"] == "READY" and loaded["digest"] == digest
    answer, = lines(daemon.cli("infer", "double", numbers_file, *RAW, "--json").stdout)
    assert answer["outputs"][0]["data"] == [3, 5, 7, 9]
    assert [s["id"] for s in lines(daemon.cli("ps", "--json").stdout)] == [loaded["id"]]
    assert [p["digest"] for p in lines(daemon.cli("ls", "--json").stdout)] == [digest]
    assert len(lines(daemon.cli("inspect", package, "--json").stdout)) == 1
    checks = lines(daemon.cli("doctor", "--json").stdout)
    assert {"name", "state", "value", "fix"} == set(checks[0])
    assert {c["state"] for c in checks} <= {"ok", "warn", "fail", "n-a"}
    assert [v["command"] for v in lines(daemon.cli("help", "--json").stdout)] and lines(
        daemon.cli("help", "XI-0502", "--json").stdout)[0]["exit"] == 5
    version, = lines(daemon.cli("version", "--json").stdout)
    assert re.fullmatch(r"\d+\.\d+\.\d+", version["version"]) and "reference" in version["engines"]
    gone, = lines(daemon.cli("unload", "double", "--json").stdout)
    assert gone["id"] == loaded["id"]


def test_quiet_prints_ids(daemon, model, tmp_path):
    package = str(tmp_path / "p.xpkg")
    digest = daemon.cli("pack", model, "-o", package, "-q").stdout
    assert re.fullmatch(r"[0-9a-f]{64}\n", digest)
    said = daemon.cli("load", package, "-q")
    assert re.fullmatch(r"[0-9a-f-]{36}\n", said.stdout) and said.stderr == "", said
    assert daemon.cli("ps", "-q").stdout == said.stdout
    assert daemon.cli("ls", "--quiet").stdout == digest
    gone = daemon.cli("unload", said.stdout.strip(), "-q")
    assert (gone.stdout, gone.stderr) == (said.stdout, "")


def test_load_options_arrive(daemon, model):
    said = daemon.cli("load", model, "--name", "night", "--instances=1", "-t", "1", "--device", "cpu",
                      "--precision", "f32", "--priority", "batch", "--json")
    assert said.rc == 0, said
    got, = lines(said.stdout)
    assert (got["name"], got["instances"], got["device"]) == ("night", 1, "CPU")
    same, = lines(daemon.cli("load", model, "--name", "night", "--instances", "1", "--threads", "1",
                             "--device", "cpu", "--precision", "f32", "--priority", "batch",
                             "--json").stdout)
    assert same["id"] == got["id"]
    by_digest = daemon.cli("load", "sha256:" + got["digest"], "--name", "day", "--json")
    assert by_digest.rc == 0 and lines(by_digest.stdout)[0]["id"] != got["id"]
    by_name = daemon.cli("load", "double", "--name", "noon", "--json")
    assert by_name.rc == 0 and lines(by_name.stdout)[0]["digest"] == got["digest"]


def test_a_largest_shape_reaches_the_engine(daemon, tmp_path):
    signature = {"inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, 4]}],
                 "outputs": [{"name": "y", "dtype": "FP32", "shape": [-1, 4]}]}
    package = models.package(tmp_path, "sized", models.DOUBLE, model={"signature": signature})
    wrong = daemon.cli("load", package, "--max-shape", "nosuch=1,4", "--json")
    assert "nosuch" in problem(wrong, 1, "XI-0101")["detail"], wrong
    wrong = daemon.cli("load", package, "--max-shape", "rubbish", "--json")
    assert "max_shape" in problem(wrong, 1, "XI-0101")["detail"], wrong
    assert daemon.cli("load", package, "--max-shape", "x=8,4").rc == 0


def test_no_wait_returns_at_once(daemon, tmp_path):
    slow = models.write(tmp_path, "slow", models.DOUBLE, "load-delay-ms 800")
    started = time.monotonic()
    said = daemon.cli("load", slow, "--no-wait", "--json")
    assert said.rc == 0 and time.monotonic() - started < 0.75, said
    assert lines(said.stdout)[0]["state"] == "LOADING"
    wait_for(lambda: session(daemon, "slow")["state"] == "READY", 10, "the slow model")


def test_several_inputs_standard_input_and_raw_output(loaded, numbers_file, tmp_path):
    said = loaded.cli("infer", "double", numbers_file, numbers_file, *RAW)
    assert said.stdout.count("[3, 5, 7, 9]") == 2 and said.stdout.count("x.bin:") == 2, said
    out = tmp_path / "y.bin"
    said = loaded.cli("infer", "double", numbers_file, *RAW, "-o", out)
    assert (said.rc, said.stdout) == (0, ""), said
    assert out.read_bytes()[-16:] == floats(3, 5, 7, 9)
    request = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4],
                                      "data": [0, 1, 0, 1]}]})
    said = loaded.cli("infer", "double", "-", "--json", stdin=request)
    assert said.rc == 0 and said.json()["outputs"][0]["data"] == [1, 3, 1, 3], said


def test_the_unix_socket_is_a_server_too(loaded, numbers_file):
    for where in ("unix:" + loaded.sock, loaded.url + "/", loaded.url):
        said = run_program("xinfer", "--server", where, "ps", "-q")
        assert said.rc == 0 and len(said.stdout) == 37, said
        said = run_program("xinfer", "infer", "double", numbers_file, *RAW, env={"XINFER_SERVER": where})
        assert "[3, 5, 7, 9]" in said.stdout, said


def test_run_unloads_what_it_loaded_and_nothing_else(daemon, model, numbers_file):
    said = daemon.cli("run", model, numbers_file, *RAW, "--json")
    assert said.rc == 0 and said.stderr == "", said
    assert lines(said.stdout)[0]["outputs"][0]["data"] == [3, 5, 7, 9]
    assert daemon.cli("ps", "-q").stdout == ""
    kept = daemon.cli("load", model, "-q").stdout
    assert daemon.cli("run", model, numbers_file, *RAW).rc == 0
    assert daemon.cli("ps", "-q").stdout == kept
    said = daemon.cli("run", model, "/nonexistent/x.bin")
    assert said.rc == 4 and "/nonexistent/x.bin" in said.stderr, said
    wrong = daemon.cli("run", model, numbers_file, "--shape", "1,3", "--name", "other")
    assert wrong.rc == 1 and wrong.stderr.splitlines()[-1].strip() and "XI-0102" in wrong.stderr
    assert daemon.cli("ps", "-q").stdout == kept


@pytest.mark.release
def test_run_a_package_on_a_picture(daemon, object_detector, pictures, tmp_path):
    done = subprocess.run([program("xinfer"), "run", object_detector,
                           os.path.join(pictures, "chelsea.png")], cwd=tmp_path, capture_output=True,
                          text=True, timeout=60,
                          env=clean_env(daemon.home, {"XINFER_SERVER": daemon.url}))
    assert done.returncode == 0, done
    head, row = done.stdout.splitlines()
    assert head.split()[:2] == ["LABEL", "SCORE"] and row.startswith("Cat ")
    assert "picture: chelsea-object-detector.jpg" in done.stderr
    assert (tmp_path / "chelsea-object-detector.jpg").read_bytes()[:3] == b"\xff\xd8\xff"


def test_a_picture_on_standard_output_is_nothing_else(daemon, object_detector, pictures):
    done = subprocess.run([program("xinfer"), "run", object_detector,
                           os.path.join(pictures, "chelsea.png"), "-o", "-"], capture_output=True,
                          timeout=60, env=clean_env(daemon.home, {"XINFER_SERVER": daemon.url}))
    assert done.returncode == 0, done.stderr
    assert done.stdout[:3] == b"\xff\xd8\xff" and done.stdout[-2:] == b"\xff\xd9"


@pytest.mark.parametrize("verb,option", [("infer", "--picture"), ("infer", "--output"),
                                         ("run", "--output")])
def test_answers_overwrite_neither_inputs_nor_each_other(daemon, tmp_path, verb, option):
    photo, other = tmp_path / "photo.jpg", tmp_path / "other.jpg"
    photo.write_bytes(b"a photo")
    other.write_bytes(b"another")
    (tmp_path / "alias.jpg").symlink_to(photo)
    for inputs, target, why in (([photo], photo, "would overwrite the input"),
                                ([photo], tmp_path / "alias.jpg", "would overwrite the input"),
                                ([photo, other], tmp_path / "out.jpg", "for the answers to 2"),
                                ([photo, other], "-", "for the answers to 2")):
        said = daemon.cli(verb, "nobody", *inputs, option, target)
        assert said.rc == 2 and why in said.stderr, said
    said = daemon.cli(verb, "nobody", photo, other, option, "/dev/null")
    assert said.rc != 2, said
    assert photo.read_bytes() == b"a photo" and not (tmp_path / "out.jpg").exists()


# ---- no daemon: run starts one, serve is one ----

@pytest.fixture
def private():
    """A user without a daemon: .run(...) as that user; nothing of theirs may be left running."""
    class Private:
        def __init__(self):
            self.home = tempfile.mkdtemp(prefix="xi-")
            os.chmod(self.home, 0o755)
            self.env = clean_env(self.home, {"XDG_RUNTIME_DIR": os.path.join(self.home, "run"),
                                             "XDG_DATA_HOME": os.path.join(self.home, "data"),
                                             "TMPDIR": tempfile.gettempdir()})
            self.socket = os.path.join(self.home, "run/xinfer/xinferd.sock")

        def run(self, *args, **kw):
            return subprocess.run([program("xinfer"), *map(str, args)], env=self.env, text=True,
                                  capture_output=True, timeout=120, cwd=self.home, **kw)

        def processes(self):
            """Those that carry this home in their command line or environment."""
            found = []
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    with open("/proc/%s/cmdline" % pid, "rb") as f:
                        if self.home.encode() in f.read() and is_running(int(pid)):
                            found.append(int(pid))
                except OSError:
                    pass
            return found

    user = Private()
    yield user
    for pid in user.processes():
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not user.processes(), 15, "the user's processes to end")
    shutil.rmtree(user.home)


def test_run_without_a_daemon_starts_one_that_ends_by_itself(private, model, numbers_file):
    said = private.run("run", model, numbers_file, *RAW)
    assert said.returncode == 0, said
    assert said.stdout == "y  FP32 [1,4]  [3, 5, 7, 9]\n"
    assert "starting a daemon of your own" in said.stderr
    assert private.processes(), "it stays a while for the next one"
    again = private.run("run", model, numbers_file, *RAW, "--json")
    assert again.returncode == 0 and again.stderr == "", again
    assert private.run("ps", "-q").stdout == ""
    assert len(private.run("ls", "-q").stdout.split()) == 1
    wait_for(lambda: not private.processes(), 25, "the daemon to end by itself")
    assert not os.path.exists(private.socket)
    with open(private.socket + ".log") as log:
        assert "daemon.stopped" in log.read()


def test_two_that_run_at_once_share_one_daemon(private, model, numbers_file):
    said = []
    both = [threading.Thread(target=lambda: said.append(private.run("run", model, numbers_file, *RAW)))
            for _ in range(2)]
    for t in both:
        t.start()
    for t in both:
        t.join()
    for s in said:
        assert s.returncode == 0 and "[3, 5, 7, 9]" in s.stdout, s
    daemons = [p for p in private.processes()
               if b"--socket" in open("/proc/%d/cmdline" % p, "rb").read()]
    assert len(daemons) == 1


def test_run_says_why_its_daemon_did_not_start(private, model, numbers_file):
    os.mkdir(os.path.join(private.home, "data"))
    with open(os.path.join(private.home, "data", "xinfer"), "w") as f:
        f.write("a file where the state directory should be")
    said = private.run("run", model, numbers_file, *RAW, "--json")
    told = problem(subprocess_said(said), 3, "XI-0805")
    assert "data/xinfer" in told["detail"], told


def subprocess_said(done):
    from daemon import Said
    return Said(done)


def test_idle_exit_counts_clients_not_sessions(new_daemon, tmp_path):
    daemon = new_daemon("--idle-exit", "1").start()
    assert daemon.cli("load", models.write(tmp_path, "double")).rc == 0
    hosts = daemon.hosts()
    assert hosts
    daemon.expected_to_live = False
    assert daemon.process.wait(20) == 0
    wait_for(lambda: not [h for h in hosts if is_running(h)], 5, "the host to end")
    daemon.start()
    assert session(daemon, "double") is not None  # ending by itself forgets nothing


def serve(private, *args):
    return subprocess.Popen([program("xinfer"), "serve", *map(str, args)], env=private.env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ask(port, path, body, **headers):
    import urllib.request
    request = urllib.request.Request("http://127.0.0.1:%d%s" % (port, path), body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_until_it_is_told_to_stop(private, model, sig):
    port = free_port()
    process = serve(private, model, "--listen", "127.0.0.1:%d" % port, "--state", private.home + "/s",
                    "--json")
    try:
        ready = json.loads(process.stdout.readline())
        assert (ready["name"], ready["state"]) == ("double", "READY")
        got = ask(port, "/v1/infer/double", floats(1, 2, 3, 4), **{
            "Content-Type": "application/octet-stream", "Xinfer-Dtype": "FP32", "Xinfer-Shape": "1,4"})
        assert got["outputs"][0]["data"] == [3, 5, 7, 9]
        process.send_signal(sig)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, ""), err
    assert not private.processes()


def test_serve_stops_while_it_loads(private, tmp_path):
    slow = models.write(tmp_path, "slow", models.DOUBLE, "load-delay-ms 60000")
    process = serve(private, slow, "--listen", "127.0.0.1:%d" % free_port(), "--state",
                    private.home + "/s")
    try:
        wait_for(lambda: any(b"run\0" in cmdline(p) for p in hosts_below(private)), 20, "the load")
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        process.communicate(timeout=60)
        assert time.monotonic() - started < 20 * (5 if is_sanitized() else 1)
    finally:
        process.kill()
    assert process.returncode == 0
    assert not private.processes()


def cmdline(pid):
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as f:
            return f.read()
    except OSError:
        return b""


def hosts_below(private):
    return [p for p in private.processes() if b"xinfer-host" in cmdline(p)]


def test_serve_does_not_take_another_daemon_for_its_own(private, daemon, model):
    process = serve(private, model, "--listen", "127.0.0.1:%d" % daemon.port, "--state",
                    private.home + "/s")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "XI-0803" in err, err
    assert str(daemon.port) in err
    assert daemon.cli("ps", "-q").stdout == ""


def test_serve_ends_with_its_daemon(private, model):
    process = serve(private, model, "--listen", "127.0.0.1:0", "--state", private.home + "/s", "--json")
    try:
        json.loads(process.stdout.readline())
        own, = [p for p in private.processes() if b"xinferd\0" in cmdline(p)]
        os.kill(own, signal.SIGKILL)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 3 and "signal 9" in err, err
    wait_for(lambda: not private.processes(), 10, "the hosts to end")


def test_serve_with_a_bad_package_ends_and_says_why(private, tmp_path):
    bad = tmp_path / "bad.xpkg"
    bad.write_bytes(b"no archive at all")
    process = serve(private, bad, "--listen", "127.0.0.1:%d" % free_port(), "--state",
                    private.home + "/s")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "XI-0301" in err, err
    assert not private.processes()


def test_an_ordinary_user_runs_it_too(private, model, numbers_file):
    if os.geteuid() != 0:
        pytest.skip("is one already")
    os.chown(private.home, 65534, 65534)
    box = tempfile.mkdtemp(prefix="xi-", dir="/tmp")
    try:
        for path in (model, numbers_file):
            shutil.copy(path, box)
        os.chmod(box, 0o755)
        said = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program("xinfer"), "run",
             os.path.join(box, "double.xref"), os.path.join(box, "x.bin"), *RAW],
            env=private.env, capture_output=True, text=True, timeout=60, cwd="/")
        if "Permission denied" in said.stderr and not reachable_by_others(program("xinfer")):
            pytest.skip("the build lies where others cannot enter")
    finally:
        shutil.rmtree(box)
    assert said.returncode == 0 and "[3, 5, 7, 9]" in said.stdout, said


def reachable_by_others(path):
    while path != "/":
        path = os.path.dirname(path)
        if not os.stat(path).st_mode & 0o001:
            return False
    return True


# ---- mistakes ----

@pytest.mark.parametrize("args,hint", [
    (["lod"], "xinfer load"), (["laod", "x"], "xinfer load"), (["infr"], "xinfer infer"),
    (["dokter"], "xinfer doctor"), (["help", "unlod"], "xinfer unload"),
    (["load", "--dvice", "cpu", "x"], "--device"), (["ps", "--jsn"], "--json"),
    (["infer", "a", "b", "--shap", "1"], "--shape"),
])
def test_did_you_mean(args, hint):
    said = run_program("xinfer", *args)
    assert said.rc == 2 and said.stdout == "", said
    assert said.stderr.startswith("XI-0110 ") and "did you mean" in said.stderr and hint in said.stderr


@pytest.mark.parametrize("args", [
    ["load"], ["load", "a", "b"], ["infer", "a"], ["unload"], ["--json"], ["qqqqqq"], ["-x"],
    ["load", "a", "--instances", "two"], ["load", "a", "--instances", "-1"],
    ["load", "a", "--threads", "99999999999999999999"], ["infer", "a", "b", "--deadline", "-5"],
    ["infer", "a", "b", "--deadline", "0"], ["logs", "-n", "-1"], ["top", "--count", "-1"],
    ["load", "a", "--name"], ["ps", "extra"],
    ["ps", "--server", "ftp://x"], ["ps", "--server", "nonsense"], ["serve", "--listen", "9470"],
])
def test_what_is_not_understood_is_usage(args):
    said = run_program("xinfer", *args)
    assert said.rc == 2 and said.stdout == "" and said.stderr.startswith("XI-0110 "), said
    assert len(said.stderr.splitlines()) <= 2


def test_names_are_nearly_right(loaded, numbers_file):
    said = loaded.cli("infer", "doubel", numbers_file, *RAW, "--json")
    assert "double" in problem(said, 4, "XI-0201")["hint"]
    assert "double" in problem(loaded.cli("unload", "doble", "--json"), 4, "XI-0201")["hint"]
    assert "double" in problem(loaded.cli("load", "doubl", "--json"), 4, "XI-0201")["hint"]


def test_nobody_there(tmp_path, numbers_file):
    for server in ("unix:%s/none.sock" % tmp_path, "http://127.0.0.1:%d" % free_port()):
        for verb in (["ps"], ["ls"], ["load", "x"], ["unload", "x"], ["infer", "x", numbers_file],
                     ["doctor"]):
            said = run_program("xinfer", *verb, "--server", server)
            assert said.rc == 3 and "XI-0805" in said.stderr, said
    with tempfile.TemporaryDirectory(prefix="xi-") as home:
        said = run_program("xinfer", "ps", "--json", home=home)
        if said.rc == 3:  # else a daemon of this machine answered at the usual address
            assert "xinfer serve" in problem(said, 3, "XI-0805")["hint"]


def test_something_else_there(numbers_file):
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.end_headers()
        do_POST = do_GET

        def log_message(self, *_):
            pass
    server = http.server.HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        said = run_program("xinfer", "ps", "--json", "--server",
                           "http://127.0.0.1:%d" % server.server_port)
        assert "xinferd" in problem(said, 8, "XI-0806")["detail"]
    finally:
        server.shutdown()
        server.server_close()


def test_exit_codes_of_a_full_queue_and_of_a_deadline(new_daemon, tmp_path, numbers_file):
    config = tmp_path / "config.json"
    config.write_text('{"queue_limit": 1}')
    daemon = new_daemon("--config", str(config)).start()
    slow = models.write(tmp_path, "slow", models.DOUBLE, "delay-ms 300")
    assert daemon.cli("load", slow, "--instances", "1").rc == 0
    said = {}

    def one(i):
        said[i] = daemon.cli("infer", "slow", numbers_file, *RAW, "--json")
    threads = [threading.Thread(target=one, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    refused = [s for s in said.values() if s.rc == 5]
    assert refused and len(refused) + sum(s.rc == 0 for s in said.values()) == 6, said
    problem(refused[0], 5, "XI-0501")
    busy = threading.Thread(target=one, args=(9,))
    busy.start()
    wait_for(lambda: session(daemon, "slow")["running"] == 1, 10, "a request to run")
    late = daemon.cli("infer", "slow", numbers_file, *RAW, "--deadline", "50", "--json")
    busy.join()
    problem(late, 7, "XI-0701")


def test_standard_output_that_is_full(loaded):
    with open("/dev/full", "w") as full:
        done = subprocess.run([program("xinfer"), "ps"], stdout=full, stderr=subprocess.PIPE, text=True,
                              env=clean_env("/nonexistent", {"XINFER_SERVER": loaded.url}), check=False)
    assert done.returncode == 1 and "XI-0505" in done.stderr


def test_names_do_not_steer_the_terminal_or_the_address(loaded, numbers_file):
    for name in ("../health/live", "a b", "x?y", "%2e%2e", "\x1b[31mred", "a" * 200):
        said = loaded.cli("infer", name, numbers_file, *RAW)
        assert said.rc in (1, 2, 4) and re.match(r"XI-0(101|110|201|202) ", said.stderr), (name, said)
        assert "\x1b" not in said.stderr and said.stdout == ""


# ---- help ----

def test_help_knows_every_verb():
    overview = run_program("xinfer", "help")
    assert overview.rc == 0 and overview.stderr == ""
    assert overview.stdout == run_program("xinfer").stdout == run_program("xinfer", "--help").stdout
    listed = re.findall(r"^  ([a-z]+) {2,}\S", overview.stdout, re.M)
    assert sorted(listed) == sorted(VERBS)
    for verb in VERBS:
        page = run_program("xinfer", "help", verb)
        assert page.rc == 0 and page.stdout.startswith("xinfer %s" % verb), page
        assert page.stdout == run_program("xinfer", verb, "--help").stdout
        assert max(map(len, page.stdout.splitlines())) <= 100 and page.stdout.endswith("\n")
        assert not [one for one in page.stdout.splitlines() if one != one.rstrip()]
    assert run_program("xinfer", "--version").stdout == run_program("xinfer", "version").stdout


def error_table():
    with open(os.path.join(ROOT, "src/base/status.h")) as f:
        return re.findall(r'X\((E[A-Z]+), (\d+), (\d+), \d+, (\d), "([^"]+)"\)', f.read())


def test_help_knows_every_code():
    table = error_table()
    assert len(table) > 40
    texts = set()
    for name, number, http_status, exit_code, title in table:
        said = run_program("xinfer", "help", "XI-0" + number)
        assert said.rc == 0, said
        first, _, text, *_ = said.stdout.splitlines()
        assert first == "XI-0%s  %s" % (number, title)
        assert "name %s, HTTP status %s," % (name, http_status) in said.stdout
        assert "exit code %s\n" % exit_code in said.stdout
        assert len(text) > 30 and text not in texts, "a page of its own for " + name
        texts.add(text)
    assert run_program("xinfer", "help", "xi-502").stdout.startswith("XI-0502")
    assert run_program("xinfer", "help", "XI-0999").rc == 4


# ---- doctor ----

def test_doctor_is_quick_and_says_how_it_stands(loaded):
    started = time.monotonic()
    said = loaded.cli("doctor")
    assert time.monotonic() - started < 2
    assert said.rc == 0 and said.stderr == "", said
    assert re.search(r"^ok +daemon +answers at http", said.stdout, re.M)
    assert re.search(r"^ok +engine reference +1\.0$", said.stdout, re.M)


def test_doctor_without_a_daemon(private):
    started = time.monotonic()
    said = private.run("doctor", "--json")
    assert time.monotonic() - started < 2 * (5 if is_sanitized() else 1)
    assert said.returncode == 0 and said.stderr == "", said
    checks = {c["name"]: c for c in lines(said.stdout)}
    assert checks["daemon"]["state"] in ("n-a", "ok")
    assert checks["engine reference"]["state"] == "ok"


def test_doctor_does_not_wait_for_a_daemon_that_hangs(loaded):
    os.kill(loaded.pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        said = loaded.cli("doctor", "--json")
        assert time.monotonic() - started < 2
    finally:
        os.kill(loaded.pid, signal.SIGCONT)
    assert said.rc == 3 and lines(said.stdout)[0]["state"] == "fail", said


# ---- terminals ----

def on_terminal(args, env, stdout_too=False, rate=None):
    """Runs xinfer with stderr (and stdout) on a terminal: (rc, stdout, [(time, text)…])."""
    master, slave = pty.openpty()
    process = subprocess.Popen([program("xinfer"), *map(str, args)], stderr=slave, env=env,
                               stdin=subprocess.DEVNULL,
                               stdout=slave if stdout_too else subprocess.PIPE)
    os.close(slave)
    seen, limit = [], time.monotonic() + 60
    while time.monotonic() < limit:
        if select.select([master], [], [], 0.05)[0]:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not data:
                break
            seen.append((time.monotonic(), data.decode()))
    os.close(master)
    out = process.stdout.read().decode() if process.stdout else ""
    return process.wait(10), out, seen


def terminal_env(daemon, **more):
    env = clean_env(daemon.home, {"XINFER_SERVER": daemon.url, "TERM": "xterm", **more})
    if "NO_COLOR" not in more:
        del env["NO_COLOR"]
    return env


def test_colour_is_for_terminals_that_want_it(loaded):
    def text(**more):
        return "".join(t for _, t in on_terminal(["ps"], terminal_env(loaded, **more), True)[2])
    assert "\x1b[1mNAME" in text()
    assert "\x1b[1mNAME" in text(NO_COLOR="")  # no-color.org: empty does not count
    assert "\x1b" not in text(NO_COLOR="1")
    assert "\x1b" not in text(TERM="dumb")
    piped = subprocess.run([program("xinfer"), "ps"], env=terminal_env(loaded), capture_output=True,
                           text=True, check=False)
    assert "double" in piped.stdout and "\x1b" not in piped.stdout + piped.stderr


def redraws(seen):
    """(time, line) of every line that was drawn over the one before."""
    return [(at, line) for at, text in seen for line in text.split("\r\x1b[K") if line.strip()]


def test_a_slow_load_shows_its_phase(daemon, tmp_path):
    slow = models.write(tmp_path, "slow", models.DOUBLE, "load-delay-ms 800")
    rc, out, seen = on_terminal(["load", slow], terminal_env(daemon))
    assert rc == 0 and out.startswith("slow "), (out, seen)
    drawn = [line for _, line in redraws(seen) if "slow.xref: " in line]
    assert drawn and any(re.search(r"\d\.\d s", line) for line in drawn), seen
    assert any("READY" not in line and re.search("load|compil", line) for line in drawn), drawn
    said = daemon.cli("unload", "slow")
    assert said.rc == 0
    quiet = daemon.cli("load", slow)  # the same in a pipe: no bar, no escape codes
    assert "\r" not in quiet.stderr and "\x1b" not in quiet.stderr


class SlowServer(threading.Thread):
    """Takes an upload as xinferd does, a little at a time, and says yes."""
    def __init__(self, seconds):
        super().__init__(daemon=True)
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status, value):
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                self.answer(404, {"code": "XI-0201", "detail": "no package"})

            def do_POST(self):
                left = int(self.headers["Content-Length"])
                if "packages" not in self.path:
                    self.rfile.read(left)
                    self.answer(404, {"code": "XI-0201", "detail": "that was all"})
                    return
                part = left // 100
                while left:
                    left -= len(self.rfile.read(min(part, left)))
                    time.sleep(seconds / 100)
                time.sleep(0.5)  # as if it checked what came
                self.answer(201, {})
                outer.uploaded = True

            def log_message(self, *_):
                pass
        self.uploaded = False
        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.run = self.server.serve_forever


def test_an_upload_shows_bytes_rate_and_time_left(tmp_path):
    weights = tmp_path / "m.xref"
    weights.write_bytes(os.urandom(1024) * 16 * 1024)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"recipe": 1, "manifest": {
        "xpkg": 1, "name": "big", "version": "1.0.0", "input": "tensors", "output": "tensors",
        "models": {"main": {"variants": [{"id": "f32", "files": ["variants/m.xref"],
                                          "format": "reference", "engine": {"name": "reference"},
                                          "precision": "f32"}]}}},
        "files": {"variants/m.xref": "m.xref"}}))
    package = tmp_path / "big.xpkg"
    assert run_program("xinfer", "pack", recipe, "-o", package).rc == 0
    server = SlowServer(1.2)
    server.start()
    try:
        env = clean_env("/nonexistent", {
            "XINFER_SERVER": "http://127.0.0.1:%d" % server.server.server_port, "TERM": "xterm"})
        rc, out, seen = on_terminal(["load", package], env)
    finally:
        server.server.shutdown()
        server.server.server_close()
    assert server.uploaded and rc == 4 and out == "", seen
    bars = [(at, line) for at, line in redraws(seen) if line.startswith("uploading ")]
    assert len(bars) >= 5, seen
    assert sum(bool(re.search(r"\[#+\.+\] \S+ MiB of 16\.0 MiB  \S+ MiB/s  \d+ s left", line))
               for _, line in bars) >= 3, bars
    took = bars[-1][0] - bars[0][0]
    assert len(bars) <= 10 * took + 3, "%d redraws in %.1f s" % (len(bars), took)
    assert "16.0 MiB of 16.0 MiB" in bars[-1][1]


# ---- pack and inspect ----

def test_inspect_shows_what_pack_made(model, tmp_path):
    package = tmp_path / "d.xpkg"
    said = run_program("xinfer", "pack", model, "-o", package)
    assert said.rc == 0 and said.stdout.startswith("%s: double " % package), said
    shown = run_program("xinfer", "inspect", package)
    assert shown.rc == 0 and "double" in shown.stdout and "reference" in shown.stdout
    digest = re.search(r"[0-9a-f]{64}", said.stdout).group()
    assert digest in shown.stdout + run_program("xinfer", "inspect", package, "--json").stdout
    assert run_program("xinfer", "inspect", tmp_path / "none.xpkg").rc == 4
    assert run_program("xinfer", "pack", tmp_path / "none.onnx").rc == 4
    refused = run_program("xinfer", "pack", model, "-o", "/proc/none/d.xpkg")
    assert refused.rc != 0 and refused.stderr.startswith("XI-"), refused
    assert sorted(os.listdir(tmp_path)) == ["d.xpkg", "double.xref"], "no half-made files"
