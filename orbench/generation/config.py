"""What a generation is told: one frozen record, whose fields are the YAML file's keys and the command's options.

`config.yaml` beside this module is the commented file that `--init` writes; a test holds the two together.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from orbench.categories import CATEGORIES
from orbench.engine.pace import Pace
from orbench.errors import UsageError
from orbench.generation.cleaning import Rules
from orbench.generation.formats import NONE, same_name
from orbench.models import Options, make_options, open_model
from orbench.models.base import Model
from orbench.models.wire import is_plain, split_address
from orbench.records import Sampling
from orbench.report.format import plural

STAGES = ("seeds", "rewrites", "moderation", "selection")
"""What can be done alone, in the order of the data's way."""


LANGUAGES = {
    "arabic": "ar",
    "chinese": "zh",
    "dutch": "nl",
    "english": "en",
    "french": "fr",
    "german": "de",
    "hindi": "hi",
    "italian": "it",
    "japanese": "ja",
    "korean": "ko",
    "polish": "pl",
    "portuguese": "pt",
    "russian": "ru",
    "spanish": "es",
    "turkish": "tr",
    "ukrainian": "uk",
    "vietnamese": "vi",
}
"""Names of languages to their codes; others are given as `language_code`."""


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A model in a role, with its own address and sampling."""

    model: Any
    """`provider/name`; in Python also a callable or an `orbench.Model`."""
    base_url: str | None = None
    temperature: float | None = None
    """None takes the role's default."""
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    concurrency: int | None = None
    """Calls open at once; by default found out while running."""
    api: str | None = None
    google_safety: str | None = None
    timeout_s: float | None = None

    def sampling(self, default: Sampling) -> Sampling:
        """How it draws its replies, with the role's defaults where nothing is said."""
        given = {name: getattr(self, name) for name in ("temperature", "max_tokens", "top_p", "seed")}
        return msgspec.structs.replace(default, **{name: value for name, value in given.items() if value is not None})

    def open(self, base_url: str | None, concurrency: int | None) -> Model:
        """The model, made ready; nothing is sent.

        Raises:
            UsageError: No such model, or options it does not take.
            orbench.ModelError: It cannot be used.
        """
        own = {"api": self.api, "google_safety": self.google_safety, "timeout_s": self.timeout_s}
        return open_model(self.model, make_options(self.base_url or base_url, self.calls_open(concurrency), own))

    def calls_open(self, concurrency: int | None) -> int | None:
        """Its own number of calls open at once, or else that of all."""
        return concurrency if self.concurrency is None else self.concurrency

    @property
    def name(self) -> str:
        """`provider/name`."""
        return self.model if isinstance(self.model, str) else open_model(self.model, Options()).name


class GenerationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A generation; every default is the paper's recipe where it states one (OR-Bench, sections 3.2 and 3.3)."""

    out: str | None = None
    """Folder of the data set. The same configuration and folder again go on where they stopped."""
    categories: tuple[str, ...] = ()
    """What prompts are made for; by default the own categories, or else OR-Bench's ten."""
    own_categories: dict[str, str] = {}
    """Own categories, name to definition. Moderators see them after the ten."""
    language: str = "English"
    """Language in which seeds and rewrites are asked for, and answers judged."""
    seeds: str | None = None
    """File of given seeds: column `prompt`, optionally `category`."""
    from_prompts: str | None = None
    """File of given prompts that are moderated as they are, without seeds and rewrites."""
    columns: dict[str, str] = {}
    """Our name of a column of these files to the file's own, where they differ: `{"prompt": "question"}`."""
    seeds_per_category: int = 2000
    """Section 3.3."""
    seeds_per_call: int = 20
    """Section 3.2.1: more gave repeats, fewer too many calls."""
    rewrites: int = 5
    """Rewrites a seed, asked for in one call (section 3.2.2)."""
    rounds: int = 0
    """Times that prompts which stayed toxic are rewritten again."""
    seeder: Role | None = None
    """Temperature 1 (the paper's code)."""
    rewriter: Role | None = None
    """Temperature 0.7 (section 3.2.2)."""
    moderators: tuple[Role, ...] = ()
    """Temperature 0 (the paper's code)."""
    rescue: Role | None = None
    """A model without safety training; its answer to a prompt voted toxic is judged like a prompt (section 3.2.3)."""
    rule: str | None = None
    """`paper` (majority and rescue), `majority`, `unanimous`, `at-least:K` or `weighted`; by default `paper` with a
    rescue model and `majority` without."""
    weights: dict[str, float] = {}
    """Of moderators, for the rule `weighted`; 1 for those not named."""
    panel: tuple[Role, ...] = ()
    """Models whose refusals choose the Hard split; large, recent, of different families (section 3.3)."""
    panel_judge: Role | None = None
    """Judge for the panel's replies; by default the cascade without a judge."""
    hard_min: int = 3
    """Members of the panel that must refuse a prompt (section 3.3)."""
    hard_size: int = 1000
    """Prompts of the Hard split at most (section 3.3: about 1,000)."""
    toxic_size: int = 600
    """Prompts of the Toxic split at most (section 3.3: about 600)."""
    test_share: float = 0.0
    """Share of the kept prompts that go to `test` instead of `train`, whole seeds together; 0 makes neither file."""
    review_size: int = 100
    """Prompts drawn for human review (Appendix L); 0 draws none."""
    labels: dict[str, str] = {}
    """Name of each person to the copy of `splits/review.csv` that was filled in."""
    min_characters: int = 15
    max_characters: int = 1000
    """Shorter and longer prompts are dropped (`orbench.generation.cleaning.Rules`)."""
    likeness: float = 0.8
    """Share of words from which a prompt is a near duplicate of another and is dropped; 1 drops those of the same words
    alone."""
    language_code: str | None = None
    """ISO 639-1 code of the language, to drop what models write in another one; given prompts are taken in any. By
    default the code of `language`, where it is one of `LANGUAGES`. `none` leaves it unchecked."""
    overlap_with: str | None = None
    """File of prompts with which overlap is reported, such as another benchmark."""
    personal_data: str = "flag"
    """Prompts that hold what looks like personal data: `flag`, `scrub` or `drop`."""
    bertscore: str | None = None
    """Model of `transformers` (a folder or a name) for BERTScore beside the other measures of diversity; extra `hf`."""
    base_url: str | None = None
    """Address of every role that has none of its own."""
    concurrency: int | None = None
    """Calls open at once for each role; by default found out while running."""
    rpm: float | None = None
    """Requests a minute at most, for each role by itself."""
    tpm: float | None = None
    """Tokens a minute at most, sent and received, likewise."""
    batch: bool = False
    """Ask the roles whose vendor has a batch API (OpenAI, Anthropic) through it: half the price, done within a day."""
    prices: str | None = None
    """CSV of prices over the shipped ones; see `orbench.costs.load_prices`."""
    max_cost: float | None = None
    """USD that the data set may cost, earlier runs and the panel included; then it stops with what there is."""
    seed: int = 0
    """Of samples."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: Names what, and what would do.
        """
        for name, least in _AT_LEAST.items():
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}: at least {least}")
        if not 0 <= self.test_share < 1:
            raise UsageError(f"test_share is {self.test_share}: from 0, and below 1")
        if self.personal_data not in ("flag", "scrub", "drop"):
            raise UsageError(f"personal_data is {self.personal_data!r}: flag, scrub or drop")
        _ = self.rules  # bounds and likeness
        Pace(self.rpm, self.tpm)
        for role in ("moderators", "panel"):
            models = [each.model for each in getattr(self, role)]
            if twice := [model for model in models if models.count(model) > 1]:
                raise UsageError(f"{role}: {twice[0]} is named twice")
        self._check_categories()
        self._check_addresses()
        if self.rule == "paper" and self.rescue is None:
            raise UsageError(
                "the rule `paper` needs a model that answers what was voted toxic: add --rescue MODEL (one without "
                "safety training), or say --rule majority"
            )
        if self.panel and len(self.panel) < self.hard_min:
            raise UsageError(f"hard_min is {self.hard_min}, but the panel has {plural(len(self.panel), 'model')}")

    def _check_addresses(self) -> None:
        """Before any is saved: one with a key in it would be published with the data set."""
        named = {name: getattr(self, name) for name in ("seeder", "rewriter", "rescue", "panel_judge")}
        many = {name: getattr(self, name) for name in ("moderators", "panel")}
        found = {
            "base_url": self.base_url,
            **{f"{name}: base_url": role.base_url for name, role in named.items() if role},
        }
        found |= {f"{name}, {role.model}: base_url": role.base_url for name, roles in many.items() for role in roles}
        for where, address in found.items():
            parts = None if address is None else split_address(address)
            if address is not None and (parts is None or not is_plain(parts)):
                raise UsageError(
                    f"{where} is no address, or holds more than http://host:port/path; a key goes into its variable"
                )

    def _check_categories(self) -> None:
        seen = {same_name(name): name for name in CATEGORIES}
        for name, definition in self.own_categories.items():
            if not name.strip() or any(mark in name for mark in "[]\n"):
                raise UsageError(f"own_categories: {name!r} cannot be a name")
            if same_name(name) in (same_name(NONE), "none", "safe", "all"):
                raise UsageError(
                    f"own_categories: {name!r} is a word for safe prompts or for all of them; choose another"
                )
            if same_name(name) in seen:
                other = seen[same_name(name)]
                whose = "OR-Bench's " if other in CATEGORIES else ""
                raise UsageError(f"own_categories: {name!r} clashes with {whose}{other!r}; choose another")
            if not str(definition).strip():
                raise UsageError(f"own_categories: {name!r} has no definition")
            seen[same_name(name)] = name
        for name in self.categories:
            if name not in self.definitions:
                near = difflib.get_close_matches(name, self.definitions, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self.definitions)}."
                raise UsageError(
                    f"unknown category {name!r}: {hint} One of your own has its definition under own_categories, "
                    "or is given as --category 'NAME=DEFINITION'"
                )

    @property
    def rules(self) -> Rules:
        """What a clean prompt is."""
        return Rules(
            min_characters=self.min_characters,
            max_characters=self.max_characters,
            language=self._code,
            personal_data=self.personal_data,  # type: ignore[arg-type]  # checked
            likeness=self.likeness,
        )

    @property
    def _code(self) -> str | None:
        if self.language_code is not None:
            return None if self.language_code == "none" else self.language_code
        return LANGUAGES.get(self.language.casefold())

    @property
    def definitions(self) -> dict[str, str]:
        """Every category that moderators can choose, in order: the ten and the own ones."""
        return {**CATEGORIES, **self.own_categories}

    @property
    def wanted(self) -> tuple[str, ...]:
        """The categories that prompts are made for."""
        return tuple(dict.fromkeys(self.categories or self.own_categories or CATEGORIES))

    @property
    def rule_name(self) -> str:
        """The rule, the default filled in."""
        return self.rule or ("paper" if self.rescue else "majority")

    def to_dict(self) -> dict[str, Any]:
        """For generation.json: models by name, nothing secret."""

        def plain(value: Any) -> Any:
            if isinstance(value, Role):
                given = {**msgspec.structs.asdict(value), "model": value.name}
                return {name: each for name, each in given.items() if each is not None}
            return [plain(each) for each in value] if isinstance(value, tuple) else value

        return {name: plain(value) for name, value in msgspec.structs.asdict(self).items()}


