"""The vocabulary of the simulated wire: names, things, places, distractors, reactions. Text only, no logic.

Every company, product and person is made up.
"""

STEMS = (
    "Iron", "Blue", "North", "Silver", "Stone", "River", "Oak", "Cedar", "Falcon", "Copper", "West", "High", "Green",
    "Lake", "Maple", "Salt", "Fox", "Harbor", "Amber", "Raven", "Birch", "Cross", "Glen", "Moor", "Pine", "Kings",
)  # fmt: skip
ENDINGS = (
    "gate", "field", "wood", "bridge", "ford", "ton", "land", "port", "well", "dale", "mont", "ridge", "side", "mark",
    "stead", "haven", "ley", "worth", "brook", "vale",
)  # fmt: skip
SURNAMES = (
    "Hale", "Okafor", "Brandt", "Lindqvist", "Moreau", "Tanaka", "Petrov", "Castellan", "Whitlock", "Dasgupta",
    "Oyelaran", "Ferrant", "Kowalski", "Nakamura", "Svensson", "Marchetti",
)  # fmt: skip
FIRST_NAMES = ("Anna", "David", "Priya", "Marcus", "Elena", "Tom", "Grace", "Hiro", "Lena", "Omar", "Ruth", "Victor")

# sector -> (what such a company calls itself, what it is called, what it sells)
SECTORS: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "technology": (
        ("Systems", "Software", "Semiconductor", "Networks", "Data"),
        "chip and software group",
        ("cloud platform", "AI accelerator", "sensor chip", "security suite", "storage array", "payments app"),
    ),
    "health": (
        ("Therapeutics", "Biosciences", "Medical", "Pharma", "Diagnostics"),
        "drugmaker",
        ("asthma drug", "heart valve", "insulin pump", "cancer therapy", "blood test", "vaccine"),
    ),
    "energy": (
        ("Energy", "Petroleum", "Power", "Resources", "Renewables"),
        "energy producer",
        ("offshore wind farm", "gas pipeline", "shale field", "battery park", "solar plant", "refinery"),
    ),
    "financials": (
        ("Bancorp", "Financial", "Insurance", "Capital", "Trust"),
        "lender",
        ("mortgage unit", "card business", "wealth arm", "motor insurance line", "small-business lending unit"),
    ),
    "consumer": (
        ("Foods", "Brands", "Stores", "Apparel", "Beverages"),
        "consumer group",
        ("snack range", "running shoe", "loyalty scheme", "coffee line", "discount chain", "cosmetics label"),
    ),
    "industrials": (
        ("Industries", "Logistics", "Aerospace", "Motors", "Engineering"),
        "manufacturer",
        ("electric truck", "jet engine part", "freight network", "robot arm", "rail signal system", "turbine"),
    ),
}
FORMS = ("Inc", "Corp", "Group", "Holdings", "plc", "Co")

REGIONS = ("Europe", "Asia", "North America", "Brazil", "India", "Germany", "Japan", "Texas", "the Nordics", "Mexico")
AGENCIES = ("the federal regulator", "the safety agency", "the competition authority", "the licensing board")
COURTS = ("a Delaware court", "a federal jury", "the appeals court", "a London tribunal")
BANKS = ("Harrow Street", "Pinnock Securities", "Delmere", "Northgate Research", "Calloway", "Bexhill & Sons")
RIVALS = ("Omnivar", "Trident Works", "Halcyon Partners", "Greywater", "Polaris United", "Sunderby")
SOURCES = ("Wirelight", "MarketPost", "The Ledger", "Newsbridge", "Tape Daily", "Capital Bulletin")

# adverb, adjective, by strength: mild, clear, strong
ADVERBS = (("slightly", "modestly", "a little"), ("clearly", "solidly", "markedly"), ("sharply", "massively", "hugely"))
ADJECTIVES = (("modest", "small", "minor"), ("sizeable", "solid", "notable"), ("huge", "dramatic", "massive"))

