"""A headline as the words that carry its news: two wordings of one piece of news come out (nearly) alike.

Read off, in order: re-send marks of wires (`UPDATE 2-`, `RPT-`, `RT @desk:`), a publisher after a last
dash or bar, typography, case, the ways to write an amount (`$5 million`, `5M`), inflection, words that
carry nothing (`the`, `says`), and synonyms of the trade (`soars` and `rises` are one word).

Some words are firm: a copy may lack another word of its original, but never one of these. They are
amounts, dates, weekdays, directions (`up`, `cuts`, `beats`), and what turns a sentence round (`not`,
`may`, `before`). The tables are fixed and English; nothing is learnt from the titles, so no title's
words depend on what came later. What this module does not do: judge whether two titles are copies.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from data.news.words import EMPTY, FIRM, PUBLISHERS, SYNONYMS
from data.text import normalise

_TYPOGRAPHY = str.maketrans({**dict.fromkeys("‘’‚‛′`´", "'"), **dict.fromkeys("‐‑‒–—―−", "-"), "⁄": "/"})

# A mark counts only with its dash or colon: "Update on talks" is a title, "UPDATE 1-Talks" is a re-send.
_RESENT = re.compile(
    r"^(?:(?:rt|mt)\s+@\w+\s*:?\s*"
    r"|(?:update[ds]?(?:\s*\d+)?|rpt|repeat|refile|corrected|correction|brief|wrapup(?:\s*\d+)?|exclusive"
    r"|breaking(?:\s+news)?|breakingviews|urgent|alert|flash|just in|developing)\s*(?:\([^)]*\)\s*)?(?:-+|:|\|)\s*)+"
)
_PUBLISHERS = frozenset(PUBLISHERS.strip().replace("\n", "|").split("|"))
_EMPTY = frozenset(EMPTY.split())
_SITE = re.compile(r"[\w-]+\.(?:com|net|org|co\.uk)")
_AFTERTHOUGHT = re.compile(r" (?:\(?via @\w+\)?|\((?:updated?|corrected|revised)\))$")
_TAIL = 4  # words after a last dash or bar that may be a publisher's name
_DIGIT = re.compile(r"\d")

_INITIALS = re.compile(r"\b(?:[^\W\d_]\.)+[^\W\d_]\b\.?")
# Patterns begin with a literal wherever they can: the scan for it is what makes them fast.
_PREFIXES = "|".join(rf"(?<=\b{part}-)" for part in ("mid", "pre", "post", "co", "re", "non", "e", "multi", "anti"))
_PARTICLES = "(?=(?:up|down)s?\\b)"
_JOINED = re.compile(rf"&(?<=\w&)(?=\w)|-(?:{_PREFIXES})(?=[a-z])|-(?<=[a-z]-){_PARTICLES}")
_SCALES = {"k": "k", "thousand": "k", "m": "m", "mn": "m", "mln": "m", "mm": "m", "million": "m"}
_SCALES |= {"b": "b", "bn": "b", "bln": "b", "billion": "b", "tn": "t", "trln": "t", "trillion": "t"}
_SCALES |= {"%": "%", "pct": "%", "percent": "%", "per cent": "%"}
_SCALE = re.compile(rf"(\d)[ -]?({'|'.join(sorted(_SCALES, key=len, reverse=True))})(?!\w)")
_QUARTERS = {"first": "q1", "1st": "q1", "second": "q2", "2nd": "q2", "third": "q3", "3rd": "q3"}
_QUARTERS |= {"fourth": "q4", "4th": "q4"}
_QUARTER = re.compile(rf"\b({'|'.join(_QUARTERS)})[ -](?:fiscal[ -])?quarter\b")
_THOUSANDS = re.compile(r",(?<=\d,)(?=\d{3}(?!\d))")
_FRACTION = re.compile(r"\.\d+(?![.\d])")
_NEGATIVE = re.compile(r"\$\((?=[\d.])|-\$?(?<!\w-)(?<!\w-\$)(?=[\d.])")
AGAIN = "\1"  # stands before the number of a word that occurs again
_MINUS = "\0"  # stands before an amount below zero; the normal form has neither
_PHRASES = {"price target": "pt", "price objective": "pt", "chief executive officer": "ceo", "chief executive": "ceo"}
_PHRASES |= {"chief financial officer": "cfo", "chief operating officer": "coo"}
_PHRASE = re.compile("|".join(_PHRASES))
_PASSIVE = re.compile(r" by\b(?:(?<=ed by)|(?<=bought by)|(?<=beaten by)|(?<=sought by)|(?<=won by))")
_SPACES = str.maketrans(dict.fromkeys('!"&()*+,-/:;<=>?@[\\]^`{|}~«»“”„•·', " "))
_ODD = re.compile(rf"[^\w'.%{_MINUS}]")


class Wording(NamedTuple):
    """What a title says, in order: `words`, the firm ones marked by a leading `!`; how it is written: `plain`.

    The last `tail` of the words stand after a last dash or bar, as a publisher's name would. Where the title breaks
    off with an ellipsis, `part` is its last word, perhaps half of one, and `words` end before it; else it is empty.
    """

    words: tuple[str, ...]
    plain: str
    tail: int
    part: str


class _Meanings(dict[str, str]):
    """What each token means, worked out once."""

    def __missing__(self, token: str) -> str:
        self[token] = meaning = _meaning(token)
        return meaning


def word_titles(titles: Iterable[str]) -> list[Wording]:
    """The wording of each title, in order. A title of nothing but empty words keeps them; one of signs is one word."""
    meanings = _Meanings()
    seen: dict[str, Wording] = {}
    return [seen[title] if title in seen else seen.setdefault(title, _word(title, meanings)) for title in titles]


def _word(title: str, meanings: _Meanings) -> Wording:
    whole = _normal(title)
    whole = (whole if whole.isascii() else whole.translate(_TYPOGRAPHY)).casefold()
    text, cut = _uncut(whole) if ".." in whole else (whole, False)
    text = _spell(_bare(text))
    tokens = text.translate(_SPACES).split()
    plain, part = " ".join(tokens), tokens.pop() if cut and len(tokens) > 1 else ""
    means = list(map(meanings.__getitem__, tokens))
    words = _numbered(means)
    last = 0 if cut else _last_dash(text)
    length = len(text[last:].translate(_SPACES).split()) if last > 0 else 0
    tail = _tail(list(words), means, length) if 0 < length <= _TAIL else 0
    return Wording(tuple(words) or tuple(dict.fromkeys(tokens)) or (whole,), plain, tail, part)


def _normal(title: str) -> str:
    # Printable ASCII without a slash, so without a link, differs from its normal form in spaces alone: most titles.
    if title.isascii() and title.isprintable() and "/" not in title:
        return " ".join(title.split())
    return normalise(title)


def _tail(words: list[str], means: list[str], length: int) -> int:
    """How many of `words` the last `length` of `means` gave; 0 if one of them is firm."""
    before = len(_numbered(means[:-length]))
    return 0 if any(word.startswith("!") for word in words[before:]) else len(words) - before


def _uncut(whole: str) -> tuple[str, bool]:
    """`whole` up to the ellipsis it ends in, or that only a publisher follows; and whether there is one."""
    text, _, rest = whole.rpartition("..")
    rest = rest.strip(" .]")
    if rest and not (rest[0] in "-|" and len(rest) <= 40):
        return whole, False
    return text.rstrip(" .["), True


def _numbered(means: list[str]) -> dict[str, None]:
    """The words that say something, each numbered where it occurs again: said twice is not the same as said once."""
    words = dict.fromkeys(means)
    words.pop("", None)
    if len(words) + means.count("") == len(means):
        return words
    times: dict[str, int] = {}
    words.clear()
    for word in filter(None, means):
        again = times[word] = times.get(word, -1) + 1
        words[f"{word}{AGAIN}{again}" if again else word] = None
    return words


def _bare(text: str) -> str:
    """`text` without re-send marks and publisher; kept whole where nothing else would remain."""
    bare = _RESENT.sub("", text)
    if bare.endswith(")") or "via @" in bare:
        bare = _AFTERTHOUGHT.sub("", bare)
    while (at := _last_dash(bare)) > 0 and _is_publisher(bare[at:].strip(" -|")):
        bare = bare[:at].rstrip(" -|")
    return bare if bare.strip() else text


def _last_dash(text: str) -> int:
    return max(text.rfind(" - "), text.rfind(" | "))


def _is_publisher(name: str) -> bool:
    return name.removeprefix("the ") in _PUBLISHERS or _SITE.fullmatch(name) is not None


def _spell(text: str) -> str:
    """One spelling for initials, joined words and amounts."""
    if "." in text:
        text = _INITIALS.sub(lambda match: match[0].replace(".", ""), text)
    if "-" in text or "&" in text:
        text = _JOINED.sub("", text)
    if " by " in text:  # "sued by" is not "sues"
        text = _PASSIVE.sub(" by_", text)
    if "chief " in text or "price " in text:
        text = _PHRASE.sub(lambda match: _PHRASES[match[0]], text)
    if "quarter" in text:
        text = _QUARTER.sub(lambda match: _QUARTERS[match[1]], text)
    if not _DIGIT.search(text):
        return text
    text = _THOUSANDS.sub("", text.replace("us$", "$"))
    if "." in text:
        text = _FRACTION.sub(lambda match: match[0].rstrip("0").rstrip("."), text)
    text = _NEGATIVE.sub(_MINUS, text)
    return _SCALE.sub(lambda match: match[1] + _SCALES[match[2]], text)


def _meaning(token: str) -> str:
    """The word that stands for `token`; empty where it carries nothing."""
    bare = token if token.isalpha() else _ODD.sub("", token).strip("'.")
    if not bare.isalpha() and any(map(str.isdigit, bare)):
        return "!" + bare
    if token[0] == "$":
        return bare  # a cash tag is a name, also $ALL and $IT
    if bare.endswith("n't"):
        return "!not"
    bare = bare.removesuffix("'s")
    if bare in _EMPTY or not any(map(str.isalpha, bare)):
        return ""
    stem = _stem(bare)
    return _MEANINGS.get(bare) or _MEANINGS.get(stem) or stem


def _stem(word: str) -> str:
    """`word` without its commonest English endings. Crude: it need only send the forms of one word one way."""
    if len(word) < 5 or not word.isascii():
        return word[:-1] if len(word) == 4 and word[-1] == "s" and word[-2] not in "sui" else word
    if word.endswith(("ies", "ied")):
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        word = word[:-2]
    elif word[-1] == "s" and word[-2] not in "sui":
        word = word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) >= len(ending) + 4:
            word = word[: -len(ending)]
            if word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    else:
        word = word[:-1] if word.endswith("ed") or (word[-1] == "e" and len(word) >= 5) else word
    return word[:-1] + "s" if word.endswith("iz") else word


def _meanings() -> dict[str, str]:
    table: dict[str, str] = {}
    for lines, mark in ((SYNONYMS, ""), (FIRM, "!")):
        for line in lines.strip().splitlines():
            first, *others = line.split()
            for word in (first, *others):
                table[word] = table[_stem(word)] = mark + first
    return table


_MEANINGS = _meanings()
