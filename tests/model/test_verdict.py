"""The last word of a machine's ranks."""

from model import verdict


def test_the_first_mistake_stays_and_each_machine_has_its_own(tmp_path):
    config = tmp_path / "config-1.json"
    assert verdict.read(verdict.place(config)) == {} and verdict.place(tmp_path / "config.json").name == "error.json"
    verdict.leave(config, {"stopped": True})
    verdict.leave(config, {"message": "first"})
    for later in ({"message": "second"}, {"stopped": True}):
        verdict.leave(config, later)
    assert verdict.read(tmp_path / "error-1.json") == {"message": "first"}
    assert [path.name for path in tmp_path.iterdir()] == ["error-1.json"]
