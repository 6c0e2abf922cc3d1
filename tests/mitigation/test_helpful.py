"""Marks of a reward model."""

import pytest

import orbench
from orbench.mitigation.helpful import rate_rows
from orbench.testing import ScriptedModel, make_tiny_model

pytest.importorskip("torch", reason="needs the extra `train`")
pytest.importorskip("transformers", reason="needs the extra `train`")


@pytest.mark.parametrize("pad", [True, False])
def test_a_reward_model_marks_replies_with_and_without_a_pad_token(here, prompts, pad):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    make_tiny_model(here / "tiny", steps=0)
    tokenizer = AutoTokenizer.from_pretrained("tiny")
    tokenizer.pad_token = tokenizer.eos_token if pad else None
    tokenizer.save_pretrained("reward")
    model = AutoModelForSequenceClassification.from_pretrained("tiny", num_labels=1)
    model.config.pad_token_id = None
    model.save_pretrained("reward")
    run = orbench.evaluate(
        ScriptedModel(lambda request: "" if "kill" in request.prompt else request.prompt),
        splits=f"safe={prompts(20, 0)}",
        out="run",
        progress=False,
    )
    marks = rate_rows("reward/reward", run.rows(), here / "marks.jsonl", empty=True).values
    assert len(set(marks.values())) > 5
    assert None not in marks.values()
    assert len(rate_rows("reward/reward", run.rows(), here / "others.jsonl").values) == 20 - 13