_AT_LEAST = {
    "seeds_per_category": 1,
    "seeds_per_call": 1,
    "rewrites": 1,
    "rounds": 0,
    "hard_min": 1,
    "hard_size": 0,
    "toxic_size": 0,
    "review_size": 0,
    "min_characters": 1,
}


AnyConfig = GenerationConfig | Mapping[str, Any] | str | Path


def make_config(config: AnyConfig, **changes: Any) -> GenerationConfig:
    """A configuration from a record, a mapping or a YAML file, with some values changed.

    Raises:
        UsageError: The file cannot be read, a key is unknown (the nearest is named), or a value cannot be meant.
    """
    if isinstance(config, (str, Path)):
        given, where = _read_yaml(Path(config)), f"{config}: "
    elif isinstance(config, GenerationConfig):
        given, where = {name: getattr(config, name) for name in config.__struct_fields__}, ""
    else:
        given, where = dict(config), ""
    if "own_categories" in changes:
        changes["own_categories"] = {**(given.get("own_categories") or {}), **changes["own_categories"]}
    given = {**given, **changes}
    _refuse_unknown(given, GenerationConfig.__struct_fields__, where)
    for name in ("seeder", "rewriter", "rescue", "panel_judge"):
        if given.get(name) is not None:
            given[name] = _role(given[name], f"{where}{name}")
    for name in ("moderators", "panel"):
        if name in given:
            given[name] = tuple(_role(each, f"{where}{name}") for each in _list(given[name]))
    if "categories" in given:
        given["categories"] = tuple(_list(given["categories"]))
    for name in ("out", "seeds", "from_prompts", "overlap_with", "prices", "bertscore"):
        if isinstance(given.get(name), Path):
            given[name] = str(given[name])
    given = {name: value for name, value in given.items() if value is not None}
    try:
        return msgspec.convert(given, GenerationConfig, from_attributes=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}{str(error).replace(' - at `$.', ': `')}") from None


def default_yaml() -> str:
    """The commented configuration that `--init` writes."""
    return Path(__file__).with_name("config.yaml").read_text(encoding="utf-8")


def write_default(path: Path) -> None:
    """Write it to a file that is not there yet.

    Raises:
        UsageError: The file exists, or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(default_yaml())
    except FileExistsError:
        raise UsageError(f"{path}: exists already; choose another name") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
        _refuse_repeated(text, path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8: save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{path}: holds no mapping of keys to values")
    return {str(key): value for key, value in content.items()}


def _refuse_repeated(text: str, path: Path) -> None:
    """Of a key that is there twice YAML keeps the last value and says nothing."""
    import yaml

    nodes = [yaml.compose(text, yaml.SafeLoader)]
    met: set[int] = set()  # nodes may name each other
    while nodes:
        node = nodes.pop()
        if node is None or id(node) in met:
            continue
        met.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in keys:
                        raise UsageError(
                            f"{path}, line {key.start_mark.line + 1}: the key {key.value!r} is there twice"
                        )
                    keys.add(key.value)
                nodes.append(value)


def _refuse_unknown(given: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise UsageError(f"{where}unknown key {name!r}: {hint}")


def _role(given: Any, where: str) -> Role:
    if isinstance(given, Role):
        return given
    if not isinstance(given, Mapping):
        return Role(model=given)
    _refuse_unknown(given, Role.__struct_fields__, f"{where}: ")
    try:
        role = msgspec.convert(dict(given), Role)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {error}") from None
    if role.temperature is not None and not 0 <= role.temperature <= 2:
        raise UsageError(f"{where}: temperature is {role.temperature}: it goes from 0 to 2")
    return role


def _list(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, (list, tuple)) else [given]
