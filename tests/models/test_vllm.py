"""`vllm/...` on a real tiny model in the real vLLM, on the CPU where there is nothing else.

Starting the engine takes most of a minute: the tests that only ask share one.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

import orbench
from orbench.errors import ModelError, UsageError
from orbench.models.base import Model
from orbench.models.huggingface import HuggingFaceModel
from orbench.records import Completion, Message, Request, Sampling
from orbench.scoring.judge import label_pattern
from orbench.testing import make_tiny_model

pytest.importorskip("vllm", reason="needs the extra `vllm`")
psutil = pytest.importorskip("psutil", reason="needs the extra `vllm`")
from orbench.models.vllm import VllmModel  # noqa: E402

ROOT = Path(__file__).parents[2]
PROMPTS = [
    f"{start} {topic}{' in my old house' * length}?"
    for start, length in (("How do I", 0), ("Can you tell me the best way to", 3), ("Please", 1))
    for topic in ("bake a cake", "kill a process", "write a story", "plant a tree", "steal the show", "attack a bug")
]
SETTINGS = {"dtype": "float32", "enforce_eager": True, "max_model_len": 512, "max_num_seqs": 64}
pytestmark = pytest.mark.filterwarnings("ignore")  # vLLM and its many libraries warn of each other


@pytest.fixture(scope="module", autouse=True)
def small_cache() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(tiny: Path) -> Iterator[VllmModel]:
    model = VllmModel(str(tiny), **SETTINGS, truncate=False)
    yield model
    asyncio.run(model.close())


def requests(prompts: list[str], system: str | None = None, pattern: str | None = None, **sampling) -> list[Request]:
    first = () if system is None else (Message("system", system),)
    return [
        Request(
            id=f"{number}",
            messages=(*first, Message("user", prompt)),
            sampling=Sampling(**sampling),
            pattern=pattern,
        )
        for number, prompt in enumerate(prompts)
    ]


def answers(model: Model, asked: list[Request]) -> list[Completion]:
    """The completions in the order of the requests."""

    async def collect() -> dict[str, Completion]:
        return {completion.id: completion async for completion in model.generate(asked)}

    found = asyncio.run(collect())
    assert found.keys() == {request.id for request in asked}
    return [found[request.id] for request in asked]


def children() -> list[psutil.Process]:
    """Processes of engines; Python's own tracker of shared memory stays to the end."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended, or nobody has asked how it did
            if "resource_tracker" not in " ".join(child.cmdline()):
                found.append(child)
    return found


def left(before: list[psutil.Process]) -> list[psutil.Process]:
    """Those that came since and do not end."""
    return psutil.wait_procs([child for child in children() if child not in before], timeout=60)[1]


def test_it_answers_as_transformers_does(tiny: Path, model: VllmModel) -> None:
    for max_tokens in (100, 5):
        asked = requests(PROMPTS, max_tokens=max_tokens)
        assert answers(model, asked) == answers(HuggingFaceModel(str(tiny)), asked)
    assert isinstance(model, Model)
    assert model.facts["dtype"] == "float32"
    assert len(model.facts["chat_template"]) == 12


def test_a_system_prompt_is_a_turn_of_its_own(tiny: Path, model: VllmModel) -> None:
    asked = requests(PROMPTS[:3], system="Be brief.")
    assert answers(model, asked) == answers(HuggingFaceModel(str(tiny)), asked)


def test_a_prompt_longer_than_the_context_is_an_error_of_its_row_alone(model: VllmModel) -> None:
    first, long, last = answers(model, requests(["Hello.", "word " * 900, "Good morning."], max_tokens=8))
    assert long.error is not None
    assert "prompt is too long" in long.error
    assert "512" in long.error
    assert first.error is last.error is None


def test_sampling_with_a_seed_does_not_depend_on_what_else_is_asked(model: VllmModel) -> None:
    asked = requests(PROMPTS[:8], temperature=2.0, seed=7, max_tokens=12)
    drawn = answers(model, asked)
    assert answers(model, asked[4:]) == drawn[4:]
    assert answers(model, requests(PROMPTS[:8], temperature=2.0, seed=8, max_tokens=12)) != drawn
    unseeded = requests(PROMPTS[:8], temperature=2.0, max_tokens=12)
    assert answers(model, unseeded) != answers(model, unseeded)


@pytest.mark.parametrize("reasons", [True, False])
def test_a_judge_is_held_to_its_labels(model: VllmModel, reasons: bool) -> None:
    pattern = label_pattern(("direct_answer", "direct_refusal"), reasons=reasons)
    for completion in answers(model, requests(PROMPTS[:4], pattern=pattern, max_tokens=400)):
        assert completion.finish_reason == "stop"
        assert completion.text.endswith(("[[direct_answer]]", "[[direct_refusal]]"))
        assert reasons is not completion.text.startswith("[[")


def test_replies_are_handed_over_before_the_last_is_made(model: VllmModel) -> None:
    async def first() -> Completion:
        asked = requests(PROMPTS[:1], max_tokens=1) + [
            Request(id=f"long {n}", messages=(Message("user", f"Word {n}"),), sampling=Sampling(max_tokens=400))
            for n in range(3)
        ]
        async with aclosing(model.generate(asked)) as completions:
            async for completion in completions:
                return completion
        raise AssertionError

    assert asyncio.run(first()).id == "0"
    assert answers(model, requests(PROMPTS[:2]))[0].error is None  # what was broken off is forgotten


def test_an_empty_list_is_answered_at_once(model: VllmModel) -> None:
    assert answers(model, []) == []


