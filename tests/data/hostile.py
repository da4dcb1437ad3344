"""Hostile and broken feed documents, made up here, each with the outcome it must have. No test in itself.

Text is cleaned and bounded, never escaped: a spreadsheet formula stays the text it is, and whoever
exports it escapes it. Stamps and reused guids are kept as written too: dates and identity judge them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from data.news.document import COMPRESSED, CUT, DECLARATION, EMPTY, HTML, NO_ENTRIES, NO_FEED, NO_TITLES
from data.news.parse import Limits

URL = "https://wire.example/news/feed.xml"
XML = '<?xml version="1.0" encoding="utf-8"?>'
GOOD = f"{XML}<rss version='2.0'><channel><item><title>Sound</title></item></channel></rss>".encode()


@dataclass(frozen=True)
class Case:
    """A document and what must come of it: how many entries, why not more, and fields of the first one."""

    name: str
    document: bytes
    entries: int = 0
    problem: str | None = None
    first: dict[str, str | None] = field(default_factory=dict)
    content_type: str | None = "application/rss+xml"


def item(title: str = "Fine", rest: str = "") -> str:
    return f"<item><title>{title}</title>{rest}</item>"


def rss(*items: str, prolog: str = XML) -> str:
    return f"{prolog}<rss version='2.0'><channel><title>Wire</title>{''.join(items)}</channel></rss>"


def refused(name: str, subset: str, encoding: str = "utf-8") -> Case:
    document = rss(item("&x;"), prolog=f"{XML}\n{subset}\n").encode(encoding)
    return Case(name, document, problem=DECLARATION)


def kept(name: str, document: str | bytes, title: str = "Fine", entries: int = 1, **first: str | None) -> Case:
    data = document if isinstance(document, bytes) else document.encode()
    return Case(name, data, entries, first={"title": title, **first})


def lost(name: str, document: str | bytes, problem: str) -> Case:
    return Case(name, document if isinstance(document, bytes) else document.encode(), problem=problem)


def cut(name: str, document: bytes) -> Case:
    return Case(f"cut {name}", document, 1, CUT, {"title": "One"})


def titled(name: str, markup: str, title: str) -> Case:
    return kept(name, rss(item(markup)), title)


def linked(name: str, link: str, url: str | None, attribute: str = "") -> Case:
    document = rss(item(rest=f"<link>{link}</link>")).replace("<rss ", f"<rss {attribute} ")
    return kept(name, document, url=url)


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
LAUGH = f'<!DOCTYPE rss [<!ENTITY l0 "lol">{LAUGHS}<!ENTITY x "&l9;">]>'
ENTITY = '<!DOCTYPE rss [<!ENTITY x "boom">]>'
NETSCAPE = (
    '<!DOCTYPE rss PUBLIC "-//Netscape Communications//DTD RSS 0.91//EN" '
    '"http://my.netscape.com/publish/formats/rss-0.91.dtd">'
)
XHTML = '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd">'


def declarations() -> Iterator[Case]:
    """DOCTYPE and ENTITY declarations in every disguise, and the harmless ones."""
    yield refused("XXE by file", '<!DOCTYPE rss [<!ENTITY x SYSTEM "file:///etc/passwd">]>')
    yield refused("XXE by http", '<!DOCTYPE rss [<!ENTITY x SYSTEM "http://127.0.0.1/secret">]>')
    yield refused("XXE by parameter entity", '<!DOCTYPE rss [<!ENTITY % p SYSTEM "http://127.0.0.1/x.dtd"> %p;]>')
    yield refused("external DTD", '<!DOCTYPE rss SYSTEM "http://127.0.0.1/x.dtd">')
    yield refused("external DTD under a public name", '<!DOCTYPE rss PUBLIC "-//X//Y" "file:///etc/passwd">')
    yield refused("billion laughs", LAUGH)
    yield refused("quadratic blow-up", f'<!DOCTYPE rss [<!ENTITY x "{"a" * 100_000}">]>')
    yield refused("entity that holds itself", '<!DOCTYPE rss [<!ENTITY x "&y;"><!ENTITY y "&x;">]>')
    yield refused("attribute defaults", f'<!DOCTYPE rss [<!ATTLIST item a CDATA "{"a" * 9_000}">]>')
    yield refused("lower case", '<!doctype rss [<!entity x "boom">]>')
    yield refused("subset of the HTML DOCTYPE", '<!DOCTYPE html [<!ENTITY x "boom">]>')
    yield refused("subset of the RSS 0.91 DOCTYPE", NETSCAPE.replace('dtd">', 'dtd" [<!ENTITY x "boom">]>'))
    yield refused("second DOCTYPE", f"<!DOCTYPE rss>{ENTITY}")
    yield refused("ENTITY without a DOCTYPE", '<!ENTITY x "boom">')
    yield refused("after a long comment", f"<!-- {'<rss> ' * 200_000} -->{ENTITY}")
    yield refused("after stray text", f"Warning: line 1 -- {ENTITY}")
    yield refused("unfinished", "<!DOCTYPE rss [<!ENTITY x '" + "a" * 1000)
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig"):
        yield refused(f"in {encoding}", ENTITY, encoding)
    zeros = rss(item("&x;"), prolog=ENTITY.replace("DOC", "DOC\0").replace("ENT", "\0ENT"))
    yield lost("with zero bytes inside", zeros, DECLARATION)
    utf7 = rss(item("&x;"), prolog=f"{XML.replace('utf-8', 'utf-7')}{ENTITY}").replace("<!", "+ADwAIQ-")
    yield lost("in UTF-7", utf7, "encoding utf-7 is not read")
    yield lost("in EBCDIC", rss(item("&x;"), prolog=XML + ENTITY).encode("cp037"), "encoding EBCDIC is not read")
    yield lost("in a codec that is none", XML.replace("utf-8", "rot13"), "encoding rot13 is not read")
    yield kept("HTML 5 DOCTYPE before a feed", rss(item(), prolog="<!DOCTYPE html>"))
    yield kept("XHTML DOCTYPE before a feed", rss(item(), prolog=XHTML))
    yield kept("RSS 0.91 DOCTYPE", rss(item(), prolog=XML + NETSCAPE))
    yield kept("DOCTYPE without an identifier", rss(item(), prolog="<!DOCTYPE rss>"))
    commented = f'<!--\n<!ENTITY x "boom">\n-->\n{XML}<!DOCTYPE rss>'
    yield kept("entity in a comment is not defined", rss(item("a &x; b"), prolog=commented), "a &x; b")
    inside = rss(item("a &x; b")).replace("<channel>", f"<channel>\n{ENTITY}\n")
    yield kept("DOCTYPE within the root is inert", inside, "a &x; b")
    yield titled("DOCTYPE in a title", '<![CDATA[About <!DOCTYPE rss (<!ENTITY x "boom">)>]]>', "About")
    include = '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/passwd" parse="text"/>'
    yield titled("XInclude is inert", f"a{include}", "a")
    yield kept("style sheet is not fetched", rss(item(), prolog='<?xml-stylesheet href="http://127.0.0.1/?>"?>'))


def truncations() -> Iterator[Case]:
    """Documents that end too early, or are no feed."""
    two = rss(item("One"), item("Zürich", "<guid>2</guid>"))
    utf8, until = two.encode(), partial(two.index)
    yield cut("before the second title", two[: until("<title>Z")].encode())
    yield cut("within a tag", two[: until("<title>Z") + 4].encode())
    yield cut("within a title", two[: until("rich")].encode())
    yield cut("after a title", two[: until("<guid>")].encode())
    yield cut("within a guid", two[: until("2</guid>") + 1].encode())
    yield cut("within CDATA", two.replace("Zürich", "<![CDATA[Zürich").encode()[:-60])
    yield cut("within a reference", two[: until("rich")].encode() + b"&#12")
    yield cut("within a character", utf8[: utf8.index("ü".encode()) + 1])
    yield cut("within a UTF-16 unit", two[: until("rich")].encode("utf-16")[:-1])
    yield kept("cut after the second item", two[: until("</channel>")], "One", 2)
    yield lost("nothing", b"", EMPTY)
    yield lost("white space", b" \r\n\t ", EMPTY)
    yield lost("only a byte order mark", b"\xef\xbb\xbf", EMPTY)
    yield lost("only zeros", bytes(100_000), EMPTY)
    yield lost("one bracket", b"<", NO_FEED)
    yield lost("only a declaration", XML, NO_FEED)
    yield lost("comment without an end", f"{XML}<!-- {rss(item())}", NO_FEED)
    yield lost("HTML page", "<!DOCTYPE html><html><body><h1>Not found</h1></body></html>", HTML)
    yield lost("HTML page without a root", "\n<head><title>Moved</title></head>", HTML)
    yield lost("JSON", '{"items": [{"title": "<b>Fine</b>"}]}', NO_FEED)
    yield lost("a path", b"/etc/passwd", NO_FEED)
    yield lost("an address", b"http://127.0.0.1:9/feed.xml", NO_FEED)
    yield lost("gzip", b"\x1f\x8b\x08\0" + bytes(100), COMPRESSED)
    yield lost("a pickle", b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x02os\x8c\x06system\x93.", NO_FEED)
    yield lost("bytes of every kind", bytes(range(256)) * 400, NO_FEED)
    yield lost("feed without an item", rss(), NO_ENTRIES)
    yield lost("items without a title", rss(item(""), item("<![CDATA[ <br/> ]]>")), NO_TITLES)


def characters() -> Iterator[Case]:
    """Characters that break parsers or deceive readers."""
    yield titled("zero bytes and controls", "a\0b\x01c\x08d\x0be\x7ff", "abcdef")
    yield titled("control references", "a&#0;b&#1;c&#x1B;d", "abcd")
    yield titled("lone surrogates", "a&#xD800;b&#xDFFF;c&#55296;d", "abcd")
    yield titled("lone surrogates, escaped twice", "a&amp;#xD800;b&amp;#55296;c", "abc")
    yield titled("references beyond Unicode", "a&#x110000;b&#99999999999999999999;c&#xFFFFFFFFFF;d", "abcd")
    yield titled("reference of 10,000 digits", f"a&#{'9' * 10_000};b&#{'0' * 10_000}65;", "abA")
    yield titled("non-characters", "a&#xFFFE;b\uffffc", "abc")
    surrogates = rss(item("aSb")).encode().replace(b"aSb", b"a\xed\xa0\x80b")
    yield Case("surrogates in UTF-8", surrogates, 1)
    overlong = rss(item("aSb")).encode().replace(b"aSb", b"a\xc0\xbcscript\xc0\xbeb")
    yield Case("overlong UTF-8", overlong, 1)
    yield titled("bidi overrides", "\u202eelppA\u202c \u2066beats\u2069", "elppA beats")
    yield titled("zero-width and soft hyphen", "Ap\u200bp\u00adle\ufeff", "Apple")
    yield titled("tag characters", "Apple\U000e0041\U000e007f", "Apple")
    yield titled("ANSI escape", "\x1b[31mred&#27;[0m", "[31mred[0m")
    yield titled("line and page breaks", "a\r\n\tb\u2028c\u3000d", "a b c d")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig"):
        yield kept(f"sound feed in {encoding}", rss(item("Zürich")).encode(encoding), "Zürich")
    declared = partial(str.replace, XML, "utf-8")
    latin = rss(item("Zürich"), prolog=declared("iso-8859-1"))
    yield kept("declared and in Latin 1", latin.encode("latin-1"), "Zürich")
    yield kept("declared as Latin 1, in UTF-8", latin, "Zürich")
    yield kept("declared as UTF-8, in Latin 1", rss(item("Zürich")).encode("latin-1"), "Zürich")
    yield kept("declared as UTF-16, in UTF-8", rss(item("Zürich"), prolog=declared("utf-16")), "Zürich")
    yield kept("declared as nonsense", rss(item("Zürich"), prolog=declared("no-such")), "Zürich")
    header = partial(Case, entries=1, first={"title": "Новость"})
    cyrillic = rss(item("Новость"), prolog="")
    koi, windows = "text/xml; charset=koi8-r", "text/xml; charset=windows-1251"
    yield header("charset of the header alone", cyrillic.encode("koi8-r"), content_type=koi)
    yield header("wrong charset in the header, UTF-8", cyrillic.encode(), content_type=koi)
    own = (declared("koi8-r") + cyrillic).encode("koi8-r")
    yield header("own declaration before the header's", own, content_type=windows)
    yield header("unread charset in the header", cyrillic.encode(), content_type="text/xml; charset=utf-7")
    broken = rss(item("Zürich é è à", "<x>S</x>")).encode().replace(b"S", b"\x92")
    yield kept("a few bytes that are not UTF-8", broken, "Zürich é è à")


def sizes() -> Iterator[Case]:
    """Too much of something, within the limits."""
    yield titled("title of 2 MB", "word " * 400_000, ("word " * 200).strip())
    yield lost("title of 500 kB of tags", rss(item("&lt;b>" * 80_000 + "end")), NO_TITLES)
    yield titled("title of 1 MB of brackets", "&lt;" * 250_000, "<" * 1000)
    yield titled("escapes within escapes, 500 deep", f"a &{'amp;' * 500}lt;b> c", "a c")
    yield titled("tags within tags, 500 deep", "a " + "&lt;b" * 500 + ">" * 500 + " c", f"a {'b' * 484} {'>' * 484} c")
    yield titled("scripts without an end", "a " + "&lt;script>" * 100_000, "a")
    yield titled("comments without an end", "a " + "&lt;!--" * 100_000, "a")
    same = [item("Same", "<guid>1</guid>")] * 10_000
    yield Case("10,000 duplicates", rss(*same).encode(), 2000, "more than 2000 entries", {"guid": "1"})
    deep = "<a>" * 10_000 + "</a>" * 10_000
    yield kept("10,000 deep", rss(item(), deep))
    yield kept("10,000 deep within an item", rss(item(rest=deep)))
    nested = rss("<item><title>Fine</title>" * 3_000).encode()
    yield Case("items 3,000 deep", nested, 2000, "more than 2000 entries")
    yield kept("attribute of 2 MB", rss(item(rest=f"<a b='{'c' * 2_000_000}'/>")))
    yield kept("name of 1 MB", rss(item(rest=f"<{'a' * 1_000_000}/>")))
    yield kept("comment of 2 MB", rss(item(rest=f"<!--{'- ' * 1_000_000}-->")))
    yield kept("guid of 1 MB", rss(item(rest=f"<guid>{'g' * 1_000_000}</guid>")), guid=None)
    yield linked("link of 1 MB", f"https://a.example/{'b' * 1_000_000}", None)
    yield kept(
        "summary of 1 MB", rss(item(rest=f"<description>{'ab ' * 350_000}</description>")), summary="ab " * 666 + "ab"
    )
    yield kept(
        "stamp of 1 MB", rss(item(rest=f"<pubDate>{'1 ' * 500_000}</pubDate>")), published_raw=("1 " * 50).strip()
    )


def contents() -> Iterator[Case]:
    """Markup, addresses and stamps that would harm whoever believed them."""
    yield titled("script", "a<![CDATA[<script>alert(1)</script>]]>b", "a b")
    yield titled("script, escaped", "a &lt;script&gt;alert(1)&lt;/script&gt; b", "a b")
    yield titled("script, escaped twice", "a &amp;lt;script&amp;gt;alert(1)&amp;lt;/script&amp;gt; b", "a b")
    yield titled("script, escaped thrice and unfinished", "a &amp;amp;lt;script", "a")
    yield titled("script, by number", "a &#38;#60;script&#38;#x3e;alert(1)", "a")
    yield titled("script, split by a tag", "a &lt;scr&lt;b&gt;ipt&gt;alert(1)&lt;/script&gt; b", "a alert(1) b")
    yield titled("script, split by a zero-width space", "a &lt;scr\u200bipt&gt;alert(1)&lt;/script&gt; b", "a b")
    yield titled("image that runs", "a &lt;img src=x onerror=alert(1)&gt; b", "a b")
    yield titled("image that runs, unfinished", "a &lt;img src=x onerror=alert(1)//", "a")
    yield titled("style", "a &lt;style&gt;*{display:none}&lt;/style&gt; b", "a b")
    yield titled("SVG", "a &lt;svg/onload=alert(1)&gt; b", "a b")
    yield titled(
        "formula is text",
        "=HYPERLINK(&quot;http://127.0.0.1/&quot;,&quot;Open&quot;)",
        '=HYPERLINK("http://127.0.0.1/","Open")',
    )
    yield titled("formula with a command", "@SUM(1+1)*cmd|' /C calc'!A0", "@SUM(1+1)*cmd|' /C calc'!A0")
    yield titled("template", "{{7*7}} ${7*7} %s %(x)s", "{{7*7}} ${7*7} %s %(x)s")
    yield titled("SQL", "'; DROP TABLE headlines; --", "'; DROP TABLE headlines; --")
    yield titled("comparisons are text", "AT&amp;T &lt; 5 &gt; 3 &amp; B&lt;C", "AT&T < 5 > 3 & B<C")
    atom = f"{XML}<feed xmlns='http://www.w3.org/2005/Atom'><entry>{{}}</entry></feed>"
    xhtml = '<div xmlns="http://www.w3.org/1999/xhtml">a <b>AT&amp;T</b> <script>x</script>b</div>'
    yield kept("XHTML title", atom.format(f'<title type="xhtml">{xhtml}</title>'), "a AT&T b")
    yield kept("HTML title", atom.format('<title type="html">a &lt;b&gt;AT&amp;amp;T&lt;/b&gt;</title>'), "a AT&T")
    yield linked("address with JavaScript", "javascript:alert(1)", None)
    yield linked("address with JavaScript, split", "java&#10;script:alert(1)", None)
    yield linked("address with data", "data:text/html,&lt;script>alert(1)&lt;/script>", None)
    yield linked("address of a file", "file:///etc/passwd", None)
    yield linked("address with a password", "https://www.apple.com:x@evil.example/", None)
    yield linked("address with a backslash", "https://evil.example\\@www.apple.com/", None)
    yield linked("address without a host", "https://:80/path", None)
    yield linked("address with a port that cannot be", "https://a.example:99999/", None)
    yield linked("address with a broken bracket", "https://[::1/", None)
    yield linked("address with quotes", 'https://a.example/"&gt;&lt;script>', "https://a.example/%22%3E%3Cscript%3E")
    yield linked("address over two lines", "\n https://a.example/b\n  /c \n", "https://a.example/b/c")
    yield linked("address, relative", "/b?c=1&amp;d=2", "https://wire.example/b?c=1&d=2")
    yield linked("address, relative to its base", "b", "https://a.example/x/b", "xml:base='https://a.example/x/'")
    yield linked("address, relative to a hostile base", "b", None, "xml:base='file:///etc/'")
    yield kept("guid that is no address", rss(item(rest="<guid>123</guid>")), guid="123", url=None)
    future = "<pubDate>Fri, 01 Jan 2999 00:00:00 GMT</pubDate>"
    yield kept("stamp in the future", rss(item(rest=future)), published_raw="Fri, 01 Jan 2999 00:00:00 GMT")
    back = "<pubDate>Mon, 01 Jan 1900 00:00:00 GMT</pubDate>"
    yield kept("stamp in the past", rss(item(rest=back)), published_raw="Mon, 01 Jan 1900 00:00:00 GMT")
    odd = "<pubDate>&lt;b&gt;2024-02-30\u202e T25:61 \n EST</pubDate>"
    yield kept("stamp that cannot be", rss(item(rest=odd)), published_raw="<b>2024-02-30 T25:61 EST")
    edited = "<published>2024-01-02T00:00:00Z</published><updated>2024-01-03T00:00:00Z</updated>"
    yield kept(
        "edit after publication", atom.format(f"<title>Fine</title>{edited}"), published_raw="2024-01-02T00:00:00Z"
    )
    created = "<created>2020-01-01T00:00:00Z</created><modified>2024-01-03T00:00:00Z</modified>"
    yield kept(
        "creation is not publication",
        atom.format(f"<title>Fine</title>{created}"),
        published_raw="2024-01-03T00:00:00Z",
    )
    reused = rss(item("One", "<guid>1</guid>"), item("Two", "<guid>1</guid>"))
    yield kept("guid used again", reused, "One", 2, guid="1")
    yield kept("elements named after the parser's own", rss(item(rest="<links>x</links><link>/a</link>")), entries=1)
    names = "".join(
        f"<{name}>x</{name}><{name} a='b'/>"
        for name in ("keys", "get", "__class__", "__init__", "entries", "guidislink")
    )
    yield kept("elements named after Python's own", rss(names, item(rest=names)))
    yield kept("undeclared prefix", rss(item(rest="<no:such>x</no:such>")))
    yield kept("unescaped ampersands", rss(item("AT&T, R&D", "<link>https://a.example/?b=1&c=2</link>")), "AT&T, R&D")
    yield kept("tags that cross", rss(item(rest="<a><b></a></b>")))
    yield kept("feed within an HTML page", f"<html><body>{rss(item(), prolog='')}</body></html>")


def costly() -> Iterator[tuple[Limits, Case]]:
    """What takes feedparser hours or gigabytes, with limits that show it soon."""
    author = rss(item(rest=f"<author>{'a' * 1_000_000}</author>"))  # its pattern for e-mail addresses is quadratic
    attributes = " ".join(f"a{number}=''" for number in range(100_000))
    summary = rss(item(rest=f"<description>{'ab ' * 5_000_000}</description>"))
    cpu = Limits(cpu_seconds=0.5, wall_seconds=60)
    yield cpu, lost("author, by CPU", author, "took more than 0.5 s CPU")
    yield cpu, lost("100,000 attributes", rss(item(rest=f"<a {attributes}/>")), "took more than 0.5 s CPU")
    yield Limits(wall_seconds=1), lost("author, by the clock", author, "took more than 1 s")
    yield Limits(memory_mib=64), lost("summary of 15 MB", summary, "needed more than 64 MiB")


def cases() -> list[Case]:
    """All that a pool with the default limits must cope with."""
    return [*declarations(), *truncations(), *characters(), *sizes(), *contents()]
