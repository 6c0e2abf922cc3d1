"""`--engine ray` on real Ray: workers here, a cluster of two nodes, workers and nodes that die."""

import asyncio
import gc
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

import orbench
from orbench.errors import ModelError, UsageError
from orbench.models import make_options, open_model
from orbench.models.base import Model
from orbench.records import Completion, Message, Request, Sampling
from orbench.testing import make_tiny_model

pytest.importorskip("torch", reason="needs the extra `hf`")
pytest.importorskip("accelerate", reason="needs the extra `hf`")
ray = pytest.importorskip("ray", reason="needs the extra `ray`")
pytest.importorskip("ray.data", reason="needs the extra `ray`")
psutil = pytest.importorskip("psutil", reason="needs the extra `hf`")

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, about itself

QUESTIONS = [
    f"How do I {verb} {thing}?" for verb in ("kill", "mend", "sell") for thing in ("a process", "time", "a joke")
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def babbling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, so that replies go on to their longest."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "babbling", steps=0, context=2048)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes with one CPU each."""
    from ray.cluster_utils import Cluster

    gc.collect()  # what is left of the cluster of the tests before
    ray.shutdown()
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1)
    yield nodes.address
    ray.shutdown()
    nodes.shutdown()


def questions(count: int, longest: int = 8) -> list[Request]:
    return [
        Request(
            id=str(number),
            messages=(Message("user", f"{QUESTIONS[number % len(QUESTIONS)]} ({number})"),),
            sampling=Sampling(max_tokens=longest),
        )
        for number in range(count)
    ]


def on_ray(model: Path, **ray_options: object) -> Model:
    return open_model(f"hf/{model}", make_options(None, None, {"ray": ray_options}))


def answers(model: Model, requests: list[Request], after_first: threading.Event | None = None) -> dict[str, Completion]:
    """Each request's completion; one that came twice fails."""

    async def ask() -> dict[str, Completion]:
        found: dict[str, Completion] = {}
        try:
            async for completion in model.generate(requests):
                assert completion.id not in found
                found[completion.id] = completion
                if after_first is not None:
                    after_first.set()
        finally:
            await model.close()
        return found

    return asyncio.run(ask())


def workers() -> list[int]:
    """Processes that Ray Data holds models in."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "ray::MapWorker" in " ".join(process.info["cmdline"] or ())
    ]


def test_a_run_is_the_same_with_and_without(tiny, tmp_path):
    def run(name: str, **options: object) -> tuple[dict, list]:
        result = orbench.evaluate(
            f"hf/{tiny}", splits="sample", max_tokens=8, model_options=options, out=tmp_path / name, progress=False
        )
        rows = [json.loads(line) for line in (tmp_path / name / "responses.jsonl").read_text().splitlines()]
        for row in rows:
            row.pop("latency_s", None)
            row.pop("received_at")
        return result.to_dict(), sorted(rows, key=lambda row: (row["split"], row["prompt_id"]))

    (there, there_rows), (here, here_rows) = run("ray", ray={"workers": 2}), run("here")
    assert there_rows == here_rows
    assert {**there, "run": ""} == {**here, "run": ""}
    configs = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("ray", "here")]
    assert configs[0]["digest"] == configs[1]["digest"]


def test_a_worker_that_dies_is_replaced_and_no_prompt_is_lost(babbling):
    requests = questions(300, longest=128)
    expected = answers(open_model(f"hf/{babbling}"), requests)
    answered, killed = threading.Event(), []

    def kill() -> None:
        answered.wait()
        killed.extend(workers()[:1])
        for pid in killed:
            psutil.Process(pid).kill()

    thread = threading.Thread(target=kill)
    thread.start()
    found = answers(on_ray(babbling, workers=2), requests, answered)
    thread.join()
    assert len(killed) == 1
    assert {key: one.text for key, one in found.items()} == {key: one.text for key, one in expected.items()}


def test_prompts_that_bring_down_every_worker_become_errors(babbling):
    done = threading.Event()

    def kill() -> None:
        while not done.wait(0.05):
            for process in map(psutil.Process, workers()):
                with suppress(psutil.Error):  # torch is loaded with the model, so the prompt was given out
                    if any("libtorch" in one.path for one in process.memory_maps()):
                        process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        found = answers(on_ray(babbling, workers=1), questions(1, longest=1500))
    finally:
        done.set()
        thread.join()
    assert "workers died with the 1 prompts" in str(found["0"].error)


def test_a_folder_may_have_a_plus_in_its_name(tiny, tmp_path):
    import shutil

    folder = Path(shutil.copytree(tiny, tmp_path / "c++" / "tiny"))
    assert answers(on_ray(folder, workers=1), questions(1))["0"].error is None


def test_what_listens_without_being_a_cluster_is_one_line(tiny):
    """In a process of its own: Ray goes on trying in it."""
    script = f"""