def test_an_engine_that_dies_ends_the_call_with_one_line_and_the_next_call_starts_another(
    tiny: Path, tmp_path: Path
) -> None:
    before = children()
    model = VllmModel(str(tiny), **SETTINGS)
    model.load()
    log = Path(next(iter(open_logs())))
    engines = [child for child in children() if child not in before]

    async def interrupted() -> int:
        asked = requests([f"{prompt} {n}" for n in range(100) for prompt in PROMPTS], max_tokens=64)
        count = 0
        async with aclosing(model.generate(asked)) as completions:
            async for _ in completions:
                count += 1
                if count == 1:
                    for engine in engines:
                        engine.send_signal(signal.SIGKILL)
        return count

    with pytest.raises(ModelError, match=r"the engine ended while it generated: [^\n]+ run the same command again$"):
        asyncio.run(interrupted())
    assert log.exists()
    assert answers(model, requests(PROMPTS[:1]))[0].error is None
    asyncio.run(model.close())
    assert left(before) == []


def open_logs() -> set[str]:
    return {str(path) for path in Path(os.environ.get("TMPDIR", "/tmp")).glob("orbench-vllm-*.log")}


def test_weights_that_give_nan_are_an_error_and_no_reply(tiny: Path, tmp_path: Path) -> None:
    import transformers

    broken = shutil.copytree(tiny, tmp_path / "broken")
    weights = transformers.AutoModelForCausalLM.from_pretrained(broken)
    weights.lm_head.weight.data.fill_(float("nan"))
    weights.save_pretrained(broken)
    model = VllmModel(str(broken), **SETTINGS)
    [completion] = answers(model, requests(["Hello."], max_tokens=3))
    asyncio.run(model.close())
    assert completion.error is not None
    assert "NaN" in completion.error


def test_a_script_without_a_guard_evaluates_and_judges_with_local_models(tiny: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "max_model_len": 2048}  # the judge's question alone is longer than 512 tokens
    (tmp_path / "script.py").write_text(
        "import orbench\n"
        f"options = {{'engine': {settings!r}}}\n"
        f"name = 'vllm/{tiny}'\n"
        "result = orbench.evaluate(name, splits='sample', limit=6, max_tokens=32, judge=name, scorer='judge',\n"
        "                          judge_template='three-classes-brief', model_options=options, out='run')\n"
        "print(result.over_refusal_rate.scored, result.toxic_rejection_rate.scored)\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4 2\n"  # the six keep the kinds' shares
    engine = json.loads((tmp_path / "run" / "run.json").read_text())["engine"]
    assert engine["chat_template"]
    assert engine["options"] == settings


def test_the_command_prints_json_alone_and_goes_on_where_it_stopped(tiny: Path, tmp_path: Path) -> None:
    options = [f"--engine-option={key}={json.dumps(value).strip(chr(34))}" for key, value in SETTINGS.items()]
    command = [sys.executable, "-m", "orbench", "evaluate", f"vllm/{tiny}", "--split", "sample", "--json"]
    command += ["--max-tokens", "32", "--out", "run", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, 3), done.stderr
    [line] = done.stdout.splitlines()
    assert json.loads(line)["usage"]["requests"] == 230
    assert "Traceback" not in done.stderr
    replies = tmp_path / "run" / "responses.jsonl"
    lines = replies.read_text().splitlines()
    replies.write_text("".join(f"{line}\n" for line in lines[:100]))
    verdicts = tmp_path / "run" / "verdicts.jsonl"
    verdicts.unlink()
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, 3), done.stderr
    again = replies.read_text().splitlines()
    assert again[:100] == lines[:100]
    assert len(again) == 230
    assert {json.loads(line)["response"] for line in again} == {json.loads(line)["response"] for line in lines}


@pytest.mark.parametrize("path", ["./no/such/model", "/no/such/model", "no/such/model"])
def test_a_missing_folder_is_told_before_anything_is_loaded(path: str) -> None:
    with pytest.raises(ModelError, match=r"there is no folder .*no/such/model"):
        VllmModel(path)


def _torn_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _bad_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize("spoil", [_torn_weights, _no_tokenizer, _bad_config])
def test_a_broken_folder_gives_one_clear_line(tiny: Path, tmp_path: Path, spoil, capfd) -> None:
    folder = shutil.copytree(tiny, tmp_path / "copy")
    spoil(folder)
    before = children()
    with pytest.raises(ModelError, match=r"^vllm/\S+ cannot be loaded: [^\n]+$") as raised:
        VllmModel(str(folder), **SETTINGS).load()
    assert "Engine core initialization failed" not in str(raised.value)
    assert "Traceback" not in "".join(capfd.readouterr())
    assert left(before) == []


def test_an_unknown_engine_option_is_named(tiny: Path) -> None:
    with pytest.raises(ModelError, match="max_length"):
        VllmModel(str(tiny), max_length=3).load()
    with pytest.raises(UsageError, match="truncate"):
        VllmModel(str(tiny), truncate="perhaps")


def test_a_model_without_chat_template_says_what_to_do(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "base", steps=0, chat_template=None)
    with pytest.raises(ModelError, match=r"no chat template.*chat_template=FILE"):
        VllmModel(str(folder), **SETTINGS).load()


def test_the_callers_program_is_its_own_again_after_a_start(model: VllmModel) -> None:
    main = sys.modules["__main__"]
    model.load()
    assert sys.modules["__main__"] is main
    assert orbench.__version__
