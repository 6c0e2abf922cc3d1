"""What a local model is: a digest of the files in its folder, so that a model trained anew is another one.

In: folders. Out: a few hexadecimal digits, the same for a copy of the files on any machine. Small files count whole; of
the weights, which may be hundreds of gigabytes, names, sizes and blocks spread evenly over them: any training changes
numbers nearly everywhere. Times of files do not count: a copied folder is the same model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from orbench.errors import ModelError

_TEXTS = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "tokenizer*",
    "*.model",
    "chat_template*",
    "*.py",
)
"""Files that decide, with the weights, what a model says."""
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_OF_TRAINING = ("training_args", "optimizer", "scheduler", "rng_state", "scaler")
"""Beginnings of what a trainer saves beside the weights, to go on."""
_BLOCK = 8192
_BLOCKS = 512
"""Bytes and number of the blocks of all weights that are read: 4 MiB, every 30 MB of a model of 15 GB."""


def digest_of(name: str, folders: Sequence[str | Path]) -> str | None:
    """First 12 hexadecimal digits of a sha256 over the models, adapters and templates in these places.

    Args:
        name: The model's, for messages.
        folders: Folders or files; what is neither, as an id on the Hub, counts by its name.

    Returns:
        None if none of them is on this machine.

    Raises:
        ModelError: A file cannot be read.
    """
    places = [Path(folder) for folder in folders]
    if not any(place.exists() for place in places):
        return None
    found = hashlib.sha256()
    try:
        for place, given in zip(places, folders, strict=True):
            _part(found, b"folder", _folder(place) if place.is_dir() else _file(place, given))
    except OSError as error:
        raise ModelError(f"{name}: {error.filename} cannot be read: {error.strerror}") from None
    return found.hexdigest()[:12]


def _file(place: Path, given: str | Path) -> bytes:
    return place.read_bytes() if place.is_file() else str(given).encode()


def _folder(folder: Path) -> bytes:
    found = hashlib.sha256()
    for path in sorted({path for pattern in _TEXTS for path in folder.glob(pattern) if path.is_file()}):
        _part(found, path.name.encode(), path.read_bytes())
    weights = sorted(
        (path, path.stat().st_size)
        for path in folder.iterdir()
        if path.suffix in _WEIGHTS and not path.name.startswith(_OF_TRAINING) and path.is_file()
    )
    total = sum(size for _, size in weights)
    for path, size in weights:
        _part(found, f"{path.name} {size}".encode(), _sample(path, size, max(2, _BLOCKS * size // max(total, 1))))
    return found.digest()


def _sample(path: Path, size: int, blocks: int) -> bytes:
    """The digest of a file, or of so many blocks of it: the first, the last, and evenly spread ones between."""
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        if size <= blocks * _BLOCK:
            found.update(file.read())
        else:
            for number in range(blocks):
                file.seek(number * (size - _BLOCK) // (blocks - 1))
                found.update(file.read(_BLOCK))
    return found.digest()


def _part(found: hashlib._Hash, name: bytes, content: bytes) -> None:
    """Add one part, told apart from the next."""
    found.update(b"%d %d " % (len(name), len(content)) + name + content)
