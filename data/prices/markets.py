"""Which exchange's calendar a ticker follows, by its suffix as Yahoo writes it."""

from collections.abc import Mapping

# Yahoo's suffixes. exchange_calendars lacks XNSE: data/calendar.py gives XBOM for it, whose sessions are the same.
SUFFIXES: dict[str, str] = {
    "-USD": "24/7",
    "=X": "24/5",
    "=F": "CMES",
    ".AS": "XAMS",
    ".AX": "XASX",
    ".BK": "XBKK",
    ".BO": "XBOM",
    ".BR": "XBRU",
    ".CO": "XCSE",
    ".DE": "XETR",
    ".F": "XFRA",
    ".HE": "XHEL",
    ".HK": "XHKG",
    ".IR": "XDUB",
    ".IS": "XIST",
    ".JK": "XIDX",
    ".JO": "XJSE",
    ".KL": "XKLS",
    ".KQ": "XKRX",
    ".KS": "XKRX",
    ".L": "XLON",
    ".LS": "XLIS",
    ".MC": "XMAD",
    ".MI": "XMIL",
    ".MX": "XMEX",
    ".NS": "XNSE",
    ".NZ": "XNZE",
    ".OL": "XOSL",
    ".PA": "XPAR",
    ".PR": "XPRA",
    ".SA": "BVMF",
    ".SI": "XSES",
    ".SN": "XSGO",
    ".SS": "XSHG",
    ".ST": "XSTO",
    ".SW": "XSWX",
    ".SZ": "XSHG",
    ".T": "XTKS",
    ".TA": "XTAE",
    ".TO": "XTSE",
    ".TW": "XTAI",
    ".V": "XTSX",
    ".VI": "XWBO",
    ".WA": "XWAR",
}


def calendar_of(ticker: str, own: Mapping[str, str], default: str) -> str:
    """The exchange_calendars code of `ticker`: its own entry in `own`, else that of its longest suffix, else `default`.

    `own` maps tickers or suffixes to codes and goes before `SUFFIXES`.
    """
    if ticker in own:
        return own[ticker]
    for known in (own, SUFFIXES):
        endings = [suffix for suffix in known if suffix[:1] in ".-=" and ticker.endswith(suffix)]
        if endings:
            return known[max(endings, key=len)]
    return default
