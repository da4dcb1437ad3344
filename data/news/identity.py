"""Which item an entry is: one id from fetch to fetch, and not one for two different items.

A feed's own id is believed together with the address it points to, because feeds reuse ids (and SEC
EDGAR gives a filing's issuer and reporter the same one). Where one document uses an id and address
for several titles, or gives no id, title and address stand in. Nothing is looked up in the lake: an
entry has the same id on every machine. Likeness of different items is `data/news/clusters.py`.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b
from urllib.parse import parse_qsl, urlencode, urlsplit

from data.news.parse import Entry
from data.text import normalise

# Query keys that say where a reader came from, not what is read.
_TRACKING = re.compile(
    r"^(utm_|wt[_.]|at_|mc_)|^(fbclid|gclid|dclid|msclkid|igshid|cmpid|ocid|ito|partner|siteid|yptr|soc_src|soc_trk)$"
)


def identify(source: str, entries: Sequence[Entry]) -> list[str]:
    """The id of each entry of one document of `source`, 24 hexadecimal digits; equal ids are one item."""
    places = [(entry.guid or "", address_key(entry.url)) for entry in entries]
    titles = [normalise(entry.title).casefold() for entry in entries]
    held: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for place, title in zip(places, titles, strict=True):
        held[place].add(title)
    return [
        _digest("guid", source, *place)
        if place[0] and len(held[place]) == 1
        else _digest("text", source, title, *place)
        for place, title in zip(places, titles, strict=True)
    ]


def address_key(url: str | None) -> str:
    """What an address points to, however it was written: no scheme, `www.` or tracking keys."""
    if url is None:
        return ""
    parts = urlsplit(url)
    query = [
        (key, value)
        for key, value in parse_qsl(parts.query, keep_blank_values=True)
        if not _TRACKING.search(key.lower())
    ]
    host = (parts.hostname or "").removeprefix("www.")
    anchor = "" if "=" in parts.fragment else parts.fragment
    return f"{host}{parts.path.rstrip('/')}?{urlencode(sorted(query))}#{anchor}"


def _digest(*parts: str) -> str:
    return blake2b("\x1f".join(parts).encode(), digest_size=12).hexdigest()