# A small encoder barely tells "beats" from "misses", so most headlines also say in plain words what to think of it.
# Openers by strength: mild, clear, strong; a tail says the strength in its own slots.
OPENERS_UP = (
    ("Positive", "Good news", "Mildly positive"),
    ("Very positive", "Very good news", "Clearly positive"),
    ("Hugely positive", "Excellent news", "Extremely positive"),
)
OPENERS_DOWN = (
    ("Negative", "Bad news", "Mildly negative"),
    ("Very negative", "Very bad news", "Clearly negative"),
    ("Hugely negative", "Terrible news", "Extremely negative"),
)
TAILS_UP = (
    "{adj} good news for shareholders", "{adj} good news for holders", "a {adj} positive for the stock",
    "{adv} positive for the outlook", "a {adj} success, good for profit", "{adv} positive for investors",
    "a {adj} boost, good for the shares", "a {adj} good surprise",
)  # fmt: skip
TAILS_DOWN = (
    "{adj} bad news for shareholders", "{adj} bad news for holders", "a {adj} negative for the stock",
    "{adv} negative for the outlook", "a {adj} failure, bad for profit", "{adv} negative for investors",
    "a {adj} blow, bad for the shares", "a {adj} bad surprise",
)  # fmt: skip

DISTRACTORS = (
    "{c} to present at the {bank} investor conference in {region}",
    "{c} to host its annual meeting on the {day}th",
    "Five things to know about {c} and its {product}",
    "{c} sets date for {quarter} report",
    "A look inside the {c} office in {region}",
    "{bank} keeps its neutral rating on {c}",
    "{bank} reiterates hold on {c}, target unchanged at ${n}",
    "{c} updates packaging of its {product}",
    "{person} of {c} speaks on panel about the future of {region}",
    "{c} publishes its sustainability report for {year}",
    "How the {product} from {c} is made",
    "{c} renames its {region} division",
    "Options activity in {c}: {n} contracts traded",
    "{c} mentioned in {bank} survey of {n} companies",
    "{c} moves its headquarters staff to a new building",
    "Interview: {person} on two decades at {c}",
)
DISTRACTORS_LATER = (
    "What is on the calendar for {c} this month",
    "{c} joins an industry body in {region}",
    "Podcast: {person} talks about life at {c}",
)
PAIR_DISTRACTORS = (
    "{c} and {other} among names at the {bank} conference",
    "{bank} compares {c} with {other} in sector primer",
    "Peers in focus: {c}, {other}",
    "{c}, {other} executives to share stage in {region}",
)
MARKET_WIDE = (
    "Stocks little changed as traders await data",
    "Wall Street opens quietly before {n} company reports",
    "Treasury sells ${big} million of notes",
    "Volume on the exchange at {n} million shares",
    "{bank}: what strategists are reading this week",
    "Economists survey: {n} of 100 expect no change in rates",
    "Week ahead: reports from {region} and minutes of the central bank",
    "Trading calendar: dates to note in the {quarter}",
    "Markets wrap: quiet session in {region}",
)
REACTIVE_UP = (
    "{c} shares rise {move}%",
    "{c} stock ends the day up {move}%",
    "{c} gains {move}% in heavy trading",
    "Why {c} shares climbed {move}% today",
    "{c} jumps {move}%, among the biggest movers",
    "Movers: {c} closes {move}% higher",
)
REACTIVE_DOWN = (
    "{c} shares fall {move}%",
    "{c} stock ends the day down {move}%",
    "{c} loses {move}% in heavy trading",
    "Why {c} shares slid {move}% today",
    "{c} drops {move}%, among the biggest movers",
    "Movers: {c} closes {move}% lower",
)
STALE_FRAMES = ("{x}", "Recap: {x}", "Earlier: {x}", "In case you missed it: {x}", "From the archive: {x}")
COPY_FRAMES = ("{x}", "{x}", "{x}", "{x} - {source}", "REPEAT-{x}")
