"""Which columns of a corpus are what: by --map, by the shape of a well-known corpus, or by common names.

A file is taken for a corpus where it has exactly one of that corpus's sets of columns (an unnamed index
apart); `--preset NAME` says it of a file whose columns were changed. Shapes as their publishers have them:

- fnspid: huggingface.co/datasets/Zihan1004/FNSPID, Stock_news/*.csv. Its midnights are dates without a time.
  The Lsa, Luhn, Textrank and Lexrank summaries were made by the corpus's authors and are left out.
- benzinga: kaggle.com/datasets/miguelaenlle/massive-stock-news-analysis-db-for-nlpbacktests, its three files.
  Stamps with an offset are instants, the naive midnights of raw_partner_headlines.csv are dates.
- stocknet: github.com/yumoxu/stocknet-dataset, its tweets as one table; by name also tweet/raw/TICKER/DAY
  as they are: Twitter's objects, one a line, in a folder that is named as the ticker.
- gdelt: the DOC 2.0 API's article list as CSV (URL, MobileURL, Date, Title) or its JSON articles, one a line.
  Its stamps say when GDELT saw an article, in UTC: 20240115T123000Z, 20240115123000 or with separators.

What this does not do: read anything. Shapes that a publisher changes are read by --map until they stand here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from data.errors import ConfigError
from data.tabular import choose_columns

REQUIRED = ("published_at", "title")
OPTIONAL = ("ticker", "id", "source", "url", "precision", "summary")
ALIASES = {
    "published_at": ("published", "created_at", "timestamp", "datetime", "date"),
    "title": ("headline", "text"),
    "ticker": ("symbol", "stock"),
}

# Names that an index without one gets from those who write and read CSV with pandas.
_INDEX = frozenset({"", "Unnamed: 0", "__index_level_0__"})


class Stamp(NamedTuple):
    """How one corpus alone writes instants: what matches `pattern` (RE2) is rewritten, anything else stays."""

    pattern: str
    standard: str


@dataclass(frozen=True)
class Preset:
    """One shape of a corpus; several may have one name.

    `columns`: ours -> theirs. `shapes`: the sets of columns by which a file is known. `zone`: that of stamps
    without one, unless the user names another.
    """

    name: str
    columns: Mapping[str, str]
    shapes: tuple[frozenset[str], ...] = ()
    stamp: Stamp | None = None
    zone: str | None = None
    ticker_from_folder: bool = False


@dataclass(frozen=True)
class Layout:
    """Where a source has what: `columns` ours -> theirs, and the corpus it was known as, if any."""

    columns: Mapping[str, str]
    known: Preset | None = None

    @property
    def preset(self) -> str | None:
        """The corpus's name."""
        return None if self.known is None else self.known.name

    @property
    def stamps(self) -> Preset | None:
        """The corpus, where the stamps are those that it knows and no others that the user chose."""
        theirs = self.known is not None and self.columns["published_at"] == self.known.columns["published_at"]
        return self.known if theirs else None


def _mapping(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split())


def _shapes(*texts: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(text.split()) for text in texts)


_FNSPID = "Date Article_title Stock_symbol Url Publisher Author"
_FNSPID_TEXTS = f"{_FNSPID} Article Lsa_summary Luhn_summary Textrank_summary Lexrank_summary"
_GDELT_ARTICLE = "url url_mobile title seendate socialimage domain language sourcecountry"
_GDELT_STAMP = Stamp(r"^(\d{4})(\d\d)(\d\d)T?(\d\d)(\d\d)(\d\d)Z?$", r"\1-\2-\3T\4:\5:\6Z")
_TWITTER_STAMP = Stamp(r"^([A-Z]\w\w) ([A-Z]\w\w) (\d\d) (\d\d:\d\d:\d\d) (\+0000) (\d{4})$", r"\1, \3 \2 \6 \4 \5")

PRESETS = (
    Preset(
        "fnspid",
        _mapping("published_at=Date title=Article_title ticker=Stock_symbol url=Url source=Publisher"),
        _shapes(_FNSPID, f"{_FNSPID} Article", _FNSPID_TEXTS),
    ),
    Preset(
        "benzinga",
        _mapping("published_at=date title=headline ticker=stock url=url source=publisher"),
        _shapes("headline url publisher date stock"),
    ),
    Preset("benzinga", _mapping("published_at=date title=title ticker=stock"), _shapes("title date stock")),
    Preset(
        "stocknet",
        _mapping("published_at=created_at title=text ticker=ticker id=id"),
        _shapes("ticker id created_at text file_date lang is_retweet"),
    ),
    Preset(
        "stocknet",
        _mapping("published_at=created_at title=text id=id_str"),
        stamp=_TWITTER_STAMP,
        ticker_from_folder=True,
    ),
    Preset(
        "gdelt",
        _mapping("published_at=seendate title=title url=url source=domain"),
        _shapes(_GDELT_ARTICLE),
        _GDELT_STAMP,
        "UTC",
    ),
    Preset(
        "gdelt",
        _mapping("published_at=Date title=Title url=URL"),
        _shapes("URL MobileURL Date Title", "URL Date Title"),
        _GDELT_STAMP,
        "UTC",
    ),
)


def lay_out(
    names: Sequence[str], mapping: Mapping[str, str], preset: str | None, where: object, before: Layout | None = None
) -> Layout:
    """What `where`, a source with these columns, has where. The user's `mapping` wins over any preset.

    `before` is the layout so far of a source whose later rows bring more columns: what it was known as stays.
    Raises ConfigError for an unknown `preset`, InputError where a column that must be there is not.
    """
    known = _find(names, mapping, preset, where) if before is None else before.known
    if known is None:
        return Layout(choose_columns(names, REQUIRED, OPTIONAL, ALIASES, mapping, where))
    offered = {ours: theirs for ours, theirs in known.columns.items() if theirs in names}
    free = {ours: theirs for ours, theirs in offered.items() if theirs not in mapping.values()}
    return Layout(choose_columns(names, REQUIRED, OPTIONAL, {}, {**free, **mapping}, where), known)


def _find(names: Sequence[str], mapping: Mapping[str, str], preset: str | None, where: object) -> Preset | None:
    if preset is None:
        shape = frozenset(names) - _INDEX
        return next((each for each in PRESETS if shape in each.shapes), None)
    named = [each for each in PRESETS if each.name == preset]
    if not named:
        known = ", ".join(dict.fromkeys(each.name for each in PRESETS))
        raise ConfigError(f"--preset {preset}: expected one of {known}; where none fits, name columns with --map.")
    fitting = [each for each in named if all(ours in mapping or each.columns[ours] in names for ours in REQUIRED)]
    if not fitting:
        needed = " or ".join(dict.fromkeys(" and ".join(each.columns[ours] for ours in REQUIRED) for each in named))
        found = ", ".join(names)[:1000]
        raise ConfigError(f"{where}: --preset {preset}: expected the columns {needed}; found {found}.")
    return max(fitting, key=lambda each: sum(theirs in names for theirs in each.columns.values()) / len(each.columns))
