"""The folder of a generation: what lies where, the lock that guards it, and its state read back.

    seeds.jsonl  rewrites.jsonl  votes.jsonl     rows, appended as they come (records.py)
    responses/   seeds.jsonl  rewrites.jsonl  rescue.jsonl     the calls behind them
                 panel/  prompts-N.jsonl and the run folders of the panel
                 batches/  what is under way at a vendor, with --batch
    drops.jsonl  why rewrites are not in `all`, and toxic prompts not in `toxic`
    audit.csv    what each moderator says of each prompt, where moderation was done alone
    overlap.csv  which prompts of the splits are in the set of `overlap_with`, and how
    splits/      all, hard, toxic, perhaps train and test, as .csv and .parquet; review.csv
    generation.json  README.md     what was done, with which configuration, and what came of it

A folder is one set of definitions in one language; everything else may change between two runs of a command:
targets grow, moderators are added, rules are tried. Calls made before are kept and never made again.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, cast

import filelock
import msgspec

from orbench.engine.jsonl import Appender, read_lines
from orbench.engine.run_folder import write_json
from orbench.errors import RunError
from orbench.generation.config import GenerationConfig
from orbench.generation.records import Call, CallOutcome, Item, Subject, Verdict, Vote
from orbench.generation.roles import ASKS
from orbench.ledger import Ledger
from orbench.records import Usage

GENERATION, DROPS, SPLITS = "generation.json", "drops.jsonl", "splits"
RESPONSES, PANEL = "responses", "responses/panel"
AUDIT, CARD, REVIEW, OVERLAP = "audit.csv", "README.md", "review.csv", "overlap.csv"
SPLIT_NAMES = ("all", "hard", "toxic", "train", "test")
SEEDS, REWRITES, VOTES = "seeds.jsonl", "rewrites.jsonl", "votes.jsonl"
SEED_CALLS, REWRITE_CALLS, RESCUE_CALLS = (f"responses/{name}.jsonl" for name in ("seeds", "rewrites", "rescue"))
APPENDED = (SEEDS, REWRITES, VOTES, SEED_CALLS, REWRITE_CALLS, RESCUE_CALLS)
_LOCK = ".lock"
_TO_NOTHING = ("error", "blocked", "abstained")
"""Outcomes of calls that may have brought no reply."""


class Track(msgspec.Struct, kw_only=True):
    """What is known of one prompt that was not dropped: enough to say what it needs next."""

    item: Item
    votes: dict[str, Verdict] = {}
    """Moderator to vote, where it is final."""
    answered: CallOutcome | None = None
    """What came of the rescuer's call, where it is final."""
    answer: str | None = None
    """The answer, while moderators still have to see it."""
    answer_votes: dict[str, Verdict] = {}
    rewritten: int = 0
    """Rewrites asked for in calls that are final."""

    @property
    def is_seed(self) -> bool:
        """Seeds are rewritten, not moderated."""
        return self.item.round == 0

    def votes_on(self, subject: Subject) -> dict[str, Verdict]:
        """The final votes on the prompt or on the answer."""
        return self.votes if subject == "prompt" else self.answer_votes


