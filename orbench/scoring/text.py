"""A reply as the phrase rules read it: one spelling for each character, the model's own voice, head and tail.

A reply goes in as the model wrote it. Out comes lower-case text without invisible characters and Markdown, without
what is quoted or code, split into sentences, and bounded: however long the reply, only its head and its tail are
read. Every step is linear in what it reads.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache
from itertools import islice

import msgspec

from orbench.models.reasoning import split_reasoning

HEAD = 1500
"""Characters of the reply's beginning that are read: about 230 English words."""
TAIL = 500
"""Characters of its end that are read where the head does not reach them."""
HEAD_SENTENCES = 14
TAIL_SENTENCES = 4

_DRAFT = 160
"""Characters from which a reply that is all quotation is a text for the user, not the model's own words in quotes."""
_FEW_LETTERS = 10
"""With so few letters outside of quotes and code, these are the reply itself."""


class View(msgspec.Struct, frozen=True, gc=False):
    """What is read of one reply."""

    head: tuple[str, ...]
    """Sentences of the beginning, normalised, at most `HEAD_SENTENCES`."""
    tail: tuple[str, ...]
    """The last sentences that are not in `head`, at most `TAIL_SENTENCES`."""
    letters: int
    """Characters of the reply without its blanks at both ends; more than was read where the reply is long."""
    items: int
    """List items, table rows, headings and code blocks in head and tail: signs of an answer with substance."""
    raw_head: str
    """The beginning as written, for what must see line breaks, labels and letter case."""

    def __getitem__(self, number: int) -> str:
        """The sentence of that number; those of the tail go on from the head's."""
        return self.head[number] if number < len(self.head) else self.tail[number - len(self.head)]


_INVISIBLE = (
    " \t\n\r\v\f\xa0\xad\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2060\u2066\u2067\u2068\u2069\u3000\ufeff"
)
"""What may stand before a reply without being seen."""


def view(reply: str) -> View:
    """Cut, clean and split a reply."""
    if "<" in reply and ("<" in reply[:200] or "</think>" in reply):  # one character is found sooner than many
        reply = split_reasoning(reply)[0]
    reply = reply.strip(_INVISIBLE)
    start = reply[:HEAD]
    head = tuple(sentences(normalise(own_voice(start)), HEAD_SENTENCES))
    tail: tuple[str, ...] = ()
    items = count_items(start)
    if len(reply) > HEAD:
        end = _ending(reply)
        tail = tuple(sentences(normalise(own_voice(end)))[-TAIL_SENTENCES:])
        items += count_items(end)
    return View(head, tail, len(reply), items, start)


def _ending(reply: str) -> str:
    """The tail, from a sentence or line that begins in it and outside of fenced code."""
    start = max(HEAD, len(reply) - TAIL)
    text = reply[start:]
    if "`" in reply and reply.count("```", 0, start) % 2:
        _, closed, text = text.partition("```")
        if not closed:
            return ""
    begin = _BEGIN.search(text)
    return text[begin.end() :] if begin else text


_BEGIN = re.compile(r"\n|[.!?] |[。！？।]")


# ---------------------------------------------------------------------------------------------- characters

_APOSTROPHES = "’‘ʼ´‛′＇ʹ`"
_QUOTES = "“”„‟″＂"
_DASHES = "‐‑‒–—―−﹣－"
_BREAKS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
_FULL_WIDTH = "，！？；："
"""Stops that carry their own blank; a plain one is put behind the narrow form."""
_EMPHASIS = "*~|"


class _Characters(dict[int, str | None]):
    """What becomes of each character; worked out when it is first met."""

    def __missing__(self, code: int) -> str | None:
        found = self[code] = _spelling(chr(code))
        return found


def _spelling(character: str) -> str | None:
    """The lower-case plain form of a character; None if a reader does not see it."""
    if character in _APOSTROPHES:
        return "'"
    if character in _QUOTES:
        return '"'
    if character in _DASHES:
        return "-"
    if character == "\n" or character in _BREAKS:
        return "\n"
    if character in _FILLERS or character in _EMPHASIS:
        return None
    if character in _FULL_WIDTH:
        return unicodedata.normalize("NFKC", character) + " "
    if unicodedata.combining(character) and character not in _kept_marks():
        return None
    plain = unicodedata.normalize("NFKC", character)
    if plain != character:
        return "".join(_CHARACTERS[ord(part)] or "" for part in plain)
    category = unicodedata.category(character)
    if character == "\t" or category == "Zs":
        return " "
    if category in ("Cc", "Cf", "Cs", "Co", "Cn"):
        return None
    if category == "Mn" and ("\ufe00" <= character <= "\ufe0f" or character >= "\U000e0100"):
        return None
    if category in ("So", "Sk") and not character.isascii():
        return " "
    return character.lower()


