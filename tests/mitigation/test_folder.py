"""A training's folder: the same command goes on in it, another one is refused."""

import importlib.util

import pytest

from orbench.errors import OrbenchError, RunError
from orbench.mitigation.config import Dpo, Sft
from tests.mitigation.conftest import settings, train, validation_file

for module in ("trl", "peft", "torch", "transformers"):
    if importlib.util.find_spec(module) is None:
        pytest.skip("needs the extra `train`", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # torch, TRL and transformers warn of their own affairs


def test_another_setting_in_the_same_folder_is_refused(made, pairs, tmp_path):
    train(settings(Sft, made, pairs, tmp_path, max_steps=1))
    with pytest.raises(RunError, match="another learning_rate"):
        train(settings(Sft, made, pairs, tmp_path, max_steps=1, learning_rate=2e-3))


def test_a_training_that_could_not_begin_leaves_nothing_to_keep_to(made, pairs, tmp_path):
    given = {"validation": validation_file(tmp_path), "scorer": "judge", "max_steps": 1, "checkpoints": 1}
    with pytest.raises(OrbenchError, match="no_such_module"):
        train(settings(Sft, made, pairs, tmp_path, judge="python/no_such_module:judge", **given))
    assert train(settings(Sft, made, pairs, tmp_path, **(given | {"scorer": "cascade"}))).finished


def test_data_that_changed_is_another_training(made, pairs, tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = (pairs / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(rows), encoding="utf-8")
    config = settings(Dpo, made, file, tmp_path, max_steps=1)
    trained = train(config)
    file.write_text("".join(rows[1:]), encoding="utf-8")
    with pytest.raises(RunError, match="the data has changed"):
        train(config)
    file.write_text("".join(rows), encoding="utf-8")
    assert train(config) == trained