class State(msgspec.Struct):
    """Everything that a folder holds, as far as the work goes on from it."""

    tracks: dict[str, Track] = {}
    """Prompt id to prompt, seeds included, in the order of their files."""
    rows: dict[tuple[str, int], tuple[bool, str | None]] = {}
    """Item row to (is a seed, why it was dropped)."""
    places: Counter[str] = msgspec.field(default_factory=Counter)
    """Call to the rows that were read out of it."""
    asks: dict[tuple[str, str, str], int] = {}
    """(prompt id, what, model) to the next ask, where something was asked and is still owed."""
    seed_calls: dict[str, list[tuple[str, CallOutcome, int]]] = {}
    """Category to (call, outcome, items asked for) of the seeder's calls, by whatever model."""
    seed_models: dict[str, str] = {}
    """Seeder's call to model."""
    usage: dict[tuple[str, str], Ledger] = {}
    """(role, model) to calls and tokens, counted over every line."""
    estimates: dict[tuple[str, str], Ledger] = {}
    """(role, model) to the most tokens of replies whose tokens the provider did not say."""
    outcomes: dict[tuple[str, str], Counter[str]] = {}
    """(role, model) to what came of its calls."""
    errors: dict[tuple[str, str], Counter[str]] = {}
    """(role, model) to why its calls of this command failed."""
    rescue_refusals: Counter[str] = msgspec.field(default_factory=Counter)
    """Rescuer to its answers that are refusals."""
    too_few: dict[str, tuple[int, int]] = {}
    """Rewriter to (rewrites asked for, rewrites that came) of its calls that were read."""

    def count(self, role: str, model: str, outcome: str, line: Call | CallBrief | Vote | VoteBrief) -> None:
        """Count one line."""
        # Only what came without saying its tokens has an estimate: a vote that cannot be read was paid for too.
        answered = line.usage is not None or line.estimate is not None or outcome not in _TO_NOTHING
        self.usage.setdefault((role, model), Ledger()).add(line.attempts, line.usage, answered=answered)
        if line.estimate is not None:
            self.estimates.setdefault((role, model), Ledger()).add(0, line.estimate)
        self.outcomes.setdefault((role, model), Counter())[outcome] += 1
        if isinstance(line, (Call, Vote)) and line.error is not None:
            self.errors.setdefault((role, model), Counter())[line.error] += 1

    def add(self, item: Item) -> Track | None:
        """Take up a row; the track of a prompt that goes on."""
        item = _shared(item)
        if item.key not in self.rows:
            self.places[item.call] += 1
        self.rows[item.key] = _KINDS.setdefault(kind := (item.round == 0, item.dropped), kind)
        if item.dropped is not None:
            return None
        self.tracks[item.id] = track = Track(item=item)
        return track

    def add_seed_call(self, call: Call | CallBrief) -> None:
        """Take up a call of the seeder."""
        self.seed_calls.setdefault(call.category, []).append((call.id, call.outcome, call.wanted))
        self.seed_models[call.id] = call.model
        self.count("seeder", call.model, call.outcome, call)

    def add_rewrite_call(self, call: Call | CallBrief) -> None:
        """Take up a call of the rewriter."""
        self.count("rewriter", call.model, call.outcome, call)
        track = self.tracks.get(call.id.partition("+")[0])
        if track is not None and self._settle(call, "rewrites", ""):
            track.rewritten += call.wanted
        if call.outcome == "read":
            asked, came = self.too_few.get(call.model, (0, 0))
            self.too_few[call.model] = (asked + call.wanted, came + min(call.items, call.wanted))

    def add_rescue_call(self, call: Call | CallBrief) -> None:
        """Take up a call of the rescuer."""
        self.count("rescue", call.model, call.outcome, call)
        track = self.tracks.get(call.id)
        if track is not None and self._settle(call, "answer", ""):
            track.answered = call.outcome
            self.rescue_refusals[call.model] += call.refused

    def add_vote(self, vote: Vote | VoteBrief) -> None:
        """Take up a moderator's reply."""
        self.count("moderator", vote.moderator, vote.verdict, vote)
        track = self.tracks.get(vote.prompt_id)
        if track is None:
            return
        key = (vote.prompt_id, vote.of, vote.moderator)
        if vote.verdict == "abstained" and (vote.error is not None or vote.ask < ASKS):
            self.asks[key] = vote.ask + (vote.error is None)
            return
        self.asks.pop(key, None)
        if vote.of == "prompt":
            track.votes[sys.intern(vote.moderator)] = vote.verdict
        else:
            track.answer_votes[sys.intern(vote.moderator)] = vote.verdict

    def _settle(self, call: Call | CallBrief, what: str, model: str) -> bool:
        """Whether the call is final: read, or asked often enough."""
        key = (call.id, what, model)
        if call.outcome != "read" and (call.outcome == "error" or call.ask < ASKS):
            self.asks[key] = call.ask + (call.outcome != "error")
            return False
        self.asks.pop(key, None)
        return True


