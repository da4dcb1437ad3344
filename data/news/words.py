"""Words of English headlines: which carry nothing, which are one, which a copy must not lack. Fixed tables, no code.

They are read by `data/news/wording.py`. A line is one meaning, and its first word stands for all of them; a word's
inflected forms need no entry unless they are irregular. What is in no table stands for itself.
"""

# Words whose absence changes nothing.
EMPTY = """
a an the of to in on for at by from with as and or is are was were be been being has have had it its this that
these those than then will shall their his her our your he she they we you i there here about into over amid
after following per via vs versus do does did so such also just very now still yet already however while when
which who whose but if says say said saying tells told source sources reportedly according 's s t amp nyse
nasdaq amex otc nysearca inc corp corporation ltd llc plc co company group holdings sa ag nv lp due because
since under within among toward towards upon some any
"""

# Firm words: without one of them, or with one more, it is other news.
FIRM = """
up rise rose risen gain climb climbed jump surge soar rally rallied advance higher increase grow grew grown
up rocket spike leap hike raise lift boost
down fall fell fallen drop slip slide slid decline sink sank tumble plunge slump dip lower decrease shrink
down shrank plummet retreat ease cut reduce trim slash sag skid
beat top exceed surpass
miss lag
win won
lose lost
upgrade
downgrade
approve approval clear
reject rejected deny denies denied refuse rebuff
by_
not no never without cannot neither nor non dont wont cant isnt doesnt didnt wasnt
may might could
would should
before ahead until
halt suspend pause stop
fail failure
bullish
bearish
best
worst
more
less
above
below
january jan
february feb
march mar
april apr
june jun
july jul
august aug
september sep sept
october oct
november nov
december dec
monday mon
tuesday tue tues
wednesday wed
thursday thu thur thurs
friday fri
saturday
sunday
1 one
2 two
3 three
4 four
5 five
6 six
7 seven
8 eight
9 nine
10 ten
11 eleven
12 twelve
first
second
third
fourth
half
double
triple
million
billion
trillion
"""

SYNONYMS = """
buy bought acquire purchase
sell sold divest
announce report unveil reveal disclose post
launch introduce
begin began start commence initiate
end finish conclude complete
plan aim intend
see expect anticipate forecast project
seek want
consider weigh mull ponder
talk discussion negotiation
probe investigation investigate inquiry
chief boss head
executive exec
job position role
share stock
firm business
maker manufacturer producer
deal agreement accord pact
agree consent
sue lawsuit suit
warn caution
slow slowdown
fear concern worry worries
big large huge major key
biggest largest
show indicate suggest
get receive
hold held keep kept maintain
pay paid
quit resign
name appoint
ask urge press
face confront
help aid
result earnings profit
sales revenue
growth expansion
government administration
back support
est estimate
yr year
worker employee staff
shop store
plant factory
car auto automobile
poised set
pledge vow promise
delay postpone
scrap cancel axe
choose pick select
labor labour
center centre
program programme
defense defence
aluminum aluminium
british britain uk
american america us
german germany
french france
chinese china
"""

# What stands behind a last dash or bar and is no part of the title; sites need no entry.
PUBLISHERS = """
reuters|bloomberg|bloomberg news|wsj|wall street journal|cnbc|ft|financial times|guardian|ap|ap news
associated press|afp|dow jones|dow jones newswires|marketwatch|barron's|barrons|benzinga|yahoo finance|yahoo
nasdaq|zacks|seeking alpha|motley fool|forbes|fortune|insider|business insider|cnn|cnn business|bbc|bbc news|nyt
new york times|washington post|economist|thestreet|investopedia|techcrunch|verge|axios|politico|fox business
pr newswire|prnewswire|business wire|businesswire|globenewswire|globe newswire|marketscreener|streetinsider
investor's business daily|analyst blog|press release|press releases
"""
