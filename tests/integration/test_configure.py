"""Settings that change while the daemon runs: all or nothing, at once, kept over a restart."""
import contextlib
import json
import sqlite3

import pytest

import models


def configure(daemon, **settings):
    return daemon.post("/v1/control/configure", settings)


def settings_of(daemon):
    return daemon.get("/v1/control/configure").json()


def config_file(tmp_path, **keys):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(keys))
    return path


def test_tenants_of_the_file_changed_and_kept(new_daemon, tmp_path):
    d = new_daemon("--config", config_file(tmp_path, tenants={
        "acme": {"weight": 3, "memory": "2GiB", "rate": 100, "queue": 64}, "b": {"weight": 2}}))
    d.start()
    acme = {"weight": 3, "memory": 2 << 30, "rate": 100, "queue": 64}
    assert settings_of(d)["tenants"]["acme"] == acme
    answer = configure(d, log_level="debug", memory="128MiB", tenants={
        "acme": {"weight": 5}, "new": {"queue": 9}})
    assert answer.status == 200, answer
    after = {"acme": {**acme, "weight": 5}, "new": {"weight": 1, "memory": 0, "rate": 0, "queue": 9},
             "b": {"weight": 2, "memory": 0, "rate": 0, "queue": 0},
             "default": {"weight": 1, "memory": 0, "rate": 0, "queue": 0}}
    assert answer.json()["tenants"] == after
    assert "config.changed" in d.log()
    d.kill()
    d.start()
    said = settings_of(d)
    assert said["tenants"] == after
    assert said["log_level"] == "debug" and said["memory"] == 128 << 20
    # null goes back to what the file says, and stays there.
    assert configure(d, log_level=None, memory=None, tenants={"acme": None, "new": None}).status == 200
    d.stop()
    d.start()
    said = settings_of(d)
    assert said["log_level"] == "info" and said["memory"] > 128 << 20
    assert said["tenants"]["acme"] == acme and "new" not in said["tenants"]


@pytest.mark.parametrize("wrong", [
    {"log_level": "loud"}, {"tenants": {"b": {"weight": 0}}}, {"tenants": {"b": {"wait": 1}}},
    {"tenants": {"../b": {}}}, {"memory": "1MiB"}, {"surprise": 1}, {"models": {"nobody": {"max_batch": 1}}},
    {"models": {"m": {"max_batch": 100000}}}, {"tenants": []}])
def test_one_mistake_and_nothing_changes(daemon, wrong):
    before = settings_of(daemon)
    answer = configure(daemon, **{"tenants": {"acme": {"weight": 7}}, **wrong})
    assert answer.status in (400, 404), answer
    assert settings_of(daemon) == before
    daemon.stop()
    daemon.start()
    assert settings_of(daemon) == before


def test_batching_of_a_model(daemon, tmp_path):
    assert daemon.cli("load", models.write(tmp_path, "m"), "--name", "m").rc == 0
    assert settings_of(daemon)["models"]["m"] == {"max_batch": 1, "max_delay_ms": 0}
    answer = configure(daemon, models={"m": {"max_batch": 64}})
    assert answer.status == 400 and "max_batch" in answer.json()["hint"], answer
    answer = configure(daemon, models={"m": {"max_delay_ms": 2.5}})
    assert answer.json()["models"]["m"] == {"max_batch": 1, "max_delay_ms": 2.5}


def test_memory_is_in_force_at_once(daemon, tmp_path):
    model = models.write(tmp_path, "m")
    assert configure(daemon, tenants={"default": {"memory": 1}}).status == 200
    said = daemon.cli("load", model, "--name", "m", "--json")
    assert said.rc != 0 and "XI-0502" in said.stderr, said
    assert configure(daemon, tenants={"default": None}).status == 200
    assert daemon.cli("load", model, "--name", "m").rc == 0


def test_settings_that_are_no_good_do_not_stop_the_daemon(daemon):
    assert configure(daemon, tenants={"acme": {"weight": 2}}).status == 200
    daemon.stop()
    with contextlib.closing(sqlite3.connect(daemon.state + "/catalogue.db")) as db, db:
        kept = db.execute("UPDATE setting SET value = '{\"tenants\": {\"acme\": {\"weight\": -1}}}'")
        assert kept.rowcount == 1
    daemon.start()
    assert "config.unread" in daemon.log()
    assert "acme" not in settings_of(daemon)["tenants"]


def test_config_verb(daemon):
    said = daemon.cli("config", "set", "tenants.acme.weight=3", "tenants.a.b.rate=0.5", "memory=1GiB")
    assert said.rc == 0 and "acme" in said.stdout, said
    shown = daemon.cli("config", "--json").json()
    assert shown["tenants"]["acme"]["weight"] == 3 and shown["tenants"]["a.b"]["rate"] == 0.5
    assert shown["memory"] == 1 << 30
    assert daemon.cli("config", "set", "tenants.acme.weight=x").rc != 0
    assert daemon.cli("config", "set", "nonsense").rc == 2
    assert daemon.cli("config", "sit").rc == 2
