"""A private xinferd for a test: own state, own port, ended by its own process id.

Nothing in here knows what the tests are about; it starts, asks, runs the command, and ends.
"""
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SANITIZER = re.compile(r"ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|: runtime error: ")


def build_dir():
    """The build under test: XINFER_BUILD is release, asan, tsan, dev or a path."""
    name = os.environ.get("XINFER_BUILD", "release")
    if os.sep in name:
        return name
    return os.path.join(ROOT, "build") if name == "release" else os.path.join(ROOT, "build", name)


def is_sanitized():
    return os.path.basename(build_dir()) in ("asan", "tsan")


def program(name):
    return os.path.join(build_dir(), "bin", name)


def free_port():
    """Below the ports that the kernel hands out, so that no client takes it before the daemon does."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def wait_for(condition, seconds=10, what="it"):
    """Polls until condition() is true and returns that value; a sanitized build gets longer."""
    limit = time.monotonic() + seconds * (5 if is_sanitized() else 1)
    while time.monotonic() < limit:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("waited %g s for %s" % (seconds, what))


class Answer:
    """An HTTP answer: status, headers (lower case), body."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {k.lower(): v for k, v in response.getheaders()}
        self.body = response.read()

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return "<%d %r>" % (self.status, self.body[:300])


class Said:
    """What a command said: rc, stdout, stderr."""

    def __init__(self, done):
        self.rc, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr

    def json(self):
        return json.loads(self.stdout)

    def __repr__(self):
        return "<exit %d\nstdout: %s\nstderr: %s>" % (self.rc, self.stdout, self.stderr)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def clean_env(home, more=None):
    """The environment without anything that would lead to another daemon or another store."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("XINFER_", "XDG_"))}
    env.update({"HOME": home, "NO_COLOR": "1", **(more or {})})
    return env


def run_program(name, *args, home="/nonexistent", env=None, stdin=None, timeout=60):
    """Runs one of our programs to its end."""
    if is_sanitized():
        timeout *= 5
    return Said(subprocess.run([program(name), *map(str, args)], input=stdin, timeout=timeout,
                               env=clean_env(home, env), capture_output=True, text=True,
                               check=False))


class Daemon:
    """One xinferd. start() and stop() as often as a test likes: the state stays until close()."""

    def __init__(self, *args, env=None):
        # Not pytest's tmp_path: a Unix socket's path has at most 107 bytes.
        self.home = tempfile.mkdtemp(prefix="xi-")
        os.chmod(self.home, 0o711)  # so that, as root, hosts run as another user, as in a service
        self.state = os.path.join(self.home, "state")
        self.sock = os.path.join(self.state, "xinferd.sock")
        self.log_path = os.path.join(self.home, "log")
        self.args, self.env = list(args), env or {}
        self.port = free_port()
        self.process = None
        self.expected_to_live = False
        self.crashing = ()  # sessions whose hosts a test crashes on purpose

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.port

    @property
    def pid(self):
        return self.process.pid

    def start(self, ready=True):
        """Starts xinferd and waits until it answers (and, if asked, until it is ready)."""
        command = [program("xinferd"), "--listen", "127.0.0.1:%d" % self.port,
                   "--state", self.state, *map(str, self.args)]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=clean_env(self.home, self.env))
        self.expected_to_live = True
        path = "/v1/health/ready" if ready else "/v1/health/live"
        wait_for(lambda: self._answers(path), 20, "%s of xinferd; its log:\n%s" % (path, self.log()))
        return self

    def _answers(self, path):
        if self.process.poll() is not None:
            self.expected_to_live = False
            raise AssertionError("xinferd ended with %d:\n%s" % (self.process.returncode, self.log()))
        try:
            return self.get(path).status == 200
        except OSError:
            return False

    def stop(self, sig=signal.SIGTERM, seconds=20):
        """Ends it as a supervisor would and returns the exit status; hosts must end with it."""
        hosts = self.hosts()
        self.expected_to_live = False
        self.process.send_signal(sig)
        try:
            rc = self.process.wait(seconds * (5 if is_sanitized() else 1))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("xinferd still ran %d s after signal %d:\n%s"
                                 % (seconds, sig, self.log())) from None
        wait_for(lambda: not [h for h in hosts if is_running(h)], 10, "hosts %s to end" % hosts)
        return rc

    def kill(self):
        """kill -9, as a crash; start() afterwards finds the same state."""
        return self.stop(signal.SIGKILL)

    def hosts(self):
        """Process ids of its children (the hosts)."""
        found = []
        for task in os.listdir("/proc/%d/task" % self.pid) if is_running(self.pid) else []:
            try:
                with open("/proc/%d/task/%s/children" % (self.pid, task)) as f:
                    found += map(int, f.read().split())
            except FileNotFoundError:
                pass
        return found

    def open_fds(self):
        """As it counts them itself, once a second: its /proc is closed to its user's others."""
        time.sleep(1.2)
        for line in self.get("/metrics").body.decode().splitlines():
            if line.startswith("process_open_fds "):
                return int(line.split()[1])
        raise AssertionError("no process_open_fds in /metrics")

    def request(self, method, path, body=None, headers=None, unix=False, timeout=60):
        """One request on a connection of its own. A dict as body goes as JSON."""
        headers = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        connection = (UnixConnection(self.sock, timeout) if unix else
                      http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout))
        try:
            connection.request(method, path, body, headers)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def status(self, method, path, headers=None):
        """Only the status of the answer: some answers (event streams) never end."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, headers=dict(headers or {}))
            return connection.getresponse().status
        finally:
            connection.close()

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, body=None, **kw):
        return self.request("POST", path, body, **kw)

    def cli(self, *args, stdin=None, timeout=60, env=None):
        """Runs xinfer against this daemon."""
        return run_program("xinfer", *args, home=self.home, stdin=stdin, timeout=timeout,
                           env={"XINFER_SERVER": self.url, **(env or {})})

    def log(self):
        try:
            with open(self.log_path, errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def close(self):
        """Ends it, removes its state, and raises if it had died or a sanitizer had reported."""
        died = self.expected_to_live and self.process.poll() is not None
        rc = 0
        try:
            if self.process and self.process.poll() is None:
                rc = self.stop()
            log = self.log()
        finally:
            shutil.rmtree(self.home, ignore_errors=True)
        assert not died, "xinferd died with %d:\n%s" % (self.process.returncode, log)
        reports = [line for line in log.splitlines() if SANITIZER.search(line)
                   and not any(" host=%s#" % name in line for name in self.crashing)]
        assert not reports, "a sanitizer reported:\n%s" % log
        assert rc == 0, "xinferd ended with %d after SIGTERM:\n%s" % (rc, log)


def is_running(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
