"""The Debian package: its contents, and its programs run from where it puts them. What dpkg does with
it is  make deb-test."""
import hashlib
import os
import re
import subprocess

import pytest

import models
from daemon import ROOT, build_dir, clean_env, free_port, wait_for

def make(out):
    env = {**os.environ, "OUT": str(out), "DEB_COMPRESS": "none", "XINFER_BUILD_DIR": build_dir(),
           "SOURCE_DATE_EPOCH": "1700000000"}
    return subprocess.Popen([os.path.join(ROOT, "tools", "make-deb")], env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(*command, **kw):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True, **kw).stdout


def make_two(tmp_path):
    """Two packages of the same sources, made side by side."""
    made = [make(tmp_path / name) for name in ("first", "second")]
    paths = []
    for m in made:
        said, complaint = m.communicate(timeout=100)
        assert m.returncode == 0, complaint
        paths.append(said.strip())
    return paths


def the_same_sources_make_the_same_bytes(debs):
    sums = []
    for path in debs:
        with open(path, "rb") as f:
            sums.append(hashlib.file_digest(f, "sha256").hexdigest())
    assert sums[0] == sums[1]


def contents_are_right_and_roots(debs, tmp_path):
    listing = run("dpkg-deb", "-c", debs[0]).splitlines()
    modes = {line.split()[5]: line.split()[:2] for line in listing}
    for path in ("./usr/bin/xinferd", "./usr/bin/xinfer", "./usr/bin/xinfer-host",
                 "./usr/lib/xinfer/libxinfer_engine_reference.so", "./etc/xinfer/xinferd.json",
                 "./lib/systemd/system/xinferd.service", "./lib/systemd/system/xinferd.socket",
                 "./usr/share/man/man1/xinfer.1.gz", "./usr/share/man/man8/xinferd.8.gz",
                 "./usr/share/doc/xinfer/copyright"):
        assert path in modes, path
    assert {owner for _, owner in modes.values()} == {"root/root"}
    assert not [p for p, (mode, _) in modes.items() if mode[0] != "l" and (mode[5] == "w" or mode[8] == "w" or "s" in mode[1:])]
    assert "libc6" in run("dpkg-deb", "-f", debs[0], "Depends")
    run("dpkg-deb", "-R", debs[0], tmp_path / "root")
    run("md5sum", "--check", "--quiet", "DEBIAN/md5sums", cwd=tmp_path / "root")
    for script in ("postinst", "prerm", "postrm"):
        run("sh", "-n", tmp_path / "root" / "DEBIAN" / script)
    for conffile in (tmp_path / "root" / "DEBIAN" / "conffiles").read_text().split():
        assert (tmp_path / "root" / conffile.lstrip("/")).is_file()
    unit = (tmp_path / "root/lib/systemd/system/xinferd.service").read_text()
    program, _, config = re.search(r"^ExecStart=(\S+) (--config) (\S+)$", unit, re.M).groups()
    assert "." + program in modes and "." + config in modes


def programs_work_from_where_it_puts_them(tmp_path, new_daemon):
    bin_dir, d = tmp_path / "root/usr/bin", new_daemon()
    os.makedirs(d.state)
    d.port = free_port()
    with open(d.log_path, "ab") as log:
        d.process = subprocess.Popen(
            [bin_dir / "xinferd", "--config", tmp_path / "root/etc/xinfer/xinferd.json", "--admin-group",
             "root", "--listen", "127.0.0.1:%d" % d.port, "--state", d.state, "--socket", d.sock],
            env=clean_env(d.home), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    d.expected_to_live = True
    wait_for(lambda: d._answers("/v1/health/ready"), 20, "the installed daemon")
    env = clean_env(d.home, {"XINFER_SERVER": "unix:" + d.sock})
    run(bin_dir / "xinfer", "load", models.write(tmp_path, "double"), "--name", "double", env=env)
    assert models.numbers(models.ask(d, "double", 1, 2, 3, 4)) == [3, 5, 7, 9]
    run(bin_dir / "xinfer", "doctor", env=env)
    engines = d.get("/v1/device/capabilities").json()["engines"]
    assert {e["name"] for e in engines if e["present"]} >= {"reference"}


def manual_pages_are_sound(tmp_path):
    man, said = tmp_path / "root/usr/share/man", {}
    for page, section in (("xinfer", 1), ("xinferd", 8)):
        text = run("gzip", "-dc", man / ("man%d" % section) / ("%s.%d.gz" % (page, section)))
        said[page] = text.replace("\\-", "-")
        assert text.startswith(".TH %s %d" % (page.upper(), section)) and text.isascii()
    helped = run(os.path.join(build_dir(), "bin", "xinferd"), "--help")
    for flag in set(re.findall(r"^  (--[a-z-]+)", helped, re.M)):
        assert flag in said["xinferd"], flag
    for verb in ("load", "infer", "config", "doctor"):
        assert ".SS %s\n" % verb in said["xinfer"]
    completion = tmp_path / "root/usr/share/bash-completion/completions/xinfer"
    words = run("bash", "-c", '. "$0"; COMP_WORDS=(xinfer l); COMP_CWORD=1; _xinfer; echo "${COMPREPLY[*]}"', completion)
    assert words.split() == ["load", "ls", "logs"]


@pytest.mark.release
def test_the_package(tmp_path, new_daemon):
    debs = make_two(tmp_path)
    the_same_sources_make_the_same_bytes(debs)
    contents_are_right_and_roots(debs, tmp_path)
    programs_work_from_where_it_puts_them(tmp_path, new_daemon)
    manual_pages_are_sound(tmp_path)