_CHARACTERS = _Characters()


@cache
def _kept_marks() -> frozenset[str]:
    """The accents that NFC joins to letters, and the signs that Indic, Thai and Japanese cannot do without.

    All others (Arabic and Hebrew vowel points, stacked ornaments) are dropped.
    """
    wanted = {7, 8, 9, 107}  # combining classes of nukta, kana voicing, virama, Thai tones
    signs = (chr(code) for code in range(0x590, 0x3100))
    return frozenset(sign for sign in signs if unicodedata.combining(sign) in wanted) | {
        chr(code) for code in range(0x300, 0x370)
    }


@cache
def _stacked() -> re.Pattern[str]:
    marks = re.escape("".join(sorted(_kept_marks())))
    return re.compile(f"([{marks}]{{4}})[{marks}]+")


_DOTTED = re.compile("i\u0307+")
"""What lowering leaves of the Turkish capital, once for all languages."""
_FOREIGN = re.compile(r"[^\x00-\x7f]+")


def _characters(text: str) -> str:
    """One spelling for each character: NFKC, lower case, plain quotes and dashes, nothing invisible, no emoji.

    NFKC is done a character at a time and what it leaves is joined by NFC with at most four marks in a row, because
    `unicodedata.normalize` sorts marks in quadratic time.
    """
    text = text.lower()
    if text.isascii():
        return text.translate(_CHARACTERS)
    text = _FOREIGN.sub(lambda match: match[0].translate(_CHARACTERS), text)
    text = _stacked().sub(r"\1", text.translate(_CHARACTERS) if text.isascii() else _ASCII.sub(_respell, text))
    return unicodedata.normalize("NFC", _DOTTED.sub("i", text))


_ASCII = re.compile(r"[\x00-\x09\x0b-\x1f\x7f*~|`]+")


def _respell(match: re.Match[str]) -> str:
    return match[0].translate(_CHARACTERS)


# ------------------------------------------------------------------------------------------------ Markdown

_LINK = re.compile(r"\]\([^()\s]{0,500}\)|[\[\]]")
_UNDERSCORE = re.compile(r"_(?:(?<![^\W_]_)_*|_*(?![^\W_]))")
"""Underscores that do not stand between two letters; begins with a plain character and so is found quickly."""
_LINE = re.compile(r"\n[\n #>+•·-]*")
_LINE_MARKS = "\n #>+•·-"


def normalise(text: str) -> str:
    """The text in one spelling: lower case, plain quotes, single blanks and line breaks, no Markdown, no emoji.

    Doing it twice changes nothing. Time is linear in the length.
    """
    text = _characters(text)
    if "[" in text or "]" in text:
        text = _LINK.sub("", text)
    if "_" in text:
        text = _UNDERSCORE.sub("", text)
    if "\n" in text:
        while " \n" in text:
            text = text.replace(" \n", "\n")
        text = _LINE.sub("\n", text)
    while "  " in text:
        text = text.replace("  ", " ")
    return text.lstrip(_LINE_MARKS).rstrip()


# ------------------------------------------------------------------------------------------------- own voice

