"""What a training cannot load is one line that says what to do."""

import importlib.util

import pytest

from orbench.errors import ModelError, UsageError
from orbench.mitigation.config import Sft
from orbench.testing import make_tiny_model
from tests.mitigation.conftest import settings, train

for module in ("trl", "peft", "torch", "transformers"):
    if importlib.util.find_spec(module) is None:
        pytest.skip("needs the extra `train`", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # torch, TRL and transformers warn of their own affairs


def test_an_adapter_for_a_module_that_is_not_there(made, pairs, tmp_path):
    with pytest.raises(UsageError, match=r"no module 'c_attn'; it has .*q_proj"):
        train(settings(Sft, made, pairs, tmp_path, lora_rank=4, lora_targets="q_proj,c_attn"))


def test_a_tokenizer_without_a_template_is_refused(made, pairs, tmp_path):
    make_tiny_model(tmp_path / "bare", steps=0, chat_template=None)
    with pytest.raises(ModelError, match="chat template"):
        train(settings(Sft, made, pairs, tmp_path, model=str(tmp_path / "bare")))


def test_a_model_that_cannot_be_loaded_is_one_line(made, pairs, tmp_path):
    with pytest.raises(ModelError, match="no tokenizer"):
        train(settings(Sft, made, pairs, tmp_path, model=str(tmp_path / "nothing")))
