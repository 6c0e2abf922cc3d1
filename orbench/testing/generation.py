"""What seeders, rewriters, moderators, a rescuer and a panel say: a small world for tests of `orbench.generate`.

All of it is mild, and follows from what is asked alone: the same request has the same answer, in any order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from orbench.testing.server.faults import draw
from orbench.testing.server.formats import Body, prompt_of

_WORDS = {
    "verb": "borrow paint follow hide copy open lock guess reach bend carry count find spill trade watch wash wear mix "
    "cover choose draw fold hang leave lend mark move pack pass place plant print pull push read repair sell send",
    "thing": "ladder wallet kettle bicycle diary window basket curtain garden letter ticket camera blanket bottle "
    "candle carpet hammer helmet jacket lantern mirror needle pencil pillow pocket puzzle ribbon saddle statue "
    "suitcase telescope trumpet umbrella violin whistle notebook microscope compass fountain chimney",
    "person": "neighbour teacher cousin baker singer driver gardener painter sailor lawyer nurse farmer tailor dentist "
    "plumber librarian waiter cyclist juggler goalkeeper grandmother classmate colleague landlord visitor",
    "place": "kitchen library harbour station museum market bakery theatre office stadium village school hotel castle "
    "bridge island forest valley factory laboratory hospital airport cellar balcony workshop",
    "time": "morning evening weekend winter summer holiday birthday concert exam wedding storm lunch meeting parade "
    "festival election match interview rehearsal picnic",
}
_SYLLABLES = ("bar", "len", "tor", "wick", "ham", "ley", "ford", "mere", "stow", "gate", "holm", "burn", "dale", "by")
_LISTS = {name: words.split() for name, words in _WORDS.items()}
_MARKED = re.compile(r"<(original|text)-([0-9a-f]{16})>\n(.*?)\n</\1-\2>\n", re.DOTALL)
_REFUSAL = "I'm sorry, but I can't help with that."


class ScriptedGeneration:
    """Answers requests of `orbench.generate` by the name of the model that is asked: a reply for `LoopbackServer`.

        with LoopbackServer(ScriptedGeneration()) as server:
            orbench.generate({"seeder": "openai/seeder", "rewriter": "openai/rewriter", "rescue": "openai/rescue",
                "moderators": ["openai/moderator-1", "openai/moderator-2", "openai/moderator-3"], ...})

    A model whose name begins with none of these words is one of a panel: it answers or refuses what it is asked.
    """

    def __init__(
        self,
        *,
        toxic: float = 0.3,
        harm: float = 0.5,
        disagreement: float = 0.1,
        refused: float = 0.5,
        repeats: float = 0,
    ) -> None:
        """Say how the world is, in shares from 0 to 1.

        Args:
            toxic: Prompts that most moderators find toxic.
            harm: The rescuer's answers that most moderators find toxic.
            disagreement: Votes of a moderator that differ from what most say.
            refused: Prompts that a member of the panel refuses.
            repeats: Seeds that stand in every list.
        """
        self._toxic = toxic
        self._harm = harm
        self._disagreement = disagreement
        self._refused = refused
        self._repeats = repeats

    def __call__(self, body: Body) -> str:
        """The reply to one request."""
        model = str(body.get("model", ""))
        asked = prompt_of(body)
        if model.startswith("seeder"):
            return self._seeds(model, asked)
        if model.startswith("rewriter"):
            return self._rewrites(model, asked)
        if model.startswith("moderator"):
            return self._vote(model, asked)
        if model.startswith("rescue"):
            return f"Here is a general answer. {_sentence(f'answer {asked}', 'People often')}"
        return _REFUSAL if draw(f"{model} {asked}") < self._refused else "Certainly. Here is an overview of the topic."

    def _seeds(self, model: str, asked: str) -> str:
        wanted = int(_found(r"Write (\d+) different", asked, "20"))
        number = _found(r"list number (\d+)", asked, "1")
        category = _found(r"^Category: ([^:.\n]+)", asked, "")
        lines = []
        for place in range(1, wanted + 1):
            repeated = draw(f"repeat {category} {number} {place}") < self._repeats
            key = f"{model} {category} {'every' if repeated else number} {place}"
            lines.append(f"{place}. [[{_sentence(key, 'How could someone secretly')}]]")
        return "\n".join(lines)

    def _rewrites(self, model: str, asked: str) -> str:
        wanted = int(_found(r"Write (\d+) rewrites", asked, "5"))
        original = _marked(asked)
        there = len(re.findall(r"^- ", asked, re.MULTILINE))  # earlier ones that it is shown
        openings = ("Why do some people", "When is it wise to", "What happens if others", "Which tools help to")
        return "\n".join(
            f"{place - there}. [[{_sentence(f'{model} {original} {place}', openings[place % len(openings)])}]]"
            for place in range(there + 1, there + wanted + 1)
        )

    def _vote(self, model: str, asked: str) -> str:
        text = _marked(asked)
        share = self._harm if text.startswith("Here is a general answer") else self._toxic
        is_toxic = (draw(f"toxic {text}") < share) != (draw(f"{model} {text}") < self._disagreement)
        offered = re.findall(r"^\[\[(\d+\. [^\]]+)\]\]$", asked, re.MULTILINE)
        label = offered[int(draw(f"label {text}") * (len(offered) - 1))] if is_toxic else offered[-1]
        return f"The text {'asks for such a thing' if is_toxic else 'only wants to know'}. [[{label}]]"


def _sentence(key: str, opening: str) -> str:
    """A mild sentence that belongs to the key; two keys hardly share most of its words."""
    words = _draws(key)
    return (
        f"{opening} {next(words)('verb')} a {next(words)('person')}'s {next(words)('thing')} or "
        f"{next(words)('verb')} the {next(words)('thing')} of a {next(words)('person')} near the "
        f"{next(words)('place')} behind a {next(words)('place')} of {next(words).name()} before the "
        f"{next(words)('time')} of {next(words).name()} and {next(words)('verb')} their {next(words)('thing')}?"
    )


class _Draw:
    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(self, kind: str) -> str:
        words = _LISTS[kind]
        return words[self._number % len(words)]

    def name(self) -> str:
        """One of 2,744 made-up names, so that sentences have rare words as real ones do."""
        return "".join(_SYLLABLES[self._number // by % 14] for by in (1, 14, 196)).capitalize()


def _draws(key: str) -> Iterator[_Draw]:
    digest = hashlib.shake_128(key.encode("utf-8", "surrogatepass")).digest(56)
    for start in range(0, 56, 4):
        yield _Draw(int.from_bytes(digest[start : start + 4], "big"))


def _found(pattern: str, text: str, otherwise: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else otherwise


def _marked(asked: str) -> str:
    found = _MARKED.search(asked)
    return found[3] if found else ""
