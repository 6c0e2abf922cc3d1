"""`--scorer hf/FOLDER` with a real sequence classifier, made on the spot."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import orbench
from orbench import MissingExtraError, ModelError, Outcome, Response
from orbench.scoring import transformer
from orbench.scoring.scorers import make_scorer
from orbench.scoring.transformer import TransformerStage, refusing_labels
from orbench.testing import ScriptedModel, make_tiny_model

MakeResponse = Callable[..., Response]

SOFT = "Let us talk about the harvest instead; the barn is a fine topic."
ANSWER = "Turn the handle left, then lift the lid and take the jar out."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A classifier that knows two sentences, and no others."""
    torch = pytest.importorskip("torch", reason="needs the extra `hf`")
    transformers = pytest.importorskip("transformers", reason="needs the extra `hf`")
    path = make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", steps=0, chat_template=None)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        id2label={0: "Non-refusal", 1: "Refusal"},
    )
    model = transformers.LlamaForSequenceClassification(config)
    batch = tokenizer([ANSWER, SOFT], padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        loss = model(**batch, labels=torch.tensor([0, 1])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    made = tmp_path_factory.mktemp("models") / "classifier"
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    yield made
    torch.set_num_threads(threads)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def change(folder: Path, **fields: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.mark.parametrize(
    ("labels", "refusing"),
    [
        (["Non-refusal", "Refusal"], [1]),
        (["NORMAL", "REJECTION"], [1]),
        (["refused", "not_refused"], [0]),
        (["answer", "direct_refusal", "indirect_refusal"], [1, 2]),
        (["nonrefusal", "declined"], [1]),
        (["LABEL_0", "LABEL_1"], []),
    ],
)
def test_labels_that_mean_refusal_are_told_by_name(labels: list[str], refusing: list[int]) -> None:
    assert refusing_labels(dict(enumerate(labels))) == refusing


def test_it_decides_by_its_probability(folder: Path, reply: MakeResponse) -> None:
    stage = TransformerStage(f"hf/{folder}")
    finding = stage(reply(SOFT))
    assert finding is not None
    assert (finding.outcome, finding.by) == (Outcome.DIRECT_REFUSAL, "classifier")
    assert finding.confidence is not None
    assert finding.confidence > transformer.SURE
    assert finding.reason == f"hf/{folder}: probability of refusal {finding.confidence:.3f}"
    answer = stage(reply(ANSWER))
    assert answer is not None
    assert answer.outcome is Outcome.DIRECT_ANSWER


def test_it_abstains_between(folder: Path, reply: MakeResponse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer, "SURE", 1.01)
    assert TransformerStage(f"hf/{folder}")(reply(SOFT)) is None


@pytest.mark.parametrize("text", ["", "word " * 5000, "\ud800 odd", "\u200b"])
def test_odd_replies_do_not_break_it(folder: Path, reply: MakeResponse, text: str) -> None:
    probability = TransformerStage(f"hf/{folder}").refusal_probability(reply(text))
    assert 0 <= probability <= 1


def test_a_long_reply_is_read_at_both_ends_and_the_cut_is_said(
    folder: Path, reply: MakeResponse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformer, "SURE", 0.5)
    stage, middle = TransformerStage(f"hf/{folder}"), "word " * 500
    texts = (SOFT + middle + SOFT, SOFT + "other" * 100 + middle + SOFT, middle + SOFT, SOFT + middle)
    first, same, headless, endless = (stage.refusal_probability(reply(text)) for text in texts)
    assert first == pytest.approx(same)
    assert headless != pytest.approx(first, abs=1e-6)
    assert endless != pytest.approx(first, abs=1e-6)
    finding = stage(reply(texts[0]))
    assert finding is not None
    assert re.search(r", [\d,]+ tokens in the middle unseen$", finding.reason or "")


def test_a_batch_says_of_each_reply_what_it_says_of_one(
    folder: Path, reply: MakeResponse, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = TransformerStage(f"hf/{folder}")
    replies = [reply(text) for text in (SOFT, "", ANSWER, "word " * 500, "Let us talk.", "\ud800 odd")]
    alone = [stage(one) for one in replies]
    assert alone[0] != alone[2]
    assert stage.read_all(replies) == alone
    monkeypatch.setitem(transformer.BATCH_TOKENS, stage.device, 40)  # several batches
    assert stage.read_all(replies) == alone
    assert stage.read_all([]) == []


def test_a_model_without_padding_reads_one_at_a_time(copy: Path, folder: Path, reply: MakeResponse) -> None:
    change(copy, pad_token_id=None)
    replies = [reply(SOFT), reply(ANSWER), reply("")]
    found, padded = (TransformerStage(f"hf/{path}").read_all(replies) for path in (copy, folder))
    assert [one and one.outcome for one in found] == [one and one.outcome for one in padded]


def test_calibration_reads_batches(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    read_all = TransformerStage.read_all
    monkeypatch.setattr(
        TransformerStage, "read_all", lambda self, given: sizes.append(len(given)) or read_all(self, given)
    )
    labels = tmp_path / "labels.csv"
    labels.write_text("prompt,response,label\n" + f'"How?","{SOFT}",refusal\n' * 100, encoding="utf-8")
    done = orbench.calibrate(labels, f"hf/{folder}")
    assert done.overall.found_refusal == 100
    assert sum(sizes) == 100
    assert len(sizes) == 2


def test_a_chat_template_gets_the_whole_conversation(copy: Path, reply: MakeResponse) -> None:
    (copy / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    stage, alone = TransformerStage(f"hf/{copy}"), reply("", prompt=SOFT)
    assert stage.refusal_probability(alone) == pytest.approx(
        stage.refusal_probability(reply(SOFT, prompt="")), abs=1e-6
    )


def test_it_reads_what_the_cascade_leaves_and_the_judge_gets_the_rest(folder: Path, tmp_path: Path) -> None:
    model = ScriptedModel(SOFT)
    plain = orbench.evaluate(model, splits="sample", limit=4, out=tmp_path / "run")
    assert {row.outcome for row in plain.rows()} == {"unscored"}
    result = orbench.score(tmp_path / "run", scorer=f"hf/{folder}")
    assert {(row.outcome, row.by) for row in result.rows()} == {("direct_refusal", "classifier")}
    assert result.to_dict()["scorer"]["name"] == f"hf/{folder}"
    assert make_scorer(f"hf/{folder}").digest != make_scorer("cascade").digest
    fresh = orbench.evaluate(model, splits="sample", limit=4, out=tmp_path / "fresh", scorer=f"hf/{folder}")
    assert [row.outcome for row in fresh.rows()] == ["direct_refusal"] * len(list(plain.rows()))


def test_other_weights_are_another_scorer(folder: Path, copy: Path) -> None:
    before = TransformerStage(f"hf/{copy}").digest
    assert before == TransformerStage(f"hf/{folder}").digest
    change(copy, id2label={"0": "answer", "1": "refusal"})
    assert TransformerStage(f"hf/{copy}").digest != before


@pytest.mark.parametrize("labels", [{"0": "LABEL_0", "1": "LABEL_1"}, {"0": "refusal", "1": "rejection"}])
def test_labels_that_say_nothing_are_an_error_that_says_what_to_do(copy: Path, labels: dict[str, str]) -> None:
    change(copy, id2label=labels)
    with pytest.raises(ModelError, match="id2label"):
        TransformerStage(f"hf/{copy}")


def test_a_language_model_is_no_classifier(folder: Path, tmp_path: Path) -> None:
    path = make_tiny_model(tmp_path / "tiny", steps=0)
    with pytest.raises(ModelError, match=r"no trained sequence classifier: score\.weight"):
        make_scorer(f"hf/{path}")


def test_no_such_folder_is_an_error_of_one_line(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"hf/\./nowhere: there is no folder"):
        make_scorer("hf/./nowhere")


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"orbench\[hf\]"):
        TransformerStage("hf/any")
