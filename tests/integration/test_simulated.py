"""The engine with simulated devices, which other tests lean on."""
import models


def test_a_model_on_each_simulated_device(simulated, tmp_path):
    daemon = simulated().start()
    for device in ("GPU.0", "NPU.0", "CPU"):
        name = device.lower().replace(".", "")
        path = models.package(tmp_path, name, models.DOUBLE, engine="simulated", device=device)
        said = daemon.cli("load", path)
        assert said.rc == 0, said
        assert models.numbers(models.ask(daemon, name, 1, 2, 3, 4)) == [3, 5, 7, 9]
        assert models.session(daemon, name)["device"] == device
    path = models.package(tmp_path, "real", models.DOUBLE)
    assert daemon.cli("load", path).rc == 0, "the reference engine is there as well"