import asyncio, os, socket
import orbench.models.ray as module
from orbench.models import make_options, open_model
from orbench.records import Message, Request
module._JOIN_S = 1.0
with socket.create_server(("127.0.0.1", 0)) as listener:
    address = "127.0.0.1:%d" % listener.getsockname()[1]
    model = open_model({f"hf/{tiny}"!r}, make_options(None, None, {{"ray": {{"address": address}}}}))
    async def ask():
        return [one async for one in model.generate([Request(id="a", messages=(Message("user", "Hi"),))])]
    try:
        asyncio.run(ask())
    except module.ModelError as error:
        print(error, flush=True)
    os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert re.fullmatch(r"Ray at 127.0.0.1:\d+: no Ray cluster has answered for 1 s .*ray://.*\n", done.stdout)


def test_a_broken_model_is_said_once_in_the_models_own_words(tiny, tmp_path):
    import shutil

    broken = Path(shutil.copytree(tiny, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"^hf/.*broken cannot be loaded: [^\n]+$"):
        answers(on_ray(broken, workers=1), questions(3))


def test_sampled_replies_do_not_depend_on_the_workers(babbling):
    requests = [
        Request(id=one.id, messages=one.messages, sampling=Sampling(temperature=1.0, max_tokens=12, seed=3))
        for one in questions(40)
    ]
    one, two = (answers(on_ray(babbling, workers=count), requests) for count in (1, 2))
    assert {key: each.text for key, each in one.items()} == {key: each.text for key, each in two.items()}


def test_prompts_that_were_cut_are_counted_over_all_workers(tmp_path):
    small = make_tiny_model(tmp_path / "small", steps=0, context=64)
    options = {"ray": {"workers": 2}, "engine": {"truncate": True}}
    model = open_model(f"hf/{small}", make_options(None, None, options))
    words = (Message("user", "word " * 300),)
    answers(model, [msgspec.structs.replace(one, messages=words) for one in questions(40, longest=4)])
    assert model.adaptations == ["40 prompts cut to the model's context"]


def test_a_cluster_is_joined_by_its_address(tiny, cluster):
    model = on_ray(tiny, address=cluster)
    assert len(answers(model, questions(20))) == 20
    assert model.facts["workers"] == 2  # one a machine
    assert model.facts["chat_template"]


def test_a_process_that_is_with_one_cluster_is_told_that_it_cannot_join_another(tiny, cluster):
    answers(on_ray(tiny, address=cluster), questions(1))
    with pytest.raises(UsageError, match=f"Ray at auto: this process is with {cluster} already"):
        answers(on_ray(tiny, address="auto"), questions(1))


def test_more_workers_than_the_cluster_has_room_for_are_refused(tiny, cluster):
    with pytest.raises(UsageError, match="3 workers do not fit: the cluster has 2 CPUs"):
        answers(on_ray(tiny, address=cluster, workers=3), questions(1))


def test_no_cluster_at_the_address_is_one_line(tiny):
    with pytest.raises(ModelError, match=r"^Ray at nowhere.invalid:1: [^\n]+$"):
        answers(on_ray(tiny, address="nowhere.invalid:1"), questions(1))
