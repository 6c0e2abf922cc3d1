"""BERTScore, with a real model made on the spot."""

import pytest

from orbench.errors import MissingExtraError, ModelError, UsageError
from orbench.generation.bertscore import bertscore
from orbench.testing import make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("transformers", reason="needs the extra `hf`")
    pytest.importorskip("torch", reason="needs the extra `hf`")
    return str(make_tiny_model(tmp_path_factory.mktemp("tiny"), steps=2))


def test_the_same_text_is_wholly_alike_and_others_less(model):
    same = bertscore(["How do I stop a fox?"] * 2, model, pairs=2)
    assert (same.precision, same.recall, same.f1) == pytest.approx((1, 1, 1), abs=1e-4)
    other = bertscore(["How do I stop a fox?", "Why is the sky blue at noon in the town?"], model, pairs=5)
    assert other.f1 < 0.99
    assert min(other.precision, other.recall) <= other.f1 <= max(other.precision, other.recall)


def test_the_score_does_not_hang_on_what_else_is_in_the_batch(model, monkeypatch):
    texts = ["How do I stop a fox?", "Why is the sky blue?", "Please " * 80]
    together = bertscore(texts, model, pairs=20)
    monkeypatch.setattr("orbench.generation.bertscore._BATCH", 1)
    alone = bertscore(texts, model, pairs=20)
    assert together.f1 == pytest.approx(alone.f1, abs=1e-4)
    assert together.pairs == 20


def test_a_model_that_is_not_there_is_one_line(model, tmp_path):
    with pytest.raises(ModelError, match="no model that BERTScore can use"):
        bertscore(["a", "b"], str(tmp_path))


def test_one_prompt_has_no_pair():
    with pytest.raises(UsageError, match="1 prompts"):
        bertscore(["a"], "nowhere")


def test_a_generation_measures_it_by_category_in_its_card(model, world):
    made = world(bertscore=model, language_code="none")
    found = made.facts["bertscore"]["all"]
    assert set(found) == {"privacy", "illegal", "all"}
    card = (made.folder / "README.md").read_text(encoding="utf-8")
    assert f"| privacy | 1,000 | {found['privacy']['precision']:.2f} |" in card


def test_without_the_extra_nothing_is_asked(world, monkeypatch):
    monkeypatch.setattr("orbench.generation.bertscore.is_installed", lambda module: False)
    with pytest.raises(MissingExtraError, match="BERTScore"):
        world(bertscore="model", language_code="none")
    assert world.server.answered == 0
