"""Near-duplicates: the same news, re-sent or reworded within 72 hours, told apart from news that only looks alike.

Texts are taken in the order of (available_at, id). Each joins the cluster of an earlier text or opens its own, and
that is final: what comes later cannot change it. A cluster is a star, not a chain: every member was compared with
its first text, is a copy of that one, and came at most 72 hours after it, so a cluster cannot drift from story to
story or live for ever. A copy that comes later than that opens a cluster anew.

A copy says the same words (`data/news/wording.py`) as the first text, or lacks or adds one or two of them: never an
amount, a date or a direction, and never one word for another, since that is how company, number and verdict differ.
Where the words stand in another order, one stretch of them may have moved ("Acme shares rise after merger", "After
merger, shares of Acme rise"); two exchanged ("Acme sues Apex", "Apex sues Acme") is other news. A title that breaks
off with an ellipsis is a copy of one that goes on from there.

Candidates come from a join over all texts at once (`data/news/subsets.py`), in which a pair is there or not whatever
else is; only the walk in time decides. What this does not do: learn, weigh words, understand a paraphrase with a
verb that is in no table, or read languages other than English beyond exact copies and word order.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from data.news.subsets import find_subsets
from data.news.wording import AGAIN, Wording, word_titles

Ints = npt.NDArray[np.int64]

WINDOW = np.timedelta64(72, "h")
# First texts a word set, or the beginning of a title, keeps in view: the newest. It bounds the work for a text;
# more than this many at once, each with the same words, stand in different orders.
RECENT = 8
# First texts compared with one text at most, in all.
COMPARED = 24
# Words that must remain of a title that breaks off.
CUT_LEAVES = 4
# Words of a title above which no stretch of them is looked for elsewhere.
MOVED_UP_TO = 64


def cluster(
    titles: Sequence[str], available_at: npt.NDArray[np.datetime64], ids: Sequence[str] | npt.NDArray[Any]
) -> Ints:
    """For each text the position of its cluster's first text; its own where it opens one.

    `available_at` is UTC, `datetime64`; a text that never became available (NaT) stands alone. Texts of one instant
    are taken in the order of their ids, then titles. A text's answer depends on itself and those before it in that
    order, whatever the order of the input. No texts give an empty array.
    """
    stamps = np.asarray(available_at, dtype="datetime64[us]")
    first = np.arange(len(titles), dtype=np.int64)
    dated = np.flatnonzero(~np.isnat(stamps)).tolist()
    at, names = stamps.astype(np.int64).tolist(), np.asarray(ids).tolist()
    order = [i for *_, i in sorted((at[i], names[i], titles[i], i) for i in dated)]
    if order:
        walked = _walk(word_titles([titles[i] for i in order]), [at[i] for i in order])
        first[order] = np.array(order, dtype=np.int64)[walked]
    return first


def _walk(worded: list[Wording], at: list[int]) -> list[int]:
    """For each text, in the order of time, the first text of its cluster. `at` is in microseconds."""
    window = int(WINDOW.astype("timedelta64[us]").astype(np.int64))
    in_view: dict[int | str, deque[int]] = {}
    first = []
    for i, (wording, (asked, shown)) in enumerate(zip(worded, _keys(worded), strict=True)):
        views = [in_view[key] for key in asked if key in in_view]
        copied = (
            _copied(wording, worded, chain.from_iterable(map(reversed, views)), at, at[i] - window) if views else None
        )
        first.append(i if copied is None else copied)
        if copied is None:
            for key in shown:
                in_view.setdefault(key, deque(maxlen=RECENT)).append(i)
    return first


def _copied(wording: Wording, worded: list[Wording], found: Iterable[int], at: list[int], since: int) -> int | None:
    """The first text that `wording` is a copy of: of those found, the one most like it, and of these the oldest."""
    live = islice((text for text in found if at[text] >= since), COMPARED)
    copies = ((apart, text) for text in live if (apart := _apart(worded[text], wording)) is not None)
    return min(copies, default=(0, None))[1]


def _keys(worded: list[Wording]) -> Iterator[tuple[list[int | str], list[int | str]]]:
    """For each text the keys under which it looks for first texts, and those under which it is found if it is one.

    s: a text with the word set s. ~s: one that has more words than set s. A phrase: one that begins with it and
    goes on. A phrase and an ellipsis: one that breaks off there.
    """
    subsets = find_subsets([each.words for each in worded], [each.tail for each in worded])
    set_of, start, small = subsets.set_of.tolist(), subsets.start.tolist(), subsets.small.tolist()
    stubs = {_stub(wording) for wording in worded if _is_stub(wording)}
    short = {" ".join(stub.split(" ")[:CUT_LEAVES]) for stub in stubs}
    for own, wording in zip(set_of, worded, strict=True):
        smaller = small[start[own] : start[own + 1]]
        asked: list[int | str] = [own, ~own, *smaller]
        shown: list[int | str] = [own, *(~each for each in smaller)]
        if " ".join(wording.words[:CUT_LEAVES]) in short:
            begins = [phrase for phrase in accumulate(wording.words, "{} {}".format) if phrase in stubs]
            asked += [phrase + "…" for phrase in begins]
            shown += begins
        if _is_stub(wording):
            asked.append(_stub(wording))
            shown.append(_stub(wording) + "…")
        yield asked, shown


def _is_stub(wording: Wording) -> bool:
    return bool(wording.part) and len(wording.words) >= CUT_LEAVES


def _stub(wording: Wording) -> str:
    return " ".join(wording.words)


def _apart(one: Wording, other: Wording) -> int | None:
    """By how many words two titles differ; None where they are no copies."""
    short, long = (one, other) if len(one.words) <= len(other.words) else (other, one)
    apart = len(long.words) - len(short.words)
    if not (_goes_on(short, long) or (apart == 0 and long.part and _goes_on(long, short))):
        return None
    if long.words[: len(short.words)] == short.words:
        return apart
    kept = set(short.words)
    shared = [word for word in long.words if word in kept]
    same = len(shared) == len(kept) and (tuple(shared) == short.words or _moved(short, long, shared))
    return apart if same else None


def _goes_on(short: Wording, long: Wording) -> bool:
    """Whether the word at which `short` breaks off, if it does, is in `long`: whole, or as the beginning of one."""
    return not short.part or f" {short.part}" in f" {long.plain}"


def _moved(short: Wording, long: Wording, shared: list[str]) -> bool:
    """Whether the words are one but for a stretch that stands elsewhere. `shared` are short's, as long has them."""
    if len(shared) > MOVED_UP_TO or _origin(short.plain) != _origin(long.plain):
        return False  # "to Buy from Hold" and "to Hold from Buy" are one move apart
    before, after = ([word.partition(AGAIN)[0] for word in words] for words in (short.words, shared))
    same = next((i for i, (one, other) in enumerate(zip(before, after, strict=True)) if one != other), 0)
    alike = next((i for i, (one, other) in enumerate(zip(before[::-1], after[::-1], strict=True)) if one != other), 0)
    ends = {(start, end) for start in (0, same) for end in (len(before), len(before) - alike)}
    return any(_is_turned(before[start:end], after[start:end]) for start, end in ends)


def _is_turned(one: list[str], other: list[str]) -> bool:
    return any(word == other[0] and one[i:] + one[:i] == other for i, word in enumerate(one))


def _origin(plain: str) -> str:
    return plain.partition(" from ")[2].partition(" ")[0]
