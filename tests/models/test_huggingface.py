"""`hf/...` on a real tiny model, made on the spot."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

import orbench
from orbench.errors import MissingExtraError, ModelError
from orbench.models.base import Model
from orbench.models.chat import Chat, ChatOptions
from orbench.models.huggingface import HuggingFaceModel
from orbench.records import Completion, Message, Request, Sampling
from orbench.testing import make_tiny_model

torch = pytest.importorskip("torch", reason="needs the extra `hf`")
transformers = pytest.importorskip("transformers", reason="needs the extra `hf`")
pytest.importorskip("accelerate", reason="needs the extra `hf`")

PROMPTS = [
    f"{start} {topic}{' in my old house' * length}?"
    for start, length in (("How do I", 0), ("Can you tell me the best way to", 3), ("Please", 1))
    for topic in ("bake a cake", "kill a process", "write a story", "plant a tree", "steal the show", "attack a bug")
]
MARKERLESS = "{% for message in messages %}{{ message.content }}{% endfor %}"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small a model only waits for further threads, above all where other work runs beside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "thinking", thinking=True)


@pytest.fixture(scope="module")
def babbling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights and a short context."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "babbling", steps=0, context=64)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model to spoil."""
    return shutil.copytree(tiny, tmp_path / "copy")


def requests(prompts: list[str], system: str | None = None, **sampling: float | int | None) -> list[Request]:
    first = () if system is None else (Message("system", system),)
    return [
        Request(id=f"{number}", messages=(*first, Message("user", prompt)), sampling=Sampling(**sampling))
        for number, prompt in enumerate(prompts)
    ]


def answers(model: HuggingFaceModel, asked: list[Request]) -> list[Completion]:
    """The completions in the order of the requests."""

    async def collect() -> dict[str, Completion]:
        return {completion.id: completion async for completion in model.generate(asked)}

    found = asyncio.run(collect())
    assert found.keys() == {request.id for request in asked}
    return [found[request.id] for request in asked]


def texts(model: HuggingFaceModel, asked: list[Request]) -> list[str]:
    return [completion.text for completion in answers(model, asked)]


def test_it_is_a_model_that_takes_the_whole_list(tiny: Path) -> None:
    model = HuggingFaceModel(str(tiny))
    assert isinstance(model, Model)
    assert (model.name, model.batch_size, model.max_concurrency) == (f"hf/{tiny}", None, 1)


def test_replies_do_not_depend_on_the_batch(tiny: Path) -> None:
    asked = requests(PROMPTS, max_tokens=40)
    together = answers(HuggingFaceModel(str(tiny)), asked)
    assert answers(HuggingFaceModel(str(tiny), batch_rows=1), asked) == together
    assert answers(HuggingFaceModel(str(tiny), batch_tokens=200), asked) == together
    assert len({completion.text for completion in together}) > 1


def test_replies_are_those_of_transformers_itself(tiny: Path) -> None:
    tokenizer, model = (
        transformers.AutoTokenizer.from_pretrained(tiny),
        transformers.AutoModelForCausalLM.from_pretrained(tiny),
    )
    for prompt, completion in zip(
        PROMPTS[:5], answers(HuggingFaceModel(str(tiny)), requests(PROMPTS[:5])), strict=True
    ):
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        output = model.generate(**inputs, max_new_tokens=100)[0, inputs["input_ids"].shape[1] :]
        assert completion.text == tokenizer.decode(output, skip_special_tokens=True)
        assert completion.usage is not None
        assert completion.usage.input_tokens == inputs["input_ids"].shape[1]
        assert completion.usage.output_tokens == len(output)


