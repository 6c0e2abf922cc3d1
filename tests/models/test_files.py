"""The digest of a local model: another one where the model is, and only there."""

import os
import shutil
from pathlib import Path

import pytest

from orbench.models.files import digest_of

LARGE = 6_000_000


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text('{"a": 1}')
    (folder / "model-00001-of-00002.safetensors").write_bytes(bytes(range(250)) * (LARGE // 250))
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"small")
    return folder


def digest(*folders: Path) -> str | None:
    return digest_of("hf/x", folders)


def test_a_copy_is_the_same_model(model: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(model, tmp_path / "elsewhere")
    for path in copied.iterdir():
        os.utime(path, (1, 1))
    for extra in ("README.md", "optimizer.pt", "training_args.bin", "rng_state.pth", "trainer_state.json"):
        (copied / extra).write_text("of no matter")
    assert digest(copied) == digest(model)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "chat_template.jinja", "modeling.py"])
def test_another_small_file_is_another_model(model: Path, file: str) -> None:
    before = digest(model)
    with (model / file).open("a") as opened:
        opened.write(" ")
    assert digest(model) != before


def test_other_weights_are_another_model(model: Path) -> None:
    found = [digest(model)]
    large, small = (model / f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    large.write_bytes(bytes(LARGE))
    found.append(digest(model))
    small.write_bytes(b"SMALL")
    found.append(digest(model))
    small.rename(model / "model.safetensors")
    found.append(digest(model))
    assert len(set(found)) == 4


def test_few_numbers_in_each_megabyte_are_enough_to_tell(model: Path) -> None:
    before, weights = digest(model), model / "model-00001-of-00002.safetensors"
    content = bytearray(weights.read_bytes())
    content[::4096] = bytes(len(content[::4096]))
    weights.write_bytes(content)
    assert digest(model) != before


def test_an_adapter_counts_and_an_id_of_the_hub_only_beside_files(model: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"one")
    first = digest(model, adapter)
    (adapter / "adapter_model.safetensors").write_bytes(b"two")
    assert len({first, digest(model, adapter), digest(model), digest(Path("org/base"), adapter)}) == 4
    assert digest(Path("org/base")) is None
