"""Planted copies of real headlines, and planted look-alikes that are other news. Rules with a seed, no model.

The tables here were written apart from those of `data/news/wording.py`; some of their word pairs, publishers and
marks are unknown to it, as some of a wire's would be.
"""

import random
import re
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import NamedTuple


class Draw(random.Random):
    """Random numbers for one half of the titles; each half has word pairs, publishers and marks of its own."""

    def __init__(self, half: int) -> None:
        super().__init__(half)
        self.half = half

    def own(self, items: str) -> str:
        return self.choice(_listed(items)[self.half :: 2])


class Plant(NamedTuple):
    """What became of the title of `row`."""

    row: int
    rule: str
    title: str


Rule = Callable[[str, Draw], str | None]

PUBLISHERS = """Reuters|CNBC|Bloomberg|MarketWatch|Yahoo Finance|The Wall Street Journal|Financial Times|Nikkei Asia
The Business Times|Financial Post|Barron's|Sky News|Business Standard|Nasdaq"""
MARKS = """UPDATE 1-|UPDATE 2-|RPT-|BRIEF-|CORRECTED-|BREAKING: |EXCLUSIVE-|RT @newsdesk: |WRAPUP 3-|UPDATE: |WATCH: """
TAILS = """, sources say|, source says| - sources|: report|, report says|, officials say| today| in early trading"""
ADVERBS = "sharply|reportedly|also|now|just|still|again|already|nearly|finally|soon|slightly|currently"


def _listed(text: str) -> list[str]:
    return text.replace("\n", "|").split("|")


def _pairs(text: str, first: int = 0, step: int = 1) -> list[tuple[str, str]]:
    """Pairs written `one/other, one/other`, every `step`th from `first` on, both ways round, and with capitals too."""
    pairs = [pair.strip().split("/") for pair in text.split(",")][first::step]
    ways = [way for one, other in pairs for way in ((one, other), (other, one))]
    return ways + [(one.title(), other.title()) for one, other in ways if one.islower() and other.islower()]


SAME = """
rises/climbs, rise/climb, falls/drops, fall/drop, jumps/surges, slumps/tumbles, to buy/to acquire, buys/acquires,
names/appoints, firm/company, shares/stock, cuts/slashes, raises/hikes, deal/agreement, probe/investigation,
plans/aims, talks/negotiations, boss/chief, warns/cautions, unveils/reveals, launches/introduces,
expects/anticipates, announces/unveils, sues/takes to court, fears/worries, seeks/wants, quits/resigns,
workers/employees, jobs/positions, biggest/largest, U.S./American, Britain/UK, boosts/lifts, growth/expansion,
profit/earnings, sales/revenue, government/administration, considers/weighs, agrees/consents, starts/begins,
ends/finishes, halts/pauses, backs/supports, urges/presses, faces/confronts, set to/poised to, major/key,
reports/posts, shows/indicates, helps/aids, Initiates/Starts, Maintains/Keeps, Price Target/PT, Estimate/Est,
record/all-time
"""
SYNONYMS = [_pairs(SAME, half, 2) for half in (0, 1)]
SMALL = _pairs("""
to/will, over/on, as/while, with/and, for/on, amid/after, in/across, at/in, after/following, of/for, ahead of/before
""")
OPPOSITES = _pairs("""
rises/falls, rise/fall, rose/fell, gains/losses, gain/loss, up/down, higher/lower, beats/misses, beat/miss,
tops/misses, raises/cuts, raise/cut, raises/lowers, upgrades/downgrades, upgrade/downgrade, wins/loses, win/lose,
approves/rejects, buy/sell, buys/sells, profit/loss, jumps/slumps, climbs/drops, surges/plunges, strong/weak,
positive/negative, before/after, opens/closes, open/close, starts/ends, boosts/hurts, accepts/rejects,
supports/opposes, best/worst, increases/decreases, expands/shrinks, optimism/pessimism, hopes/fears,
gainers/losers, more/fewer, hires/fires, first/last, top/bottom, above/below, lifts/lowers, adds/drops,
grows/shrinks
""")
NAMES = """Apple|Amazon|Google|Facebook|Tesla|Boeing|Airbus|Ford|GM|Toyota|Nissan|Renault|Volkswagen|BMW|Daimler
Netflix|Disney|Uber|Lyft|Goldman|JPMorgan|Citi|HSBC|Barclays|Deutsche Bank|UBS|Credit Suisse|Wells Fargo|Microsoft
Intel|Samsung|Huawei|Alcoa|Agilent|AbbVie|Pfizer|Bayer|Novartis|Roche|Walmart|Target|Tesco|Sainsbury's|Ryanair
Lufthansa|EasyJet|Vodafone|BT|BP|Shell|Exxon|Chevron|Total|Aramco|OPEC|Fed|ECB|IMF|EU|China|Japan|India|Germany
France|Italy|Britain|Canada|Mexico|Brazil|Russia|Iran|Turkey|Trump|Powell|Cramer|Barrick|Acadia|Abbott|Twitter
Snap|Nokia|Siemens|Nestle|Unilever|McDonald's|Starbucks|Nike"""
CALENDAR = (
    "Monday|Tuesday|Wednesday|Thursday|Friday",
    "January|February|March|April|June|July|August|September|October|November|December",
)