def test_a_system_prompt_is_a_turn_of_its_own(tiny: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    [alone] = answers(HuggingFaceModel(str(tiny)), requests(["Hello."]))
    [led] = answers(HuggingFaceModel(str(tiny)), requests(["Hello."], system="Be brief."))
    assert alone.usage is not None
    assert led.usage is not None
    turn = tokenizer("<|system|>\nBe brief.<|end|>\n", add_special_tokens=False)["input_ids"]
    assert led.usage.input_tokens == alone.usage.input_tokens + len(turn)


@pytest.mark.parametrize(
    "template",
    [
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + MARKERLESS,
        "{% for message in messages if message.role == 'user' %}{{ message.content }}{% endfor %}",
        "Be brief. {% for message in messages if message.role == 'user' %}{{ message.content }}{% endfor %}",
    ],
    ids=["refuses", "drops", "says so by itself"],
)
def test_a_template_without_system_prompts_is_told_before_anything_is_asked(copy: Path, template: str) -> None:
    (copy / "chat_template.jinja").write_text(template)
    model = HuggingFaceModel(str(copy))
    assert answers(model, requests(["Hello."]))[0].error is None
    with pytest.raises(ModelError, match="chat template takes no system prompt"):
        answers(model, requests(["Hello."], system="Be brief."))


def test_a_reply_that_ends_by_itself_stops_and_one_that_is_cut_off_has_length(tiny: Path) -> None:
    model = HuggingFaceModel(str(tiny))
    [whole] = answers(model, requests(PROMPTS[:1]))
    [cut] = answers(model, requests(PROMPTS[:1], max_tokens=3))
    assert whole.finish_reason == "stop"
    assert cut.finish_reason == "length"
    assert whole.usage is not None
    assert cut.usage is not None
    assert whole.usage.output_tokens > cut.usage.output_tokens == 3
    assert "<|" not in whole.text


def test_reasoning_is_told_apart_from_the_answer(thinking: Path) -> None:
    model = HuggingFaceModel(str(thinking))
    asked = requests(["How do I bake a cake?"])
    [whole] = answers(model, asked)
    assert whole.reasoning is not None
    assert whole.reasoning.startswith("They ask about")
    assert whole.text
    assert "think>" not in whole.text + whole.reasoning
    [cut] = answers(model, requests(["How do I bake a cake?"], max_tokens=4))
    assert (cut.text, cut.finish_reason) == ("", "length")
    assert cut.reasoning
    assert whole.reasoning.startswith(cut.reasoning)


def test_reasoning_that_the_template_opens_is_told_apart_too(thinking: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(thinking, tmp_path / "opened")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template.replace("<|assistant|>\n", "<|assistant|>\n<think>\n"))
    model = HuggingFaceModel(str(folder))
    [whole] = answers(model, requests(["How do I bake a cake?"]))
    [cut] = answers(model, requests(["How do I bake a cake?"], max_tokens=4))
    assert (cut.text, cut.finish_reason) == ("", "length")
    assert cut.reasoning
    assert whole.text
    assert whole.reasoning


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<think>", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("<|channel>thought", "<channel|>"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ],
)
@pytest.mark.parametrize("opened", [False, True], ids=["by the model", "by the template"])
def test_reasoning_that_special_tokens_mark_is_told_apart(tiny: Path, opening: str, closing: str, opened: bool) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    markers = re.findall(r"<\|?/?\w+\|?>|\[/?THINK\]", opening + closing)
    tokenizer.add_special_tokens({"additional_special_tokens": [*dict.fromkeys(markers), "<|other|>"]})
    if opened:
        tokenizer.chat_template += opening
    chat = Chat("hf/x", tokenizer, None, ChatOptions())
    [question], _ = chat.prepare(requests(["Hello."]))

    def read(reply: str) -> Completion:
        said = reply if opened else opening + reply
        return chat.completion(question, tokenizer(said, add_special_tokens=False)["input_ids"], 9, "stop")

    whole, cut = read(f"\nThey greet.{closing}<|other|>Good day."), read("\nThey gr")
    assert (whole.text, whole.reasoning) == ("Good day.", "They greet.")
    assert (cut.text, cut.reasoning) == ("", "They gr")


