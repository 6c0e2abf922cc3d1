"""What an evaluation starts from: prompts, configuration, run folder, judges."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

import orbench
from orbench.engine.jsonl import without_surrogates
from orbench.engine.limits import ConcurrencyLimit
from orbench.engine.pace import Pace
from orbench.engine.run_folder import folder_name, read_config
from orbench.errors import OrbenchError, OrbenchWarning, UsageError
from orbench.models import Options, check_concurrency, find_provider, open_model
from orbench.models.base import Model
from orbench.models.batch import in_batches
from orbench.records import KINDS, Sampling
from orbench.scoring.outcomes import Policy, check_policy
from orbench.scoring.panel import open_judges
from orbench.scoring.safety import SafetyJudge
from orbench.scoring.scorers import Scorer
from orbench.splits import Split, load_splits
from orbench.splits.named import choosers
from orbench.splits.sampling import sample

RUNS = Path("runs")

AnyModel = str | Callable[..., Any] | Model
AnySplit = str | os.PathLike[str] | Split


def load(splits: AnySplit | Sequence[AnySplit], *, limit: int | None, seed: int, **options: Any) -> list[Split]:
    """The splits that `evaluate` would ask, from whatever names them; arguments as there.

    Raises:
        orbench.UsageError: None, or two of one name.
        orbench.SplitError: Prompts that cannot be had.
    """
    given = [splits] if isinstance(splits, (str, os.PathLike, Split)) else list(splits)
    loaded = [part for split in given if isinstance(split, Split) for part in _parts(split, limit, seed)]
    if specs := [split for split in given if not isinstance(split, Split)]:
        loaded += load_splits(specs, limit=limit, seed=seed, **options)
    if not loaded:
        raise UsageError("no split given")
    refuse_repeated([split.name for split in loaded], "two splits are called {}: rename one")
    return loaded


def _parts(split: Split, limit: int | None, seed: int) -> list[Split]:
    """A split that was loaded, or put together, before: one for each kind, its prompts named after it."""
    prompts = split if limit is None else sample(split, limit, seed)
    parts = []
    for kind in KINDS:
        name = split.name if split.kind else f"{split.name}/{kind}"
        mine = [p if p.split == name else msgspec.structs.replace(p, split=name) for p in prompts if p.kind == kind]
        refuse_repeated([prompt.id for prompt in mine], f"two prompts of the split {name!r} have the id {{}}")
        if mine:
            parts.append(Split(name, mine, split.source))
    return parts


def refuse_repeated(names: Sequence[str], message: str) -> None:
    """Raise UsageError with the message, `{}` filled in, where a name occurs twice."""
    name, times = next(iter(Counter(names).most_common(1)), ("", 0))
    if times > 1:
        raise UsageError(message.format(repr(name)))


def warn_of_choosers(models: Sequence[AnyModel], splits: Sequence[Split]) -> None:
    """Warn where a model is evaluated on prompts that its own refusals chose: its rate on them is biased upwards.

    Source: OR-Bench (arXiv 2405.20947), Appendix Q, on Hard-1K.
    """
    for split in splits:
        chosen_by = choosers(Path(split.source))
        for model in models:
            if isinstance(model, str) and model in chosen_by:
                warnings.warn(
                    f"{model} is one of the {len(chosen_by)} models whose refusals chose the prompts of {split.name} "
                    f"({split.source}): its over-refusal rate on them is biased upwards",
                    OrbenchWarning,
                    stacklevel=3,
                )


def describe_splits(splits: Sequence[Split]) -> list[dict[str, Any]]:
    """What `run.json` says of the splits of a run."""
    return [
        {
            "name": split.name,
            "kind": split.kind,
            "fingerprint": split.fingerprint,
            "prompts": len(split),
            "categories": list(dict.fromkeys(prompt.category for prompt in split)),
            "source": split.source,
        }
        for split in splits
    ]


def make_config(model: Model, splits: Sequence[Split], sampling: Sampling, system_prompt: str | None) -> dict[str, Any]:
    """What `run.json` says of a run before it begins; its `digest` covers what the replies depend on."""
    base: dict[str, Any] = {
        "model": model.name,
        "splits": describe_splits(splits),
        "sampling": msgspec.to_builtins(sampling),
        "system_prompt": system_prompt,
    }
    identity = {**base, "splits": [[s["name"], s["fingerprint"]] for s in base["splits"]]}
    if digest := getattr(model, "digest", None):
        base["model_digest"] = identity["model_digest"] = digest
    if settings := getattr(model, "settings", None):  # such as safety filters: they change the replies
        base["settings"] = identity["settings"] = settings
    return {
        "orbench_version": orbench.__version__,
        "digest": hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()[:8],
        **base,
        "base_url": getattr(model, "base_url", None),
        "client": getattr(model, "client", None),
        "python_version": platform.python_version(),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def folder_of(out: str | Path | None, model: str, digest: str, *, many: bool) -> Path:
    """The run folder of one model of a command."""
    if out is None:
        return RUNS / folder_name(model, digest)
    return Path(out) / folder_name(model) if many else Path(out)


def policy_of(folder: Path, policy: str | None) -> Policy:
    """The policy asked for; else that of the run in the folder, which is gone on with; else `default`.

    Raises:
        orbench.UsageError: Unknown policy.
    """
    if policy is None and (folder / "run.json").exists():
        policy = read_config(folder).get("policy")
    return check_policy(policy or "default")


class Judges:
    """The judges of a command, opened; nothing is sent yet."""

    def __init__(
        self,
        judge: AnyModel | Sequence[AnyModel] | None,
        template: str,
        rule: str,
        safety: AnyModel | None,
        options: Callable[[AnyModel], Options],
        limit_of: Callable[[Model], ConcurrencyLimit],
    ) -> None:
        self.judge = open_judges(judge, template, rule, options, limit_of)
        self.safety = None
        if safety is not None:
            model = open_model(safety, options(safety))
            self.safety = SafetyJudge(model, limit_of(model))

    def ask_in_batches(self, folder: Path, quiet: bool) -> None:
        """Ask them through their vendors' batch APIs from now on, the state in this run folder.

        Raises:
            UsageError: One of them has none.
        """
        for judge in self.judge.judges if self.judge is not None else ():
            judge.model = in_batches(judge.model, folder, judge.digest, quiet=quiet)
        if self.safety is not None:
            self.safety.model = in_batches(self.safety.model, folder, self.safety.digest, quiet=quiet)

    async def close(self) -> None:
        """Release them."""
        for model in (*(self.judge.models if self.judge else ()), *([self.safety.model] if self.safety else [])):
            await model.close()


def check_calibration(path: str | Path | None, scorer: Scorer) -> None:
    """Before anything is asked: a calibration that is missing, or of another scorer, is an error."""
    if path is not None:
        from orbench.calibration import load_calibration

        load_calibration(path, scorer.digest)


def shared_base_url(base_url: str | None, models: Sequence[AnyModel], judge: AnyModel | None) -> str | None:
    """The models' address, where the judge is of the same provider as one of them."""
    names = [model if isinstance(model, str) else getattr(model, "name", "") for model in models]
    providers = {name.partition("/")[0] for name in names}
    return base_url if isinstance(judge, str) and judge.partition("/")[0] in providers else None


