"""Near-duplicates among real headlines: quality on planted copies and look-alikes, and time, against datasketch.

Planted into real headlines (`benchmarks/rewordings.py`), each within 72 hours of its original: copies, which are to
be found, and look-alikes (another number, company, direction, day, a `not`), which are not. The peer is datasketch's
MinHash LSH over shingles; its shingles and threshold are the best by F1 on the planted texts of the titles whose
hash is even, and what is reported for both is those of the other half, among all titles. Run:

    python benchmarks/clusters.py [news_headlines.parquet]
"""

import sys
import time
from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from datasketch import MinHash, MinHashLSH
from rewordings import COPIES, OTHERS, Draw, plant

from data.news.clusters import WINDOW, cluster

HEADLINES = Path(__file__).parents[2] / "shared" / "market" / "news_headlines.parquet"
ROUNDS = 3
PLANTED = 2_000  # of each kind, in each half
BACKGROUND = 10_000  # other titles while the peer's threshold is chosen
SHINGLES = ("word 1", "word 2", "char 4")
THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Case:
    """`texts` has title, at, half (0 or 1), and for a planted one its kind, its rule and the row of its original."""

    texts: pd.DataFrame

    def score(self, links: set[tuple[int, int]], half: int) -> tuple[float, float, Counter[str]]:
        """Recall of copies, precision among the planted, and how many of each rule were linked."""
        planted = self.texts[(self.texts["half"] == half) & (self.texts["original"] >= 0)]
        linked = planted[[(row, original) in links for row, original in planted["original"].items()]]
        right = int((linked["kind"] == "copy").sum())
        rules = Counter((linked["kind"] + ": " + linked["rule"]).tolist())
        return right / int((planted["kind"] == "copy").sum()), right / max(1, len(linked)), rules


def build(path: Path) -> Case:
    headlines = pd.read_parquet(path, columns=["title", "published_at"])
    at = headlines["published_at"].dt.tz_convert("UTC").dt.tz_localize(None).astype("datetime64[us]")
    real = pd.DataFrame({"title": headlines["title"], "at": at, "kind": "real", "rule": "", "original": -1})
    real["half"] = [blake2b(title.encode(), digest_size=1).digest()[0] % 2 for title in real["title"]]
    rows = []
    single = real[~real["title"].duplicated(keep=False) & (real["title"].str.split().str.len() >= 6)]
    for half in (0, 1):
        rng = Draw(half)
        titles = single[single["half"] == half]["title"].sample(frac=1, random_state=half)
        unused = cycle(titles.items())
        for kind, rules, again in (("copy", COPIES, 0.3), ("look-alike", OTHERS, 0.0)):
            for row, rule, title in islice(plant(unused, rules, rng, again), PLANTED):
                later = np.timedelta64(rng.randrange(60, 71 * 3600), "s")
                rows.append((title, real["at"][row] + later, kind, rule, row, half))
    planted = pd.DataFrame(rows, columns=["title", "at", "kind", "rule", "original", "half"])
    return Case(pd.concat([real, planted], ignore_index=True))


def ours(texts: pd.DataFrame) -> npt.NDArray[np.int64]:
    return cluster(texts["title"].tolist(), texts["at"].to_numpy(), texts.index.to_numpy())


def shingle(title: str, kind: str) -> list[bytes]:
    unit, width = kind.split()
    parts = title.lower().split() if unit == "word" else title.lower()
    glue = " " if unit == "word" else ""
    size = int(width)
    return [glue.join(parts[i : i + size]).encode() for i in range(max(1, len(parts) - size + 1))]


def hashes(texts: pd.DataFrame, kind: str) -> list[MinHash]:
    return MinHash.bulk([shingle(title, kind) for title in texts["title"]], num_perm=128)


def theirs(texts: pd.DataFrame, made: list[MinHash], threshold: float) -> set[tuple[int, int]]:
    """Links of each text to earlier ones of the last 72 hours: all that the index answers with."""
    index = MinHashLSH(threshold=threshold, num_perm=128)
    at = dict(zip(texts.index.tolist(), texts["at"].to_numpy(), strict=True))
    links = set()
    for row, one in sorted(zip(texts.index.tolist(), made, strict=True), key=lambda each: (at[each[0]], each[0])):
        links |= {(row, other) for other in index.query(one) if at[row] - at[other] <= WINDOW}
        index.insert(row, one)
    return links


def best(case: Case) -> tuple[str, float]:
    """The peer's best shingles and threshold on the even half."""
    texts = case.texts
    planted = texts[(texts["original"] >= 0) & (texts["half"] == 0)]
    background = texts[texts["original"] < 0].sample(BACKGROUND, random_state=0).index
    sample = texts.loc[sorted({*planted.index, *planted["original"], *background})]
    scores = {}
    for kind in SHINGLES:
        made = hashes(sample, kind)
        for threshold in THRESHOLDS:
            recall, precision, _ = case.score(theirs(sample, made, threshold), 0)
            scores[kind, threshold] = 2 * recall * precision / max(1e-9, recall + precision)
            print(f"datasketch, {kind} {threshold}: recall {recall:.3f}, precision {precision:.3f} on the even half")
    return max(scores, key=lambda each: scores[each])


def joined(case: Case, first: npt.NDArray[np.int64]) -> set[tuple[int, int]]:
    """Clusters as links: of each text to its first one, and of a planted text to its original in the same cluster."""
    links = {(row, int(other)) for row, other in enumerate(first) if row != other}
    planted = case.texts["original"][case.texts["original"] >= 0]
    return links | {(row, original) for row, original in planted.items() if first[row] == first[original]}


def report(name: str, case: Case, links: set[tuple[int, int]], half: int) -> Counter[str]:
    recall, precision, rules = case.score(links, half)
    real = set(case.texts.index[case.texts["kind"] == "real"])
    among = len({row for row, other in links if row in real and other in real})
    where = f"{('even', 'odd')[half]} half; {among} real titles linked to real ones"
    print(f"{name}: recall {recall:.3f}, precision {precision:.3f} on the {where}")
    return rules


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HEADLINES
    if not path.is_file():
        sys.exit(f"{path}: expected a Parquet file of real headlines (title, published_at), found none. Give its path.")
    case = build(path)
    report("ours", case, joined(case, ours(case.texts)), 0)
    kind, threshold = best(case)
    fast, slow = [], []
    for _ in range(ROUNDS):
        begun = time.process_time()
        first = ours(case.texts)
        between = time.process_time()
        links = theirs(case.texts, hashes(case.texts, kind), threshold)
        fast.append(between - begun)
        slow.append(time.process_time() - between)
        print(f"ours {fast[-1]:.2f} s, datasketch {slow[-1]:.1f} s, ratio {slow[-1] / fast[-1]:.1f}")
    each = min(fast) / len(case.texts) * 100_000
    print(
        f"{len(case.texts)} titles, CPU time, least of {ROUNDS}: {min(slow) / min(fast):.1f}x; {each:.2f} s for 100,000"
    )
    mine = report("ours", case, joined(case, first), 1)
    peer = report(f"datasketch, {kind} {threshold}", case, links, 1)
    half = case.texts[(case.texts["half"] == 1) & (case.texts["original"] >= 0)]
    print("share linked: for copies high is right, for look-alikes low")
    print(f"{'rule':32}{'planted':>8}{'ours':>8}{'theirs':>8}")
    for rule, count in sorted((half["kind"] + ": " + half["rule"]).value_counts().items()):
        print(f"{rule:32}{count:8}{mine[rule] / count:8.3f}{peer[rule] / count:8.3f}")


if __name__ == "__main__":
    main()