def test_a_prompt_longer_than_the_context_is_an_error_of_its_row_alone(babbling: Path) -> None:
    asked = requests(["Hello.", "word " * 300, "Good morning."])
    first, long, last = answers(HuggingFaceModel(str(babbling)), asked)
    assert long.error is not None
    assert "prompt is too long" in long.error
    assert "64" in long.error
    for completion in (first, last):
        assert completion.error is None
        assert completion.usage is not None
        assert completion.usage.input_tokens + completion.usage.output_tokens <= 64
        assert completion.finish_reason in {"length", "stop"}


def test_batches_are_halved_when_memory_runs_out_and_finished_ones_are_kept(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(PROMPTS, max_tokens=40)
    undisturbed = answers(HuggingFaceModel(str(tiny)), asked)
    generate, sizes = transformers.LlamaForCausalLM.generate, []

    def scarce(self, input_ids, **others):
        if len(input_ids) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        sizes.append(len(input_ids))
        return generate(self, input_ids=input_ids, **others)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "generate", scarce)
    assert answers(HuggingFaceModel(str(tiny)), asked) == undisturbed
    assert sum(sizes) == len(asked)  # nothing was done twice


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_one_prompt_that_is_too_large_for_memory_is_an_error_of_its_row_alone(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    generate = transformers.LlamaForCausalLM.generate

    def scarce(self, input_ids, **others):
        if input_ids.shape[1] > 100:
            raise error
        return generate(self, input_ids=input_ids, **others)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "generate", scarce)
    first, large, last = answers(HuggingFaceModel(str(tiny)), requests([PROMPTS[0], "word " * 100, PROMPTS[1]]))
    assert large.error == "out of memory with this prompt alone"
    assert first.error is last.error is None


def test_another_failure_while_generating_stops_the_run_with_one_line(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self, **others):
        raise RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(transformers.LlamaForCausalLM, "generate", broken)
    with pytest.raises(ModelError, match=r"failed while it generated: CUDA error: device-side assert triggered$"):
        answers(HuggingFaceModel(str(tiny)), requests(["Hello."]))


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_weights_that_give_nan_or_infinity_are_an_error_and_no_reply(copy: Path, value: str) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(copy)
    model.lm_head.weight.data[5, 0], model.lm_head.weight.data[6, 0] = float(value), -float(value)
    model.save_pretrained(copy)
    [completion] = answers(HuggingFaceModel(str(copy)), requests(["Hello."], max_tokens=3))
    assert completion.error is not None
    assert "NaN" in completion.error


def test_every_batch_is_handed_over_before_the_next_is_begun(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate, received, waited = transformers.LlamaForCausalLM.generate, threading.Event(), []

    def gated(self, **others):
        if waited:
            assert received.wait(60), "the first batch was held back"
        waited.append(True)
        return generate(self, **others)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "generate", gated)

    async def first() -> Completion:
        model = HuggingFaceModel(str(tiny), batch_rows=4)
        async with aclosing(model.generate(requests(PROMPTS, max_tokens=2))) as completions:
            async for completion in completions:
                received.set()
                return completion
        raise AssertionError

    assert asyncio.run(first()).error is None


INTERRUPTED = """
import os, signal, sys
import transformers
from orbench.cli import main

generate, calls = transformers.LlamaForCausalLM.generate, []

def interrupted(self, **others):
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGINT)
    return generate(self, **others)

transformers.LlamaForCausalLM.generate = interrupted
main()
"""