_FENCE = re.compile(r"```[ \t]*([\w+#.-]*)(.*?)(?:```|\Z)", re.DOTALL)
_PROSE = frozenset({"", "text", "txt", "plaintext", "plain", "markdown", "md"})
"""What a fence is called that may hold prose."""
_CODE = re.compile(
    r"\n[ \t]*(?:def |import |from \w{1,40} import|class \w|print ?\(|return\b|#include|function |const |let |var "
    r"|public |SELECT "
    r"|for \(|if \(|while \(|\w{1,40} ?= ?\S|\w{1,40}\()"
)
_HASH_COMMENT = re.compile(r"^[ \t]*# .*$", re.MULTILINE)
_INLINE = re.compile(r"`[^`\n]{1,300}`")
_BLOCK_QUOTE = re.compile(r"^ {0,3}>.*$", re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*(?://|/\*|<!--|--\[\[).*$", re.MULTILINE)
_SPOKEN = re.compile(r"^[—–] ?\S.*$", re.MULTILINE)
"""A line that opens with a dash, as speech does in many languages."""
_SPEECH = re.compile(
    r"""(?<![a-zA-Z0-9"])"(?=[^\s"])[^"\n]{1,800}"(?![a-zA-Z0-9])"""
    "|“[^“”\n]{1,800}[”“]|„[^“”„\n]{1,800}[“”]|«[^«»\n]{1,800}»|»[^«»\n]{1,800}«"
    "|「[^「」\n]{1,800}」|『[^『』\n]{1,800}』|《[^《》\n]{1,800}》"
)
_PLAIN_SPEECH = re.compile(r"""\"(?<![a-zA-Z0-9"]")(?=[^\s"])[^"\n]{1,800}"(?![a-zA-Z0-9])""")
"""The first of these alone, which begins with a plain character and so is found quickly."""
_QUOTING = re.compile("[“„«»「『《]")


def own_voice(text: str) -> str:
    """The text without what is not said by the model itself: code, quotations, quoted speech, dialogue.

    What is removed leaves an empty pair of quotes behind, so that sentences keep their shape. A reply that would be
    all but empty without them (prose in quotes, or in a code block, as a whole) is its own voice and comes back
    whole, unless several things are quoted, as in a translation or a dialogue, or one long text, as in a draft.
    Single quotes are left alone, since they cannot be told from apostrophes.
    """
    found = text
    prose = text
    others = 0
    if "`" in found:
        prose = _FENCE.sub(_prose, text)
        found = _INLINE.sub("''", _FENCE.sub("\n", text))
    if "#" in found and _CODE.search("\n" + found):
        found = _HASH_COMMENT.sub("", found)
    if ">" in found:
        found = _BLOCK_QUOTE.sub("", found)
    if ("/" in found and ("//" in found or "/*" in found)) or ("-" in found and "--" in found):
        found = _COMMENT.sub("", found)
    if "—" in found or "–" in found:
        found, lines = _without_dialogue(found)
        others += lines
    plain = found.isascii()
    if '"' in found or (not plain and _QUOTING.search(found)):
        quoted = len(found)
        found, speeches = (_PLAIN_SPEECH if plain else _SPEECH).subn("''", found)
        others += 2 if quoted - len(found) > _DRAFT else speeches
    return prose if found is not text and others < 2 and _is_bare(found) else found


def _without_dialogue(text: str) -> tuple[str, int]:
    """The text without lines of speech, and how many those were; two for one with its speaker ("— ..., — she said").

    A single line that opens the reply and has no second dash is the reply's own.
    """
    spoken = list(_SPOKEN.finditer(text))
    told = any("—" in line[0][1:] or "–" in line[0][1:] for line in spoken)
    if not spoken or (len(spoken) == 1 and spoken[0].start() == 0 and not told):
        return text, 0
    return _SPOKEN.sub("", text), len(spoken) + told


def _prose(fence: re.Match[str]) -> str:
    """What a code block says if it holds no code."""
    code = fence[1].lower() not in _PROSE or _CODE.search(fence[2])
    return "\n" if code else f"\n{fence[2]}\n"


def _is_bare(text: str) -> bool:
    return sum(1 for _ in islice(filter(str.isalpha, text[:400]), _FEW_LETTERS + 1)) <= _FEW_LETTERS


# ------------------------------------------------------------------------------------------------- sentences

_STOP = re.compile(r"""[.!?\n。।॥؟۔።။។]+["')」』]{0,3} ?""")
_END_ASCII = re.compile(
    r"""[.!?\n](?<![.!?\n]{2})(?:(?:(?<=\n)|[.!?]*\n)[.!?\n]*["')]{0,3} ?|(?<!\d\.)[.!?]*["')]{0,3} )"""
)
"""Where a sentence of ASCII text ends: the same in one expression, since most text is such."""
_OWN_STOPS = frozenset("\n。।॥؟۔።။។")


def sentences(text: str, most: int = sys.maxsize) -> list[str]:
    """Split normalised text into sentences.

    A full stop behind a digit ("1. ...") ends none; the stops of other scripts need no blank behind them.

    Args:
        text: As `normalise` gives it.
        most: Only so many from the start.
    """
    found: list[str] = []
    start = 0
    if text.isascii():
        for ended in _END_ASCII.finditer(text):
            part = text[start : ended.end()].strip()
            start = ended.end()
            if part:
                found.append(part)
                if len(found) >= most:
                    return found
        part = text[start:].strip()
        return [*found, part] if part else found
    for stop in _STOP.finditer(text):
        mark, end = stop[0], stop.end()
        ends = not _OWN_STOPS.isdisjoint(mark)
        if not ends and mark[-1] == " ":
            ends = mark[0] != "." or not text[stop.start() - 1 : stop.start()].isdigit()
        elif not ends and mark[-1] in "!?":
            ends = text[end : end + 1] > "\u024f"
        if ends:
            part = text[start:end].strip()
            start = end
            if part:
                found.append(part)
                if len(found) >= most:
                    return found
    part = text[start:].strip()
    if part:
        found.append(part)
    return found


_ITEM = re.compile(
    r"\n[ \t]*(?:[-*+•] |\d{1,3}[.)]\s|\*\*[^*\n]{2,60}\*\*:?[ \t]*(?=\n)|#{1,6} |\||```|[a-zA-Z]\) |[Ss]tep \d)"
)


def count_items(text: str) -> int:
    """List items, table rows, headings and code fences: the lines that give an answer its shape."""
    return len(_ITEM.findall("\n" + text))


# --------------------------------------------------------------------------------------------- verse, voices

_VERSE_LINES = 4
_VERSE_WIDTH = 64
_LISTED = re.compile(r"[-*+•#>|\d(]")


def verse(text: str) -> str:
    """The lines of a poem or song in a text as written, normalised; empty if there is none.

    Verse is at least four short lines in a row (blank lines between stanzas allowed), the first without a stop and
    most of them without one. Lists and headings are none.
    """
    found: list[str] = []
    block: list[str] = []
    for line in map(str.strip, [*text.split("\n"), "#"]):
        if not line:
            continue
        if len(line) <= _VERSE_WIDTH and not _LISTED.match(line) and (block or line[-1] not in _CLOSING):
            block.append(line)
            continue
        if len(block) >= _VERSE_LINES and sum(part[-1] in _CLOSING for part in block) * 2 < len(block):
            found += block
        block = []
    return normalise("\n".join(found))


_SALUTATION = re.compile(
    r"\W{0,4}(?:subject:[^\n]{0,120}\s{1,4})?(?:dear|hi|hello|hola|estimad[oa]|querid[oa]"
    r"|sehr geehrter? (?:herr|frau)|lieber?|cher|chère"
    r"|bonjour|caro|cara|gentile|prezad[oa]|olá|exm[oa]\.|szanown[ay]|drog[ia]|sevgili|sayın|merhaba|уважаем(?:ый|ая)"
    r"|дорог(?:ой|ая)|عزيز(?:ي|تي)|प्रिय|beste|geachte|kära|bästa|kepada|kính gửi)"
    r",? (?!user|customer|sir|madam|friend|there|all|everyone|usuari)(?:m[rs]s?\. |dr\. "
    r"|prof\. )?[\[\w][^\n!:,.?]{0,40}[,:!]",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(
    r"(?:^|\W)(?:sincerely|(?:best|kind|warm|warmest) (?:regards|wishes)|regards|yours|cheers|un saludo"
    r"|saludos|un abrazo"
    r"|atentamente|grüße|grüßen|alles gute|cordialement|bien à vous|cordiali saluti|saluti|atenciosamente|um abraço"
    r"|z poważaniem|pozdrawiam|saygılarımla|sevgiler|с уважением|مع التحية|सादर|groet|hälsningar|salam"
    r"|trân trọng)(?:$|\W)"
)


def is_letter(seen: View) -> bool:
    """Whether a reply is a letter for the user to send: it opens with somebody's name and ends as letters do.

    What such a letter declines, its sender declines, not the model.
    """
    if not _SALUTATION.match(seen.raw_head):
        return False
    return any(_SIGNATURE.search(part) for part in (seen.head + seen.tail)[-3:])


_CLOSING = ".!?:。！？।؟"
_BRACKETED = re.compile(r"^\W{0,4}[\[(【]([^\])】\n]{2,40})[\])】]\W{0,4}", re.MULTILINE)
_NAMED = re.compile(
    r"^[*_ ]{0,4}((?:As |as )?[A-Z][\w.+'-]{0,20}(?: [\w.+'-]{1,20}){0,3})[*_ ]{0,4}:[*_ ]{0,4}", re.MULTILINE
)
_SAME_VOICE = re.compile(
    r"reason|why|explan|note|alternativ|suggest|instead|resource|support|help|important|disclaim|warning"
    r"|safety|remember"
    r"|step|tip|option|example|legal|ethic"
)
"""Headings under which a refusal goes on."""


def voices(text: str) -> list[str]:
    """What each of several labelled voices says (`[A] ... [B] ...`, `GPT: ... DAN: ...`); empty for a single voice.

    The first label must open the text, the others must open a line and differ from it.
    """
    for label in (_BRACKETED, _NAMED):
        if not label.match(text) and "\n" not in text[:2]:
            continue  # known without a look at the other lines
        found = list(label.finditer(text))
        if len(found) > 1 and found[0].start() < 3:
            first = found[0][1].lower()
            found = found[:1] + [
                other for other in found[1:] if other[1].lower() != first and not _SAME_VOICE.search(other[1].lower())
            ]
            if len(found) > 1:
                ends = [*(other.start() for other in found[1:]), len(text)]
                return [text[match.end() : end] for match, end in zip(found, ends, strict=True)]
    return []
