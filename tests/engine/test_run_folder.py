import json
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest

from orbench.engine.run_folder import RunFolder, folder_name, read_config, read_responses, read_verdicts
from orbench.errors import RunError
from orbench.records import Response
from orbench.scoring.outcomes import Outcome, Verdict

SPLIT = {
    "name": "mine",
    "kind": "safe",
    "fingerprint": "f" * 64,
    "prompts": 2,
    "categories": ["privacy"],
    "source": "a",
}
CONFIG = {
    "orbench_version": "0.1.0",
    "digest": "12345678",
    "model": "openai/one",
    "splits": [SPLIT],
    "sampling": {"temperature": 0.0, "max_tokens": 1000, "top_p": None, "seed": None},
    "system_prompt": None,
    "base_url": "http://127.0.0.1/v1",
    "created_at": "2026-01-01T00:00:00+00:00",
    "policy": "default",
    "concurrency": None,
    "scorer": {"name": "cascade", "digest": "abc", "judge": None},
}
RESPONSE = Response(prompt_id="1", split="mine", category="privacy", kind="safe", prompt="Hi?", response="Yes.")
VERDICT = Verdict(prompt_id="1", split="mine", outcome=Outcome.DIRECT_ANSWER, by="phrases")


@contextmanager
def opened(path, **changes):
    with closing(RunFolder(path, {**CONFIG, **changes})) as folder:
        yield folder


def test_what_is_written_is_read_again(tmp_path):
    with opened(tmp_path / "deep" / "run") as folder:
        folder.responses.append(RESPONSE)
        folder.verdicts.append(VERDICT)
        folder.write_result({"f1": 0.5})
    path = tmp_path / "deep" / "run"
    assert read_config(path) == CONFIG
    assert list(read_responses(path)) == [RESPONSE]
    assert list(read_verdicts(path)) == [VERDICT]
    assert json.loads((path / "result.json").read_text()) == {"f1": 0.5}
    assert not list(path.glob("*.part"))


def test_a_second_handle_is_told_that_somebody_is_at_work(tmp_path):
    with opened(tmp_path / "run"), pytest.raises(RunError, match="another process is working on this run"):
        RunFolder(tmp_path / "run", CONFIG)
    with opened(tmp_path / "run"):
        pass


def test_a_second_process_is_told_that_somebody_is_at_work(tmp_path):
    script = "\n".join(
        [
            "import json, pathlib, sys",
            "from orbench.engine.run_folder import RunFolder",
            "RunFolder(pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]))",
        ]
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run"), json.dumps(CONFIG)]
    with opened(tmp_path / "run"):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "RunError" in done.stderr
    assert "another process is working on this run" in done.stderr


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    with opened(tmp_path / "run"):
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "openai/two"}, "another model: openai/one there, openai/two now"),
        ({"model_digest": "abcd"}, "another version of the model: none there, abcd now"),
        (
            {"splits": [{**SPLIT, "prompts": 1, "fingerprint": "0" * 64}]},
            "another set of prompts: mine (2 prompts, ffffffffffff) there, mine (1 prompts, 000000000000) now",
        ),
        ({"splits": [SPLIT, {**SPLIT, "name": "other"}]}, "other (2 prompts, ffffffffffff) now"),
        ({"sampling": {**CONFIG["sampling"], "temperature": 0.7}}, "another temperature: 0.0 there, 0.7 now"),
        ({"sampling": {**CONFIG["sampling"], "max_tokens": 5}}, "another max tokens: 1000 there, 5 now"),
        ({"system_prompt": "Be brief."}, "another system prompt: none there, Be brief. now"),
        ({"system_prompt": "x" * 500}, f"another system prompt: none there, {'x' * 157}... now"),
    ],
)
def test_another_configuration_is_refused_by_naming_what_differs(tmp_path, changes, message):
    with opened(tmp_path / "run"):
        pass
    with pytest.raises(RunError) as caught:
        RunFolder(tmp_path / "run", {**CONFIG, **changes})
    assert message in str(caught.value)
    assert "Choose another --out" in str(caught.value)
    assert read_config(tmp_path / "run") == CONFIG


@pytest.mark.parametrize(
    "changes",
    [
        {"base_url": "http://127.0.0.2/v1"},
        {"concurrency": 7},
        {"scorer": {"name": "keywords", "digest": "def", "judge": None}},
        {"policy": "strict"},
        {"splits": [{**SPLIT, "source": "elsewhere"}]},
        {"orbench_version": "0.2.0"},
    ],
)
def test_what_the_replies_do_not_depend_on_may_change_and_is_noted(tmp_path, changes):
    with opened(tmp_path / "run"):
        pass
    with opened(tmp_path / "run", **changes):
        pass
    assert read_config(tmp_path / "run") == {**CONFIG, **changes}