_KINDS: dict[tuple[bool, str | None], tuple[bool, str | None]] = {}
"""What `State.rows` has of each sort of row, once."""


def _shared(item: Item) -> Item:
    """The same with names that many rows have in common held once: 80,000 rows take 40 MB less."""
    return msgspec.structs.replace(
        item,
        id=sys.intern(item.id),
        category=sys.intern(item.category),
        seed_id=sys.intern(item.seed_id),
        parent_id=None if item.parent_id is None else sys.intern(item.parent_id),
        model=sys.intern(item.model),
        call=sys.intern(item.call),
    )


class CallBrief(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A `Call` without its texts."""

    id: str
    ask: int
    model: str
    category: str
    outcome: CallOutcome
    wanted: int
    items: int
    usage: Usage | None = None
    estimate: Usage | None = None
    attempts: int = 1
    refused: bool = False


class VoteBrief(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A `Vote` without its texts."""

    prompt_id: str
    of: Subject
    moderator: str
    ask: int
    verdict: Verdict
    usage: Usage | None = None
    estimate: Usage | None = None
    attempts: int = 1
    error: str | None = None


def scan(folder: Path) -> State:
    """Read what a folder holds, a line at a time; texts of replies stay on disk.

    Raises:
        orbench.RunError: A damaged line; names file and line.
    """
    state = State()
    for name in (SEEDS, REWRITES):
        for item in read_lines(folder / name, Item):
            state.add(item)
    for call in read_lines(folder / SEED_CALLS, CallBrief):
        state.add_seed_call(call)
    for call in read_lines(folder / REWRITE_CALLS, CallBrief):
        state.add_rewrite_call(call)
    for vote in read_lines(folder / VOTES, VoteBrief):
        state.add_vote(vote)
    for call in read_lines(folder / RESCUE_CALLS, CallBrief):
        state.add_rescue_call(call)
    return state


def half_read(folder: Path, state: State) -> Iterator[tuple[bool, Call]]:
    """Calls whose rows were not all written before the program was stopped; whether each is the seeder's."""
    for name in (SEED_CALLS, REWRITE_CALLS):
        briefs = read_lines(folder / name, CallBrief)
        wanting = {n for n, brief in enumerate(briefs) if state.places[_rows_of(brief)] < brief.items}
        if wanting:
            for n, call in enumerate(read_lines(folder / name, Call)):
                if n in wanting:
                    yield name == SEED_CALLS, call


def _rows_of(call: Call | CallBrief) -> str:
    """What `Item.call` says of the rows of a call."""
    return call_name(call.id, call.ask)


def call_name(id: str, ask: int) -> str:
    """Names one call, with which time it was asked if not the first."""
    return id if ask == 1 else f"{id}#{ask}"


def answers(folder: Path, wanted: set[str]) -> Iterator[tuple[str, str]]:
    """(prompt id, answer) of the rescuer's last answers to these prompts."""
    if wanted:
        for call in read_lines(folder / RESCUE_CALLS, Call):
            if call.id in wanted and call.outcome == "read":
                yield call.id, call.response


def read_generation(folder: Path) -> dict[str, Any]:
    """The contents of `generation.json`.

    Raises:
        RunError: The folder is none of `orbench generate`, or the file is damaged.
    """
    path = folder / GENERATION
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{folder}: no folder of `orbench generate` (no {GENERATION} in it)") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: damaged ({error}); restore it, or use another --out") from None
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        raise RunError(f"{path}: damaged (no configuration in it); restore it, or use another --out")
    return cast("dict[str, Any]", found)


def _refuse_foreign(path: Path) -> None:
    """Before anything is written into it.

    Raises:
        RunError: A folder that holds something, and was not made here.
    """
    if not path.exists() or (path / GENERATION).exists():
        return
    if not path.is_dir():
        raise RunError(f"{path}: is a file. Choose another --out")
    others = sorted(e.name for e in path.iterdir() if e.name[0] != "." and not e.name.endswith(".part"))
    if others:
        listed = ", ".join(others[:3])
        raise RunError(f"{path}: not empty, but no {GENERATION} in it ({listed}). Choose another --out")


