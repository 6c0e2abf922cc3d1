"""The recipes for large models, tried on a tiny one: their settings are known, and TRL takes them."""

import importlib.util
import json
from pathlib import Path

import pytest

from orbench.mitigation.config import Dpo, Sft, make_config
from orbench.testing import make_tiny_model

RECIPES = Path(__file__).parents[2] / "examples" / "mitigation" / "recipes"
KINDS = {"dpo-7b-lora": Dpo, "dpo-7b-full": Dpo, "sft-7b-lora": Sft}


def test_every_recipe_is_tried():
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {*KINDS, "zero2"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_a_recipe_trains_a_tiny_model(name, tmp_path):
    if any(importlib.util.find_spec(module) is None for module in ("trl", "peft")):
        pytest.skip("needs the extra `train`")
    from orbench.mitigation.trainer import dpo, sft

    make_tiny_model(tmp_path / "tiny", steps=0)
    turn = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    row = {name: [{"role": role, "content": f"The {name}."}] for name, role in turn.items()}
    data = tmp_path / "pairs"
    data.mkdir()
    (data / "train.jsonl").write_text(json.dumps({**row, "prompt_id": "1", "kind": "safe"}) + "\n", encoding="utf-8")
    # Half precision is the recipe's, but slow and rough on a CPU; steps are those of a dry run.
    flags = {"data": str(data), "model": str(tmp_path / "tiny"), "out": str(tmp_path / "out")}
    config = make_config(KINDS[name], {**flags, "max_steps": 1, "dtype": "float32"}, file=RECIPES / f"{name}.yaml")
    assert (dpo if KINDS[name] is Dpo else sft)(config).finished
