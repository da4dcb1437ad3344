"""Which price encoders are compared, at which sizes: the options of `tapewire compare` as records. Measures nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from data.errors import ConfigError
from data.features import FEATURES
from encoders.price import PriceEncoderConfig
from encoders.price.base import PriceConfig

MOST = 2**32  # seeds are below it; sizes are, too

Number = TypeVar("Number", int, Fraction)
Cell = tuple[str, int, Fraction]  # kind, layers, share of the training sessions
Size = tuple[str, int]  # the key of a price config and its value, such as ("lookback", 60)

LAYERS, SHARES = "1,2,4,6", "1/8,1/4,1/2,1"
LOOKBACKS, WIDTHS = "20,60,120,250,500", "16,32,64,128,256"
COST_LOOKBACK, COST_WIDTH, COST_LAYERS = 60, 64, 2  # of the configurations whose cost is measured, but for what varies


@dataclass(frozen=True)
class Grid:
    """Every list ascends and holds nothing twice; `kinds` stand as they were named, and the first is the reference."""

    kinds: tuple[str, ...]
    layers: tuple[int, ...]
    shares: tuple[Fraction, ...]
    lookbacks: tuple[int, ...]
    widths: tuple[int, ...]

    @classmethod
    def parse(
        cls,
        kinds: str,
        layers: str = LAYERS,
        shares: str = SHARES,
        lookbacks: str = LOOKBACKS,
        widths: str = WIDTHS,
    ) -> "Grid":
        """The options as a user writes them, separated by commas. Raises ConfigError, which names the option."""
        return cls(
            parse_kinds(kinds),
            parse_counts("--layers", layers),
            _numbers("--shares", shares, Fraction, lambda share: 0 < share <= 1, "shares above 0 up to 1, such as 1/4"),
            parse_counts("--lookbacks", lookbacks, 2),
            parse_counts("--widths", widths, 4),
        )

    def options(self) -> list[str]:
        """The command line that asks for this grid."""
        lists = {"layers": self.layers, "shares": self.shares, "lookbacks": self.lookbacks, "widths": self.widths}
        usual = {"layers": LAYERS, "shares": SHARES, "lookbacks": LOOKBACKS, "widths": WIDTHS}
        given = {name: ",".join(map(str, values)) for name, values in lists.items()}
        return ["--price", ",".join(self.kinds)] + [
            part for name, text in given.items() if text != usual[name] for part in (f"--{name}", text)
        ]


def known_kinds() -> list[str]:
    """Every kind of price encoder there is."""
    members = get_args(get_args(PriceEncoderConfig)[0])
    return [member.model_fields["kind"].default for member in members]


def parse_kinds(text: str) -> tuple[str, ...]:
    """Kinds as a user lists them. Raises ConfigError where one is unknown, or none is named."""
    kinds = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [kind for kind in kinds if kind not in known_kinds()]
    if unknown or not kinds:
        found = ", ".join(unknown) or "none"
        raise ConfigError(f"--price {text}: expected kinds among {', '.join(known_kinds())}; found {found}.")
    return kinds


def parse_counts(option: str, text: str, least: int = 1) -> tuple[int, ...]:
    """Whole numbers from `least` to MOST - 1, ascending, once each. Raises ConfigError."""
    expected = f"whole numbers from {least} to {MOST - 1}, such as 60"
    return _numbers(option, text, int, lambda count: least <= count < MOST, expected)


def price_config(kind: str, base: PriceConfig, **sizes: int) -> PriceEncoderConfig:
    """`base` as another kind and size. Keys that only its own kind has are kept where the kind is the same.

    Raises ConfigError where the kind refuses them.
    """
    own = base.model_dump()
    shared = own if own["kind"] == kind else {name: own[name] for name in ("lookback", "width", "dropout")}
    adapter: TypeAdapter[Any] = TypeAdapter(PriceEncoderConfig)
    try:
        config: PriceEncoderConfig = adapter.validate_python({**shared, "kind": kind, **sizes})
    except ValidationError as error:
        problems = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        asked = ", ".join(f"{name} {value}" for name, value in sizes.items())
        raise ConfigError(f"{kind} with {asked}: {problems}. Choose other sizes.") from None
    return config


def allowed(
    kind: str, base: PriceConfig, name: str, values: Sequence[int], **fixed: int
) -> tuple[list[int], list[str]]:
    """The `values` of a size that a kind takes, the others as in `fixed`, and a remark for each left out.

    Raises ConfigError where it takes none of them.
    """
    kept: list[int] = []
    notes: list[str] = []
    for value in values:
        try:
            price_config(kind, base, **{name: value}, **fixed)
            kept.append(value)
        except ConfigError as error:
            notes.append(f"Left out: {error}")
    if not kept:
        raise ConfigError(notes[0].removeprefix("Left out: "))
    return kept, notes


def cost_layers(kind: str, base: PriceConfig) -> int:
    """At which depth a kind's cost is measured: COST_LAYERS, or the most below that it takes."""
    return allowed(kind, base, "layers", range(1, COST_LAYERS + 1))[0][-1]


def depths(kind: str, base: PriceConfig, layers: Sequence[int]) -> tuple[list[int], list[str]]:
    """Depths that a kind takes and that make another model of it: one where it has no layers to stack."""
    try:
        kept, notes = allowed(kind, base, "layers", layers)
    except ConfigError as error:
        kept, notes = [1], [f"{kind} was run with one layer: {error}"]
    counts = {
        depth: sum(part.numel() for part in price_config(kind, base, layers=depth).build(len(FEATURES)).parameters())
        for depth in kept
    }
    if len(kept) > 1 and len(set(counts.values())) == 1:
        return kept[:1], [*notes, f"{kind} has no layers to stack: it was run once, under {kept[0]}."]
    return kept, notes


def _numbers(
    option: str, text: str, number: Callable[[str], Number], fits: Callable[[Number], bool], expected: str
) -> tuple[Number, ...]:
    try:
        values = sorted({number(part.strip()) for part in text.split(",")})
    except (ValueError, ZeroDivisionError):
        values = []
    if not values or not all(map(fits, values)):
        raise ConfigError(f"{option} {text}: expected {expected}, separated by commas.")
    return tuple(values)