def check_models(models: Sequence[AnyModel]) -> None:
    """Raise UsageError where there is none, or a slip of the pen, before any prompts are fetched."""
    if not models:
        raise UsageError("no model given")
    for spec in models:
        if isinstance(spec, str):
            find_provider(spec)


async def without_key(
    models: Sequence[AnyModel], options: Options, judges: Sequence[Any], judge_options: Callable[[AnyModel], Options]
) -> list[OrbenchError]:
    """Open the services that want a key, and close them again, before any prompts are fetched from afar.

    Returns:
        The error of each model if not one of them can be used; else nothing.

    Raises:
        OrbenchError: A judge cannot be used: nothing could be done without it.
    """
    for one in _each_of(judges):
        if isinstance(one, str) and find_provider(one).key_variables:
            await open_model(one, judge_options(one)).close()
    errors: list[OrbenchError] = []
    for spec in models:
        if not isinstance(spec, str) or not find_provider(spec).key_variables:
            return []
        try:
            await open_model(spec, options).close()
        except UsageError:
            raise
        except OrbenchError as error:
            errors.append(error)
        else:
            return []
    return errors


def _each_of(models: Sequence[Any]) -> Iterator[Any]:
    """Models and judges one by one, those of a panel too."""
    for each in models:
        yield from each if isinstance(each, (list, tuple)) else [each]


def check_ray(options: Options, models: Sequence[Any], precision: float | None) -> None:
    """Raise UsageError where Ray or options of an engine have nothing to do, or Ray would have it in scraps."""
    if options.ray is None and not options.engine:
        return
    local = any(isinstance(one, str) and one.startswith(("hf/", "vllm/")) for one in _each_of(models))
    if options.engine and not local:
        raise UsageError("--engine-option is for models of hf/ and vllm/, and none is given")
    if options.ray is None:
        return
    if not local:
        raise UsageError("--engine ray is for models of hf/ and vllm/, and none is given; a service scales by itself")
    if precision is not None:
        raise UsageError("--precision looks at replies one by one, --engine ray brings many at once: leave one out")


def check(
    temperature: float,
    max_tokens: int,
    concurrency: int | None,
    limit: int | None,
    system_prompt: str | None,
    rpm: float | None = None,
    tpm: float | None = None,
    top_p: float | None = None,
) -> None:
    """Raise UsageError for a value that cannot be meant."""
    check_pace(concurrency, rpm, tpm)
    if top_p is not None and not 0 < top_p <= 1:
        raise UsageError(f"top_p is {top_p}: above 0, at most 1")
    if not 0 <= temperature <= 2:
        raise UsageError(f"temperature is {temperature}: it goes from 0 to 2")
    if max_tokens < 1:
        raise UsageError(f"max_tokens is {max_tokens}: at least 1")
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}: at least 1")
    if system_prompt is not None and without_surrogates(system_prompt) != system_prompt:
        raise UsageError("the system prompt is not text in UTF-8")


def check_pace(concurrency: int | None, rpm: float | None, tpm: float | None) -> None:
    """Refuse numbers that would open no call.

    Raises:
        UsageError: A concurrency below 1, or requests or tokens a minute that are no number above 0.
    """
    Pace(rpm, tpm)
    check_concurrency(concurrency)