def check_definitions(folder: Path, before: dict[str, Any], config: GenerationConfig) -> None:
    """Refuse what would make two sets of one folder.

    Raises:
        RunError: It holds prompts in another language, or its moderators were shown other categories.
    """
    if before.get("language") != config.language:
        raise RunError(
            f"{folder}: holds prompts in {before.get('language')}, not {config.language}. Choose another --out"
        )
    if before.get("own_categories", {}) != config.own_categories:
        shown = ", ".join(before.get("own_categories", {})) or "none"
        raise RunError(
            f"{folder}: its moderators were shown other own categories ({shown}). Keep them as they were, or "
            "choose another --out"
        )


def check_order(folder: Path, stage: str | None, given: Sequence[Item]) -> None:
    """Refuse a stage that is to be done alone where no earlier one has left it anything; a later row may be dropped.

    Args:
        folder: Of the generation; perhaps not there yet.
        stage: As in `generate`.
        given: The rows of a given file.

    Raises:
        RunError: Says which stage comes first. Or the folder holds something that was not made here.
    """
    _refuse_foreign(folder)
    rounds = {item.round for item in given} if stage != "selection" else set()
    has_seeds = 0 in rounds or _holds(folder, SEEDS, SEED_CALLS)
    has_prompts = 1 in rounds or _holds(folder, REWRITES, REWRITE_CALLS)
    if stage in (None, "seeds") or has_prompts or (stage == "rewrites" and has_seeds):
        return
    first = "moderation" if any(item.round for item in given) else "rewrites" if has_seeds else "seeds"
    what = {"rewrites": "seed to rewrite", "moderation": "prompt to moderate"}.get(stage, "prompt to select")
    raise RunError(
        f"{folder}: there is no {what}: do --stage {first} first, or leave --stage out to do all of them side by side"
    )


def _holds(folder: Path, *names: str) -> bool:
    return any((folder / name).is_file() and (folder / name).stat().st_size for name in names)


class OpenFolder:
    """The folder opened for writing: locked, its definitions checked, its files open for appending."""

    def __init__(self, path: Path, config: GenerationConfig, created: dict[str, Any]) -> None:
        """Make or reopen the folder.

        Args:
            path: The folder.
            config: What it is to be.
            created: What generation.json says of a new folder beside its configuration.

        Raises:
            RunError: Another process works on it, it belongs to other definitions, it holds something else, or it
                cannot be written.
        """
        self.path = path
        try:
            _refuse_foreign(path)
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{path}: cannot be made: {error.strerror}. Choose another --out") from None
        lock = filelock.FileLock(path / _LOCK)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise RunError(f"{path}: another process is working on it. Wait for it, or choose another --out") from None
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}. Choose another --out") from None
        with ExitStack() as opened:
            opened.callback(lock.release)
            self.before = self._prepare(config, created)
            try:
                (path / PANEL).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunError(f"{path / PANEL}: cannot be made: {error.strerror}. Choose another --out") from None

            def appender(name: str) -> Any:
                return opened.enter_context(closing(Appender[Any](path / name)))

            self.seeds: Appender[Item] = appender(SEEDS)
            self.rewrites: Appender[Item] = appender(REWRITES)
            self.votes: Appender[Vote] = appender(VOTES)
            self.seed_calls: Appender[Call] = appender(SEED_CALLS)
            self.rewrite_calls: Appender[Call] = appender(REWRITE_CALLS)
            self.rescue_calls: Appender[Call] = appender(RESCUE_CALLS)
            self._opened = opened.pop_all()

    def _prepare(self, config: GenerationConfig, created: dict[str, Any]) -> dict[str, Any]:
        if not (self.path / GENERATION).exists():
            found = {**created, "config": config.to_dict()}
            write_json(self.path / GENERATION, found)
            return found
        found = read_generation(self.path)
        check_definitions(self.path, found["config"], config)
        return found

    def write(self, generation: dict[str, Any]) -> None:
        """Replace `generation.json`."""
        write_json(self.path / GENERATION, generation)

    def close(self) -> None:
        """Close the files and let go of the lock."""
        self._opened.close()