def test_interrupted_while_it_generates_the_program_ends_as_it_should(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "long", steps=0)  # its replies go on until they are cut off
    command = ["evaluate", f"hf/{folder}", "--split", "sample", "--max-tokens", "1500", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *command, "--engine-option", "batch_rows=8"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "interrupted. Everything received is saved" in done.stderr
    assert "terminate" not in done.stderr
    assert done.returncode == 130
    assert (tmp_path / "run" / "result.json").is_file()


def test_a_call_that_was_broken_off_leaves_the_model_fit_for_the_next(tiny: Path) -> None:
    model, asked = HuggingFaceModel(str(tiny), batch_rows=4), requests(PROMPTS, max_tokens=10)

    async def break_off() -> None:
        async with aclosing(model.generate(asked)) as completions:
            async for _ in completions:
                return

    asyncio.run(break_off())
    assert answers(model, asked) == answers(HuggingFaceModel(str(tiny)), asked)


def test_requests_with_different_sampling_may_stand_in_one_list(tiny: Path) -> None:
    model = HuggingFaceModel(str(tiny))
    asked = [
        Request(id=str(limit), messages=(Message("user", PROMPTS[0]),), sampling=Sampling(max_tokens=limit))
        for limit in (2, 5, 3)
    ]
    assert [completion.usage.output_tokens for completion in answers(model, asked) if completion.usage] == [2, 5, 3]


def test_sampling_with_a_seed_gives_the_same_replies_in_any_batch(babbling: Path) -> None:
    asked = requests(PROMPTS[:8], temperature=1.0, top_p=0.9, seed=7, max_tokens=12)
    state = torch.get_rng_state()
    drawn = texts(HuggingFaceModel(str(babbling)), asked)
    assert texts(HuggingFaceModel(str(babbling), batch_rows=3), asked) == drawn
    assert texts(HuggingFaceModel(str(babbling)), asked[4:]) == drawn[4:]
    assert (
        texts(HuggingFaceModel(str(babbling)), requests(PROMPTS[:8], temperature=1.0, seed=8, max_tokens=12)) != drawn
    )
    assert texts(HuggingFaceModel(str(babbling)), requests(PROMPTS[:8], max_tokens=12)) != drawn
    assert torch.equal(torch.get_rng_state(), state)


def test_sampling_without_a_seed_differs_from_call_to_call(babbling: Path) -> None:
    model, asked = HuggingFaceModel(str(babbling)), requests(PROMPTS[:8], temperature=1.0, max_tokens=12)
    assert texts(model, asked) != texts(model, asked)


def test_draws_follow_the_models_probabilities(babbling: Path) -> None:
    tokenizer, model = (
        transformers.AutoTokenizer.from_pretrained(babbling),
        transformers.AutoModelForCausalLM.from_pretrained(babbling),
    )
    asked = [
        Request(
            id=str(number),
            messages=(Message("user", "Hello."),),
            sampling=Sampling(temperature=0.2, seed=1, max_tokens=1),
        )
        for number in range(2000)
    ]
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello."}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        probabilities = (model(**inputs).logits[0, -1] / 0.2).softmax(-1)
    likeliest = int(probabilities.argmax())
    expected = float(probabilities[likeliest])
    text = tokenizer.decode([likeliest], skip_special_tokens=True)
    share = texts(HuggingFaceModel(str(babbling)), asked).count(text) / len(asked)
    assert share == pytest.approx(expected, abs=4 * (expected * (1 - expected) / len(asked)) ** 0.5)


def test_what_the_authors_recommend_for_sampling_does_not_touch_greedy_replies(
    tiny: Path, copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "max_length": 25, "num_beams": 3}
    _change(copy / "generation_config.json", **settings)
    greedy = texts(HuggingFaceModel(str(tiny)), requests(PROMPTS))
    capfd.readouterr()
    assert texts(HuggingFaceModel(str(copy)), requests(PROMPTS)) == greedy
    assert capfd.readouterr().err == ""


def test_a_repetition_penalty_of_the_authors_holds_and_does_not_depend_on_the_batch(
    babbling: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(babbling, tmp_path / "penalized")
    _change(folder / "generation_config.json", repetition_penalty=1.5)
    asked = requests(PROMPTS, max_tokens=12)
    penalized = texts(HuggingFaceModel(str(folder)), asked)
    assert penalized != texts(HuggingFaceModel(str(babbling)), asked)
    assert penalized == texts(HuggingFaceModel(str(folder), batch_rows=1), asked)


def test_stop_strings_of_the_authors_end_a_reply(copy: Path) -> None:
    _change(copy / "generation_config.json", stop_strings=[".", "!", ","])
    for completion in answers(HuggingFaceModel(str(copy)), requests(PROMPTS)):
        assert completion.finish_reason == "stop"
        assert completion.text[-1] in ".!,"


def test_a_tokenizer_without_padding_token_and_several_stop_tokens(tiny: Path, copy: Path) -> None:
    _change(copy / "tokenizer_config.json", pad_token=None)
    _change(copy / "generation_config.json", pad_token_id=None, eos_token_id=[3, 4])
    asked = requests(PROMPTS, max_tokens=40)
    assert answers(HuggingFaceModel(str(copy)), asked) == answers(HuggingFaceModel(str(tiny)), asked)


def _change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_an_empty_list_is_answered_at_once(tiny: Path) -> None:
    assert answers(HuggingFaceModel(str(tiny)), []) == []


def test_dtype_and_device_can_be_chosen(tiny: Path) -> None:
    model = HuggingFaceModel(str(tiny), device_map="cpu", dtype="bfloat16")
    model.load()
    assert answers(model, requests(["Hello."]))[0].text
    asyncio.run(model.close())


@pytest.mark.parametrize("path", ["./no/such/model", "/no/such/model", "~/no/such/model", "no/such/model"])
def test_a_missing_folder_is_told_before_anything_is_loaded(path: str) -> None:
    with pytest.raises(ModelError, match=r"there is no folder .*no/such/model"):
        HuggingFaceModel(path)


def test_an_unknown_hub_id_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"^hf/nobody/nothing cannot be loaded: no folder of that name, and not"):
        HuggingFaceModel("nobody/nothing").load()


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _torn_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _bad_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize("spoil", [_empty, _torn_weights, _no_weights, _no_tokenizer, _bad_config])
def test_a_broken_folder_gives_one_clear_line(copy: Path, spoil) -> None:
    spoil(copy)
    with pytest.raises(ModelError, match=r"^hf/\S+ cannot be loaded: [^\n]+$"):
        answers(HuggingFaceModel(str(copy)), requests(["Hello."]))


def test_a_model_with_code_of_its_own_says_how_to_allow_it(copy: Path) -> None:
    (copy / "own.py").write_text("class Config: ...")
    _change(copy / "config.json", model_type="own", auto_map={"AutoConfig": "own.Config"})
    with pytest.raises(ModelError, match=r"^hf/\S+ cannot be loaded: [^\n]+trust_remote_code=True"):
        HuggingFaceModel(str(copy)).load()


def test_an_encoder_is_no_model_that_answers(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=20
    )
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is no causal language model but BertForMaskedLM"):
        HuggingFaceModel(str(tmp_path)).load()


def test_weights_that_are_missing_are_not_made_up(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"weights are missing \(lm_head.weight"):
        HuggingFaceModel(str(copy)).load()


def test_a_tokenizer_without_chat_template_says_what_to_do(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "base", steps=0, chat_template=None)
    with pytest.raises(ModelError, match=r"no chat template.*chat_template=FILE"):
        HuggingFaceModel(str(folder)).load()


def test_several_templates_without_a_default_are_told_before_anything_is_asked(copy: Path) -> None:
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").unlink()
    named = [{"name": name, "template": template} for name in ("tool_use", "rag")]
    _change(copy / "tokenizer_config.json", chat_template=named)
    with pytest.raises(ModelError, match="the chat templates tool_use, rag and no default one"):
        HuggingFaceModel(str(copy)).load()
    (copy / "mine.jinja").write_text(template)
    HuggingFaceModel(str(copy), chat_template=str(copy / "mine.jinja")).load()


def test_a_file_with_a_template_makes_a_base_model_a_chat_model(tiny: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny, tmp_path / "base")
    template = (base / "chat_template.jinja").rename(tmp_path / "template.jinja")
    model, asked = HuggingFaceModel(str(base), chat_template=str(template)), requests(PROMPTS[:4])
    whole = HuggingFaceModel(str(tiny))
    assert answers(model, asked) == answers(whole, asked)
    assert model.facts["chat_template"] == whole.facts["chat_template"]
    with pytest.raises(ModelError, match=r"none\.jinja cannot be read"):
        HuggingFaceModel(str(base), chat_template="none.jinja").load()


def test_values_for_the_template_reach_it_and_change_its_digest(copy: Path) -> None:
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").write_text("{{ greeting or '' }}" + template)
    plain, greeted = HuggingFaceModel(str(copy)), HuggingFaceModel(str(copy), chat_template_kwargs={"greeting": "Oh "})
    lengths = [answers(model, requests(["Hello."]))[0].usage.input_tokens for model in (plain, greeted)]
    assert lengths[0] < lengths[1]
    assert plain.facts["chat_template"] != greeted.facts["chat_template"]
    assert greeted.settings == {"chat_template_kwargs": {"greeting": "Oh "}}


def test_a_prompt_longer_than_the_context_is_cut_only_where_that_is_asked_for(babbling: Path) -> None:
    model = HuggingFaceModel(str(babbling), truncate=True)
    short, long = answers(model, requests(["Hello.", "word " * 300], max_tokens=20))
    assert short.error is long.error is None
    assert 30 <= long.usage.input_tokens <= 44
    assert long.usage.output_tokens == 20
    assert model.adaptations == ["1 prompts cut to the model's context"]
    assert answers(HuggingFaceModel(str(babbling)), requests(["word " * 300]))[0].error is not None


def test_prompts_that_were_cut_are_counted_over_all_commands_of_a_run(babbling: Path, tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text("prompt\n" + "".join(f"{'word ' * 100}{n}\n" for n in range(5)))

    def evaluate() -> list[str]:
        result = orbench.evaluate(
            f"hf/{babbling}",
            splits=f"safe={tmp_path / 'long.csv'}",
            max_tokens=4,
            out=tmp_path / "run",
            model_options={"engine": {"truncate": True}},
            progress=False,
        )
        said: list[str] = result.config["adaptations"]
        return said

    assert evaluate() == ["5 prompts cut to the model's context"]
    for name in ("responses.jsonl", "verdicts.jsonl"):
        lines = (tmp_path / "run" / name).read_text().splitlines(keepends=True)
        (tmp_path / "run" / name).write_text("".join(lines[:3]))
    _change(tmp_path / "run" / "run.json", adaptations=["3 prompts cut to the model's context"])  # as of a stopped run
    assert evaluate() == ["5 prompts cut to the model's context"]
    assert evaluate() == ["5 prompts cut to the model's context"]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers in a way of before
def test_an_adapter_is_merged_into_its_base(tiny: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="needs the extra `peft`")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny)
    wide = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "o_proj", "down_proj"], init_lora_weights=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        adapted = peft.get_peft_model(model, wide)
    adapted.save_pretrained(tmp_path / "adapter")
    asked = requests(PROMPTS[:6], max_tokens=20)
    replies = answers(HuggingFaceModel(f"{tiny}+{tmp_path / 'adapter'}"), asked)
    assert [reply.text for reply in replies] != texts(HuggingFaceModel(str(tiny)), asked)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    for request, reply in zip(asked, replies, strict=True):
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": request.prompt}],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        output = adapted.generate(**inputs, max_new_tokens=20)[0, inputs["input_ids"].shape[1] :]
        assert reply.text == tokenizer.decode(output, skip_special_tokens=True)


