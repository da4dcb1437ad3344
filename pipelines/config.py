"""The configuration: TOML in, TOML out, overridden by `--set a.b=c`. Each part lives beside its component.

A wrong key or value is a ConfigError that names the file, the key, what was expected and what was
found. Nothing is ever read from the environment.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, ValidationError

from data.calendar import Clock
from data.errors import ConfigError
from data.linking import CONFIDENT
from data.news.feeds import FeedConfig
from data.news.fetch import FetchConfig
from data.prices.tape import TapeConfig
from data.splits import SplitConfig
from data.types import Config
from encoders.price import LSTMConfig, PriceEncoderConfig
from encoders.text.config import EncoderConfig, TextConfig
from fusion.gated import GatedConfig
from fusion.kinds import FusionConfig
from pipelines.template import FILE

DEFAULT_KINDS = {"text": "encoder", "price": "lstm", "fusion": "gated"}  # of a table that names none

ADDRESS = r"^(https?://[^\s/]+\S*)?$"  # of a server that is told how a night went; empty for none

SECRET = ("nightly", "nightly.healthcheck", "nightly.webhook")  # who knows such an address may use it: no error has it

Target = Literal["close_close", "overnight", "open_close"]


class NewsConfig(Config):
    """Which feeds are read, how titles are linked to tickers, and which headlines a sample sees.

    A sample sees those of the last `window` sessions, at most `per_session` in each, linked with at
    least `confidence`. `aliases` are files of company names, relative to the workspace.
    """

    window: int = Field(default=5, ge=1, le=60)
    per_session: int = Field(default=8, ge=1, le=256)
    confidence: float = Field(default=CONFIDENT, ge=0, le=1)
    aliases: tuple[str, ...] = ()
    fetch: FetchConfig = FetchConfig()
    feeds: tuple[FeedConfig, ...] = ()


class TrainConfig(Config):
    """The training loop. `patience` counts epochs without a better validation loss."""

    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=512, ge=1)
    accumulate: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    clip_norm: float = Field(default=1.0, gt=0)
    average: float = Field(default=0.997, ge=0, lt=1)
    patience: int = Field(default=3, ge=1)
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"


class NightlyConfig(Config):
    """What `tapewire nightly` does beyond scoring, and whom it tells.

    `coverage`: share of the universe that must be scored before forecasts are published. `catch_up`: how many nights a
    run does at most, the newest, tonight's included. `healthcheck` is asked at the start and the end of a run, by the
    conventions of healthchecks.io; `webhook` gets a JSON document of every run that was less than full. Empty: nobody
    is told.
    """

    ingest: tuple[Literal["news", "prices"], ...] = ("news", "prices")
    coverage: float = Field(default=0.95, gt=0, le=1)
    catch_up: int = Field(default=5, ge=1, le=250)
    healthcheck: str = Field(default="", pattern=ADDRESS)
    webhook: str = Field(default="", pattern=ADDRESS)


class TapewireConfig(Config):
    """Everything a workspace's runs depend on. `universe` is a file of members, relative to the workspace."""

    calendar: str = "XNYS"
    decision: Clock = "nightly"
    target: Target = "close_close"
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(default=(0, 1, 2), min_length=1)
    watchlist: tuple[str, ...] = ()
    universe: str = ""
    text: TextConfig = EncoderConfig()
    price: PriceEncoderConfig = LSTMConfig()
    fusion: FusionConfig = GatedConfig()
    train: TrainConfig = TrainConfig()
    split: SplitConfig = SplitConfig()
    news: NewsConfig = NewsConfig()
    tape: TapeConfig = TapeConfig()
    nightly: NightlyConfig = NightlyConfig()


def load_config(path: Path, overrides: Sequence[str] = ()) -> TapewireConfig:
    """The configuration in `path`, with `overrides` of the form `key=value` or `table.key=value`."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: expected a workspace, found no {FILE}. Make one with `tapewire init NAME` and run inside it."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: expected TOML, found: {error}") from error
    return parse_config(tables, overrides, str(path))


def parse_config(tables: dict[str, Any], overrides: Sequence[str], where: str) -> TapewireConfig:
    """Validate nested tables after applying `overrides`; `where` names their origin in errors."""
    for override in overrides:
        _override(tables, override)
    for part, kind in DEFAULT_KINDS.items():
        table = tables.setdefault(part, {})
        if isinstance(table, dict):
            table.setdefault("kind", kind)
    try:
        return TapewireConfig.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(_explain(error, where)) from None


def to_toml(config: TapewireConfig) -> str:
    """What differs from the defaults, and the kinds, as TOML that `load_config` reads back to an equal configuration.

    Defaults are left out so that another kind may be chosen with --set: keys of the one before would be unknown to it.
    """
    tables = config.model_dump(mode="json", exclude_defaults=True)
    for part in DEFAULT_KINDS:
        tables.setdefault(part, {})["kind"] = getattr(config, part).kind
    return tomli_w.dumps(tables)


def _override(tables: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: expected KEY=VALUE, such as price.kind=lstm or seeds=[0,1].")
    table = tables
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override}: {key} is a value, not a table.")
    table[keys[-1]] = _value(text.strip())


def _value(text: str) -> Any:
    """A TOML value where the text is one, else the text itself, so that strings need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _key(location: tuple[int | str, ...]) -> str:
    """The key as a user writes it: pydantic puts a union's kind between a table and its keys."""
    parts = [str(part) for part in location]
    if len(parts) > 1 and parts[0] in DEFAULT_KINDS:
        del parts[1]
    return ".".join(parts) or "the file"


def _explain(error: ValidationError, where: str) -> str:
    found = []
    for problem in error.errors(include_url=False):
        key = _key(problem["loc"])
        if problem["type"] == "extra_forbidden":
            found.append(f"{key}: not a key that exists there")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            what = "what is not shown, for it may be a secret" if key in SECRET else repr(problem["input"])
            found.append(f"{key}: {message}; found {what}"[:300])
    return f"{where}: {'; '.join(found)}. Mend it there or with --set."