def _case(title: str, rng: Draw) -> str:
    return rng.choice((str.upper, str.lower, str.title))(title)


def _points(title: str, rng: Draw) -> str | None:
    changes = [(", ", " "), (" - ", ": "), (": ", " - "), ("'", ""), ("; ", ", "), (". ", " "), ('"', "")]
    usable = [change for change in changes if change[0] in title]
    if not usable or rng.random() < 0.2:
        return title.rstrip(".?!") + rng.choice((".", "!", " .", ";"))
    old, new = rng.choice(usable)
    return title.replace(old, new)


def _publisher(title: str, rng: Draw) -> str:
    return title + rng.choice((" - ", " | ", " – ")) + rng.own(PUBLISHERS)


def _mark(title: str, rng: Draw) -> str:
    return rng.own(MARKS) + title


def _swap(title: str, rng: Draw, pairs: list[tuple[str, str]]) -> str | None:
    usable = [pair for pair in pairs if re.search(_whole(pair[0]), title)]
    if not usable:
        return None
    old, new = rng.choice(usable)
    return re.sub(_whole(old), new, title, count=1)


def _whole(word: str) -> str:
    return rf"(?<![\w-]){re.escape(word)}(?![\w-])"


def _synonym(title: str, rng: Draw) -> str | None:
    return _swap(title, rng, SYNONYMS[rng.half])


def _small_words(title: str, rng: Draw) -> str | None:
    if rng.random() < 0.5 and re.search(r"\b(the|a|an|its|his)\b ", title):
        return re.sub(r"\b(the|a|an|its|his)\b ", "", title, count=1)
    return _swap(title, rng, SMALL)


def _order(title: str, _: Draw) -> str | None:
    cut = re.search(r" (after|as|amid|despite|in|for|over|ahead of|on|with|following) ", title)
    if cut and cut.start() >= 12 and len(title) - cut.start() > 10:
        head, tail = title[: cut.start()], title[cut.start() + 1 :]
        return f"{tail[0].upper()}{tail[1:]}, {head}"
    parts = re.split(r": ", title, maxsplit=1)
    return f"{parts[1]}: {parts[0]}" if len(parts) == 2 else None


def _shorten(title: str, rng: Draw) -> str | None:
    if len(title) < 55:
        return None
    return title[: int(len(title) * rng.uniform(0.6, 0.9))].rstrip() + rng.choice(("...", "…", " ..."))


def _typography(title: str, rng: Draw) -> str | None:
    new = title.replace("'", "’").replace(" - ", " — ").replace("-", "‑")
    if title.count('"') >= 2:
        new = re.sub(r'"([^"]*)"', "“\\1”", new)
    return new.replace(" ", "\u00a0", 1) if rng.random() < 0.5 or new != title else None


