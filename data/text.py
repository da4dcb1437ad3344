"""What a headline says, whatever its encoding: one text in a normal form, and a 128-bit key of it.

Two texts with the same normal form are the same text and are embedded once. The normal form keeps
case and words; it does not judge likeness (near duplicates are another module's business).
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from data.invisible import INVISIBLE

Keys = npt.NDArray[np.uint64]

VERSION = 1  # of the normal form; part of every encoder's fingerprint

# What an encoder may read of a headline: the columns of the lake's rows, see `row_texts`.
READS = {"title": ("title",), "title+summary": ("title", "summary")}

# A headline's meaning is not in its link, and copies of one message often differ in nothing else.
_ENDS = ".!?:;\u2026"  # after which another sentence may follow

_LINK = re.compile(r"https?://\S*|\bt\.co/\S+", re.IGNORECASE)


def normalise(text: str) -> str:
    """The normal form of `text`: NFKC, nothing invisible, no links, single spaces; case is kept.

    A text that is nothing but links keeps them, so that it does not become the empty text. The
    empty text stays empty. Applying it twice changes nothing.
    """
    # Invisible characters go first: they can keep apart what NFKC composes. NFKC itself makes none.
    plain = unicodedata.normalize("NFKC", INVISIBLE.sub("", text))
    return " ".join(_LINK.sub(" ", plain).split()) or " ".join(plain.split())


def normalise_all(texts: Iterable[str]) -> list[str]:
    """`normalise` of each text, in order; equal texts are worked out once."""
    seen: dict[str, str] = {}
    return [seen[text] if text in seen else seen.setdefault(text, normalise(text)) for text in texts]


def row_texts(titles: Iterable[str], summaries: Iterable[str | None] | None = None) -> list[str]:
    """The text of each headline, in order, by its columns in `READS`: the title, and its summary where it says more.

    Both are normalised. A summary is put behind the title as another sentence; one that begins with the
    title stands alone, one that only repeats it, or a part of it, is left out. A row without a summary
    (None, NaN or nothing visible) is its title.
    """
    plain = normalise_all(titles)
    if summaries is None:
        return plain
    more = normalise_all("" if not isinstance(each, str) else each for each in summaries)
    return [_join(title, summary) for title, summary in zip(plain, more, strict=True)]


def _join(title: str, summary: str) -> str:
    said, added = title.casefold().rstrip(_ENDS), summary.casefold().rstrip(_ENDS)
    if not added or f" {added} " in f" {said} ":
        return title
    if added.startswith(said) and not added[len(said) : len(said) + 1].isalnum():
        return summary
    return f"{title} {summary}" if title.endswith(tuple(_ENDS)) else f"{title}. {summary}"


def text_key(normalised: str) -> bytes:
    """16 bytes that stand for a normalised text: blake2b of its UTF-8."""
    return blake2b(normalised.encode(), digest_size=16).digest()


def text_keys(normalised: Sequence[str]) -> Keys:
    """`text_key` of each text as [N, 2] unsigned words, little-endian; [0, 2] for no texts."""
    return np.frombuffer(b"".join(map(text_key, normalised)), dtype="<u8").reshape(-1, 2)