def test_without_peft_an_adapter_names_the_extra(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'orbench\[peft\]'"):
        HuggingFaceModel(f"{tiny}+{tiny}")


def test_an_option_that_the_loader_does_not_know_is_named(tiny: Path) -> None:
    with pytest.raises(ModelError, match="no_such_option"):
        HuggingFaceModel(str(tiny), no_such_option=1).load()


def test_a_quantised_model_answers(tiny: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    settings = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    model = HuggingFaceModel(str(tiny), quantization_config=settings)
    assert all(reply.error is None for reply in answers(model, requests(PROMPTS[:2], max_tokens=8)))


def test_a_run_says_what_its_replies_were_made_with_and_takes_no_other_template(copy: Path, tmp_path: Path) -> None:
    def evaluate() -> orbench.Evaluation:
        return orbench.evaluate(
            HuggingFaceModel(str(copy)), splits="sample", max_tokens=4, out=tmp_path / "run", progress=False
        )

    evaluate()
    engine = json.loads((tmp_path / "run" / "run.json").read_text())["engine"]
    assert {"transformers", "torch", "device", "dtype", "chat_template", "options"} <= engine.keys()
    lines = (tmp_path / "run" / "responses.jsonl").read_text().splitlines()
    (tmp_path / "run" / "responses.jsonl").write_text("".join(f"{line}\n" for line in lines[:-3]))
    (tmp_path / "run" / "verdicts.jsonl").unlink()
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").write_text("Answer well.\n" + template)
    with pytest.raises(orbench.RunError, match="another version of the model"):
        evaluate()
    (copy / "chat_template.jinja").write_text(template)
    _change(tmp_path / "run" / "run.json", engine={**engine, "chat_template": "0" * 12})  # as of a model of the Hub
    with pytest.raises(orbench.RunError, match="another chat template"):
        evaluate()
    _change(tmp_path / "run" / "run.json", engine=engine)
    assert len(list(evaluate().rows())) == len(lines)


def test_objects_of_torch_and_transformers_are_options_too(tiny: Path, tmp_path: Path) -> None:
    quantised = HuggingFaceModel(str(tiny), quantization_config=transformers.BitsAndBytesConfig(load_in_8bit=True))
    assert quantised.settings is not None
    assert quantised.settings["quantization_config"]["load_in_8bit"] is True
    engine = {"torch_dtype": torch.bfloat16, "device_map": torch.device("cpu")}
    result = orbench.evaluate(
        f"hf/{tiny}",
        splits="sample",
        max_tokens=2,
        out=tmp_path / "run",
        model_options={"engine": engine},
        progress=False,
    )
    assert result.config["settings"] == {"dtype": "bfloat16"}
    assert result.config["engine"]["dtype"] == "bfloat16"
    assert result.config["engine"]["options"] == {"dtype": "bfloat16", "device_map": "cpu"}


def test_a_model_trained_anew_in_its_folder_gets_a_run_of_its_own(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent)

    def evaluate(**options: object) -> orbench.Evaluation:
        return orbench.evaluate("hf/copy", splits="sample", max_tokens=4, progress=False, **options)

    first = evaluate()
    assert evaluate().run == first.run
    weights = transformers.AutoModelForCausalLM.from_pretrained(copy)
    weights.lm_head.weight.data.mul_(-1)
    weights.save_pretrained(copy)
    second = evaluate()
    assert second.run != first.run
    assert [row.response for row in second.rows()] != [row.response for row in first.rows()]
    with pytest.raises(orbench.RunError, match="another version of the model"):
        evaluate(out=first.run)


def test_a_template_that_cannot_be_rendered_is_told(copy: Path) -> None:
    (copy / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(ModelError, match="chat template cannot be rendered: roles must alternate"):
        answers(HuggingFaceModel(str(copy)), requests(["Hello."], system="Be brief."))


@pytest.mark.parametrize("module", ["torch", "transformers", "accelerate"])
def test_without_its_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'orbench\[hf\]'"):
        HuggingFaceModel("org/model")


def test_the_tiny_model_can_be_made_again(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    one, two = (make_tiny_model(tmp_path / name, steps=2, seed=3) for name in ("one", "two"))
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    assert torch.equal(torch.get_rng_state(), state)


def test_without_torch_making_the_tiny_model_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match="hf"):
        make_tiny_model(tmp_path)