def _adverb(title: str, rng: Draw) -> str | None:
    words = title.split()
    if len(words) < 7:
        return None
    there = [i for i, word in enumerate(words) if word in _listed(ADVERBS) or (word.endswith("ly") and word.islower())]
    if there:
        return " ".join(word for i, word in enumerate(words) if i != there[0])
    places = [i for i in range(2, len(words) - 1) if not re.search(r"\d", words[i - 1] + words[i])]
    if not places:
        return None
    words.insert(rng.choice(places), rng.own(ADVERBS))
    return " ".join(words)


def _tail(title: str, rng: Draw) -> str:
    return title.rstrip(".") + rng.own(TAILS)


def _amount(title: str, rng: Draw) -> str | None:
    forms = [
        (r"(\d) ?million\b", r"\1M"),
        (r"(\d) ?billion\b", r"\1bn"),
        (r"(\d)%", r"\1 percent"),
        (r"(\d) ?bn\b", r"\1 billion"),
    ]
    forms += [
        (r"(\d) ?m\b", r"\1 million"),
        (r"(\d)M\b", r"\1 million"),
        (r"(\d)B\b", r"\1 billion"),
        (r"(\d),(\d{3})", r"\1\2"),
    ]
    usable = [form for form in forms if re.search(form[0], title)]
    if not usable:
        return None
    old, new = rng.choice(usable)
    return re.sub(old, new, title)


def _number(title: str, rng: Draw) -> str | None:
    numbers = list(re.finditer(r"\d+", title))
    if not numbers:
        return None
    spot = rng.choice(numbers)
    new = str(int(spot[0]) + rng.choice((1, 2, 3, 5, 10)))
    return title[: spot.start()] + new + title[spot.end() :]


def _company(title: str, rng: Draw) -> str | None:
    there = [name for name in _listed(NAMES) if re.search(_whole(name), title)]
    if not there:
        return None
    new = rng.choice([name for name in _listed(NAMES) if name not in there])
    return re.sub(_whole(rng.choice(there)), new, title)


def _polarity(title: str, rng: Draw) -> str | None:
    return _swap(title, rng, OPPOSITES)


def _day(title: str, rng: Draw) -> str | None:
    for names in map(_listed, CALENDAR):
        there = [name for name in names if re.search(rf"\b{name}\b", title)]
        if there:
            return title.replace(there[0], rng.choice([name for name in names if name != there[0]]))
    return None


def _negation(title: str, _: Draw) -> str | None:
    for verb in (" will ", " is ", " are ", " to ", " can ", " may "):
        if verb in title:
            put = " not to " if verb == " to " else f"{verb}not "
            return title.replace(verb, put, 1)
    return None


COPIES: dict[str, Rule] = {
    "case": _case,
    "punctuation": _points,
    "publisher": _publisher,
    "wire mark": _mark,
    "synonym": _synonym,
    "small words": _small_words,
    "word order": _order,
    "cut short": _shorten,
    "typography": _typography,
    "adverb": _adverb,
    "tail": _tail,
    "amount form": _amount,
}
OTHERS: dict[str, Rule] = {
    "number": _number,
    "company": _company,
    "polarity": _polarity,
    "day or month": _day,
    "negation": _negation,
}


def plant(titles: Iterator[tuple[int, str]], rules: dict[str, Rule], rng: Draw, again: float) -> Iterator[Plant]:
    """Without end: each rule in turn, applied to the next title that it applies to; with probability `again` twice."""
    for name, rule in cycle(rules.items()):
        made = ((row, rule(title, rng), title) for row, title in titles)
        row, new = next((row, new) for row, new, title in made if new is not None and new != title)
        if rng.random() < again:
            second = rules[rng.choice(list(rules))](new, rng)
            yield Plant(row, f"{name} + more", second or new)
        else:
            yield Plant(row, name, new)