def test_a_run_keeps_its_date_and_its_notes_when_it_goes_on(tmp_path):
    with opened(tmp_path / "run") as folder:
        folder.note("adaptations", ["no temperature"])
    with opened(tmp_path / "run", created_at="2027-01-01T00:00:00+00:00"):
        pass
    assert read_config(tmp_path / "run") == {**CONFIG, "adaptations": ["no temperature"]}


def test_a_run_written_before_a_sampling_setting_existed_goes_on(tmp_path):
    with opened(tmp_path / "run", sampling={"temperature": 0.0}):
        pass
    with opened(tmp_path / "run"):
        pass


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"no run folder, but holds notes\.txt"):
        RunFolder(tmp_path, CONFIG)
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != ".lock"] == ["notes.txt"]


def test_an_empty_folder_is_taken_hidden_files_aside(tmp_path):
    (tmp_path / ".gitkeep").touch()
    with opened(tmp_path):
        pass


def test_a_run_that_was_killed_before_its_first_line_goes_on(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / "run.json.part").write_bytes(b'{"mod')
    with opened(tmp_path):
        pass
    assert read_config(tmp_path) == CONFIG


def test_replies_without_their_configuration_are_not_overwritten(tmp_path):
    with opened(tmp_path) as folder:
        folder.responses.append(RESPONSE)
    (tmp_path / "run.json").unlink()
    with pytest.raises(RunError, match=r"has responses\.jsonl but no run\.json"):
        RunFolder(tmp_path, CONFIG)
    assert list(read_responses(tmp_path)) == [RESPONSE]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "truncated"),
        (b'{"model": "openai', "truncated"),
        (b"\xff", "malformed"),
        (b"[]", "Expected `object`"),
        (b"{}", "missing required field `orbench_version`"),
        (json.dumps({**CONFIG, "splits": [{}]}).encode(), r"missing required field `name` - at `\$\.splits\[0\]`"),
        (json.dumps({**CONFIG, "sampling": {"temperature": "warm"}}).encode(), "Expected `float`"),
    ],
)
def test_a_damaged_configuration_is_named(tmp_path, content, why):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunError, match=rf"run\.json: damaged \(.*{why}") as caught:
        RunFolder(tmp_path, CONFIG)
    assert "restore it, or use another --out" in str(caught.value)
    with pytest.raises(RunError, match=r"run\.json: damaged"):
        read_config(tmp_path)


def test_what_is_no_run_folder_is_told(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "run.json").mkdir()
    for name in ("several/a/run.json", "several/b/0/run.json", "set/generation.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    for path, message in [
        (tmp_path / "nowhere", "not a run folder .*; there is no such folder"),
        (tmp_path / "file", "not a run folder but a file; `orbench evaluate` makes run folders"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "several", rf"but runs are below it: {tmp_path}/several/a, {tmp_path}/several/b/0\)"),
        (tmp_path / "set", rf"but a set of `orbench generate`: .*--data {tmp_path}/set/splits"),
        (tmp_path / "empty", r"not a run folder \(no run.json in it\)"),
    ]:
        with pytest.raises(RunError, match=message):
            read_config(path)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError, match=r"cannot be made: .*Choose another --out"):
            RunFolder(path, CONFIG)


def test_a_folder_that_cannot_be_locked_is_told(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(RunError, match=r"cannot be written: Is a directory\. Choose another --out"):
        RunFolder(tmp_path, CONFIG)


def test_a_folder_whose_files_cannot_be_written_is_told_and_let_go(tmp_path):
    with opened(tmp_path):
        pass
    (tmp_path / "verdicts.jsonl").unlink()
    (tmp_path / "verdicts.jsonl").mkdir()
    for _ in range(2):  # the second time it would be locked, had the first not let go
        with pytest.raises(RunError, match=r"verdicts\.jsonl: cannot be written: Is a directory"):
            RunFolder(tmp_path, CONFIG)


def test_a_result_that_cannot_be_written_is_told(tmp_path):
    with opened(tmp_path) as folder:
        (tmp_path / "result.json").mkdir()
        with pytest.raises(RunError, match=r"result\.json: cannot be written"):
            folder.write_result({})


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("openai/gpt-4o-mini", "openai--gpt-4o-mini"),
        ("openrouter/maker/model:free", "openrouter--maker-model-free"),
        ("hf/./tiny model", "hf--tiny-model"),
        ("hf/../../etc", "hf--etc"),
        ("../x", "model--x"),
        ("..", "model--model"),
        ("python/mine:<lambda>", "python--mine-lambda"),
        ("openai/ünï", "openai--n"),
        ("hf/" + "x" * 300, "hf--" + "x" * 80),
    ],
)
def test_a_folder_is_called_after_its_model_and_stays_where_it_belongs(model, name):
    assert folder_name(model) == name
    assert folder_name(model, "abc") == f"{name}-abc"
