"""100,000 headlines against an alias table of 10,000 names, beside flashtext's KeywordProcessor over the same forms.

python benchmarks/linking.py                           made-up names and headlines
python benchmarks/linking.py HEADLINES.parquet ALIASES  one's own: titles, published_at, ticker (or null); SEC's
                                                        company_tickers.json or a CSV. Also precision and recall.
"""

import sys
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
from flashtext import KeywordProcessor
from paired import compare

from data.linking import CONFIDENT, Alias, AliasTable, Linker
from data.linking.names import forms

TITLES = 100_000
NAMES = 10_000
_SYLLABLES = (
    "al",
    "be",
    "cor",
    "da",
    "en",
    "fi",
    "gen",
    "ha",
    "jo",
    "ka",
    "lu",
    "mer",
    "pra",
    "qui",
    "ro",
    "sol",
    "tra",
    "wy",
    "xen",
)
_TRADES = ("Corp", "Inc", "Holdings Inc", "Group PLC", "Energy Corp", "Therapeutics Inc", "Bancorp", "Motors Co")
_SHAPES = (
    "{name} beats estimates as sales climb",
    "Analysts raise price target on {name} after strong quarter",
    "{name}'s shares fall 4% on weak outlook as investors look to rates",
    "Why {name} Stock Is Down Today",
    "{name} to buy rival in $2.5 billion deal: sources",
    "Fed holds rates steady as inflation cools, signals patience",
    "Oil slips for a third day before the meeting of producers",
    "Stocks making the biggest moves midday: what to watch next week",
    "Exclusive: Regulators to review rules for lenders after the failure of two banks",
    "Dollar firms against major currencies as traders await jobs data",
)
_TAGGED = "{name} (NASDAQ: {ticker}) announces first quarter results"


def main(arguments: list[str]) -> None:
    titles, aliases = _real(*map(Path, arguments)) if arguments else _made_up(np.random.default_rng(0))
    start = time.perf_counter()
    linker = Linker(aliases)
    print(f"{len(aliases)} aliases, built in {time.perf_counter() - start:.2f} s; {len(titles)} headlines")
    at = np.full(len(titles), np.datetime64("2024-06-03T14:00", "us"))
    peer = KeywordProcessor()
    for alias in aliases.rows:
        for form in forms(alias.name):
            peer.add_keyword(form.text, alias.ticker)
    print(f"{len(linker.link_all(titles, at))} links")
    compare(
        "flashtext.extract_keywords over Linker.link_all",
        lambda: linker.link_all(titles, at),
        lambda: [peer.extract_keywords(title) for title in titles],
        rounds=7,
    )
    if arguments:
        judge(linker, pd.read_parquet(arguments[0], columns=["title", "published_at", "ticker"]))


def judge(linker: Linker, rows: pd.DataFrame) -> None:
    """Links against labels, which the linker does not see; on half of the titles (by hash) its weights were set."""
    labelled = rows[rows["ticker"].notna()].groupby("title")
    labels = labelled["ticker"].agg(frozenset)
    at = labelled["published_at"].min().dt.tz_localize(None).to_numpy(dtype="datetime64[us]")
    titles = labels.index.tolist()
    half = np.array([blake2b(title.encode(), digest_size=2).digest()[0] % 2 for title in titles])
    found = linker.link_all(titles, at, least=0.5)
    found["half"] = half[found["row"]]
    found["right"] = [ticker in labels.iloc[row] for row, ticker in zip(found["row"], found["ticker"], strict=True)]
    scored = found[found["ticker"].isin(set(rows["ticker"].dropna()))]
    sizes = labels.map(len).to_numpy()
    named = labels.map(lambda tickers: len(tickers & linker.aliases.symbols)).to_numpy()
    for part, name in ((0, "set on"), (1, "held out")):
        print(f"half that the weights were {name}: {sizes[half == part].sum()} labels")
        for least in (0.5, CONFIDENT, 0.9, 0.95):
            mine = scored[(scored["half"] == part) & (scored["confidence"] >= least)]
            right = mine["right"].sum()
            print(
                f"  confidence >= {least}: {len(mine)} links, precision {right / len(mine):.3f}, recall "
                f"{right / sizes[half == part].sum():.3f}; of labels in the alias table {_known(mine, linker):.0f}/"
                f"{named[half == part].sum()} = {_known(mine, linker) / named[half == part].sum():.3f}"
            )
    sure = found[found["confidence"] >= CONFIDENT]
    print(f"links to any ticker: {len(sure)}, {sure['right'].mean():.3f} labelled (labels cover few tickers)")
    held = scored[(scored["half"] == 1) & (scored["confidence"] >= CONFIDENT)]
    print(held.groupby("rule")["right"].agg(["size", "mean"]).round(3).to_string())


def _known(links: pd.DataFrame, linker: Linker) -> int:
    return int(links.loc[links["ticker"].isin(linker.aliases.symbols), "right"].sum())


def _real(headlines: Path, aliases: Path) -> tuple[list[str], AliasTable]:
    titles = pd.read_parquet(headlines, columns=["title"])["title"].tolist()
    return (titles * (TITLES // len(titles) + 1))[:TITLES], AliasTable.read(aliases)


def _made_up(rng: np.random.Generator) -> tuple[list[str], AliasTable]:
    words = sorted({"".join(rng.choice(_SYLLABLES, 3)).title() for _ in range(3 * NAMES)})
    names = [f"{words[number % len(words)]} {words[-number % 97]}" for number in range(NAMES)]
    tickers = ["".join(chr(65 + number // 26**place % 26) for place in range(4)) for number in range(NAMES)]
    rows = [Alias(f"{name} {rng.choice(_TRADES)}", ticker) for name, ticker in zip(names, tickers, strict=True)]
    chosen = rng.integers(0, NAMES, TITLES)
    shapes = [_SHAPES[shape] for shape in rng.integers(0, len(_SHAPES), TITLES)]
    shapes[::20] = [_TAGGED] * len(shapes[::20])
    titles = [
        shape.format(name=names[number], ticker=tickers[number]) for shape, number in zip(shapes, chosen, strict=True)
    ]
    return titles, AliasTable.of(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
