"""The checks of the house rules find what they are there to find."""
import os
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOLS = os.path.join(ROOT, "tools")


def check(command, tmp_path, place, text):
    """Runs a check over one file that stands at place; returns (exit status, what it printed)."""
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def rooms(tmp_path, place, text):
    command = ["awk", "-f", os.path.join(TOOLS, "rooms.awk"), os.path.join(TOOLS, "rooms.txt")]
    return check(command, tmp_path, place, text)


@pytest.mark.parametrize("place, include", [
    ("src/core/a.c", '"flow/flow.h"'),
    ("src/daemon/core/a.c", '"daemon/api/routes.h"'),
    ("src/daemon/core/a.c", '"mesh/router.h"'),
    ("src/daemon/api/a.c", '"package/archive.h"'),
    ("src/daemon/main.c", '"package/archive.h"'),
    ("src/cli/a.c", '"daemon/core/store.h"'),
    ("src/wire/a.c", '"xinfer/engine.h"'),
    ("src/core/a.c", '"tensor.h"'),
    ("src/core/a.c", "<sys/mman.h>"),
    ("src/daemon/api/a.c", "<sys/socket.h>"),
    ("src/host/run.c", "<sys/prctl.h>"),
    ("src/somewhere/a.c", "<stdint.h>"),
])
def test_a_forbidden_include_is_found(tmp_path, place, include):
    rc, out = rooms(tmp_path, place, "#include %s\n" % include)
    assert rc == 1
    assert place + ":1: " in out


@pytest.mark.parametrize("place, include", [
    ("src/daemon/core/a.c", '"daemon/ipc/host_link.h"'),
    ("src/host/run.c", '"flow/flow.h"'),
    ("src/host/sandbox.c", "<linux/landlock.h>"),
    ("src/base/platform/memory.c", "<sys/mman.h>"),
    ("src/backends/reference/engine.c", '"xinfer/engine.h"'),
    ("src/core/a.c", '"xinfer/types.h"'),
])
def test_an_allowed_include_passes(tmp_path, place, include):
    assert rooms(tmp_path, place, "#include %s\n" % include) == (0, "")


def test_every_room_is_listed():
    with open(os.path.join(TOOLS, "rooms.txt")) as f:
        listed = {line.split(":")[0] for line in f}
    source = os.path.join(ROOT, "src")
    for folder, _, files in os.walk(source):
        if any(name.endswith((".c", ".h")) for name in files):
            parts = os.path.relpath(folder, source).split(os.sep)
            assert {"/".join(parts[:i]) for i in range(1, len(parts) + 1)} & listed, folder


def test_the_architecture_has_the_same_table():
    with open(os.path.join(TOOLS, "rooms.txt")) as f:
        listed = [line.replace(":", " ").split() for line in f]
    with open(os.path.join(ROOT, "docs", "ARCHITECTURE.md")) as f:
        table = f.read().split("## Who may know whom", 1)[1].split("```")[1]
    assert [line.replace("–", "").split() for line in table.strip().splitlines()] == listed


@pytest.mark.parametrize("line, found", [
    ("    strcpy(a, b);", True),
    ("    n = atoi (text);", True),
    ("    if (system(command))", True),
    ("    table->rand(3);", False),
    ("    xi_system(1);", False),
    ('    puts("never call strcpy() here");', False),
    ("    x = 1; // unlike sprintf()", False),
])
def test_banned_calls(tmp_path, line, found):
    rc, out = check([os.path.join(TOOLS, "banned.sh")], tmp_path, "a.c", line + "\n")
    assert (rc, "a.c:1: banned call" in out) == ((1, True) if found else (0, False))


@pytest.mark.parametrize("code_lines, rc", [(70, 0), (71, 1)])
def test_function_length(tmp_path, code_lines, rc):
    body = "    step();\n" * code_lines + "    // not counted\n\n    /* nor\n       this */\n"
    found = check(["awk", "-f", os.path.join(TOOLS, "limits.awk")], tmp_path, "a.c",
                  "int f(void)\n{\n" + body + "}\n")
    assert found[0] == rc


@pytest.mark.parametrize("name, lines, rc", [("a.c", 800, 0), ("a.c", 801, 1), ("a.h", 251, 1)])
def test_file_length(tmp_path, name, lines, rc):
    found = check(["awk", "-f", os.path.join(TOOLS, "limits.awk")], tmp_path, name,
                  "int x;\n" * lines)
    assert found[0] == rc
