"""What local engines share before a model is loaded: options, folders, adapters by name."""

from pathlib import Path

import pytest

from orbench.cli.options import engine_options
from orbench.errors import ModelError, UsageError
from orbench.models import make_options
from orbench.models.chat import (
    ChatOptions,
    find_adapter,
    find_source,
    first_line,
    plain_options,
    reply_options,
    take_options,
    tokenizer_options,
    tokenizer_source,
)


def test_options_are_ours_or_the_engines() -> None:
    options, others = take_options("hf/x", {"truncate": True, "dtype": "bfloat16"}, ChatOptions)
    assert options.truncate is True
    assert others == {"dtype": "bfloat16"}


@pytest.mark.parametrize("wrong", [{"truncate": "perhaps"}, {"chat_template_kwargs": "x"}, {"chat_template": 3}])
def test_a_value_that_one_of_ours_does_not_take_is_wrong_usage(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        take_options("hf/x", wrong, ChatOptions)


def test_a_key_is_taken_from_the_environment_alone() -> None:
    with pytest.raises(UsageError, match="HF_TOKEN"):
        take_options("hf/x", {"token": "secret"}, ChatOptions)


def test_only_what_changes_replies_belongs_to_the_run() -> None:
    given = {"gpu_memory_utilization": 0.5, "batch_rows": 3, "dtype": "float16", "truncate": True}
    assert reply_options(given) == {"truncate": True, "dtype": "float16"}
    assert reply_options({"tensor_parallel_size": 2}) is None


@pytest.mark.parametrize(
    "option", ["override_generation_config", "hf_overrides", "generation_config", "tokenizer", "max_model_len", "new"]
)
def test_an_option_that_is_not_known_to_leave_replies_alone_belongs_to_the_run(option: str) -> None:
    assert reply_options({option: "x", "max_num_seqs": 4}) == {option: "x"}


def test_the_older_name_of_the_dtype_is_taken_for_it_but_not_beside_it() -> None:
    assert plain_options("hf/x", {"torch_dtype": "bfloat16"}) == {"dtype": "bfloat16"}
    with pytest.raises(UsageError, match="torch_dtype is the older name of dtype"):
        plain_options("hf/x", {"torch_dtype": "bfloat16", "dtype": "float16"})


def test_the_tokenizer_of_vllm_is_looked_at_as_vllm_will_load_it() -> None:
    assert tokenizer_options({}) == {}
    given = {"revision": "a", "trust_remote_code": True, "max_model_len": 5}
    assert tokenizer_options(given) == {"revision": "a", "trust_remote_code": True}
    assert tokenizer_options({**given, "tokenizer_revision": "b"})["revision"] == "b"
    assert tokenizer_options({"revision": "a", "tokenizer": "other"}) == {}


def test_an_adapter_may_bring_its_tokenizer(tmp_path: Path) -> None:
    assert tokenizer_source("base", None) == tokenizer_source("base", str(tmp_path)) == "base"
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert tokenizer_source("base", str(tmp_path)) == str(tmp_path)


def test_a_value_without_a_plain_form_is_wrong_usage() -> None:
    given = {"max_memory": {0: "1GiB", "cpu": "2GiB"}, "offload_folder": Path("x"), "sizes": (1, 2)}
    assert plain_options("hf/x", given) == {**given, "offload_folder": "x", "sizes": [1, 2]}
    with pytest.raises(UsageError, match="the engine option tokenizer is a object"):
        plain_options("hf/x", {"tokenizer": object()})


def test_an_adapter_stands_behind_a_plus(tmp_path: Path) -> None:
    base, adapter, whole = (tmp_path / name for name in ("base", "adapter", "a+b"))
    for folder in (base, adapter, whole):
        folder.mkdir()
    assert find_adapter("hf/x", f"{base}+{adapter}") == (str(base), str(adapter))
    assert find_adapter("hf/x", f"org/base+{adapter}") == ("org/base", str(adapter))
    assert find_adapter("hf/x", "org/base+me/adapter") == ("org/base", "me/adapter")
    assert find_adapter("hf/x", str(whole)) == (str(whole), None)
    with pytest.raises(ModelError, match="there is no folder"):
        find_adapter("hf/x", f"{base}+{tmp_path}/none")


def test_an_adapter_alone_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"holds an adapter; write BASE\+ADAPTER"):
        find_source("hf/x", str(tmp_path))


def test_errors_of_libraries_become_one_line() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(MemoryError()) == "MemoryError"
    pydantic = "1 validation error for Config\n  Value error, no such thing [type=value_error, input=3]\n    For more"
    assert first_line(ValueError(pydantic)) == "no such thing"


def test_engine_options_are_json_or_text() -> None:
    given = ["dtype=bfloat16", "max_model_len=4096", 'chat_template_kwargs={"enable_thinking": false}', "truncate=true"]
    assert engine_options(given) == {
        "dtype": "bfloat16",
        "max_model_len": 4096,
        "chat_template_kwargs": {"enable_thinking": False},
        "truncate": True,
    }
    assert engine_options(None) is None
    assert make_options(None, None, {"engine": {"dtype": "float32"}}).engine == {"dtype": "float32"}


@pytest.mark.parametrize("wrong", [["dtype"], ["=x"], ["a b=c"], ["dtype=a", "dtype=b"]])
def test_engine_options_of_another_form_are_wrong_usage(wrong: list[str]) -> None:
    with pytest.raises(UsageError, match="--engine-option"):
        engine_options(wrong)
