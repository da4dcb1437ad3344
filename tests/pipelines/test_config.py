import re
import tomllib
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from data.errors import ConfigError
from encoders.price import TransformerConfig
from fusion.gated import GatedConfig
from pipelines.config import TapewireConfig, load_config, parse_config, to_toml
from pipelines.template import TEMPLATE


def parse(*overrides: str, **tables: Any) -> TapewireConfig:
    return parse_config(tables, overrides, "here.toml")


def keys(model: type[BaseModel], table: str = "") -> Iterator[tuple[str, str]]:
    """Every (table, key) that the configuration knows, those of all kinds included."""
    for name, field in model.model_fields.items():
        members = [field.annotation, *get_args(field.annotation)]
        nested = [each for each in members if isinstance(each, type) and issubclass(each, BaseModel)]
        for each in nested:
            yield from keys(each, name)
        if not nested:
            yield table, name


def template_keys(text: str) -> set[tuple[str, str]]:
    """(table, key) of each line that sets a key, commented out or not."""
    found, table = set(), ""
    for line in text.splitlines():
        if header := re.match(r"(?:# )?\[+(?:\w+\.)?(\w+)\]+", line):
            table = header[1]
        elif key := re.match(r"(?:# )?(\w+) = ", line):
            found.add((table, key[1]))
    return found


def test_the_template_says_the_defaults() -> None:
    assert parse_config(tomllib.loads(TEMPLATE), (), "template") == TapewireConfig()


def test_the_template_names_every_key() -> None:
    assert set(keys(TapewireConfig)) - template_keys(TEMPLATE) == set()


def test_every_key_of_the_template_has_a_comment() -> None:
    assert [line for line in TEMPLATE.splitlines() if re.match(r"\w+ = [^#]*$", line)] == []


def test_what_the_template_comments_out_is_valid_too() -> None:
    active = re.sub(
        r"^# (?=(revision|heads|positions|train_start|train_end|valid_end|test_end) = )", "", TEMPLATE, flags=re.M
    )
    config = parse_config(tomllib.loads(active), ["price.kind=transformer"], "template")
    assert isinstance(config.price, TransformerConfig)
    assert config.split.train_end == date(2015, 8, 1)


def test_tables_can_be_appended_to_the_template() -> None:
    text = TEMPLATE + '\n[[news.feeds]]\nname = "a"\n\n[[news.feeds]]\nname = "b"\n'
    assert [feed["name"] for feed in tomllib.loads(text)["news"]["feeds"]] == ["a", "b"]


@pytest.mark.parametrize(
    "config",
    [
        TapewireConfig(),
        parse("price.kind=transformer", "price.heads=2", "fusion.kind=cross_attention", "watchlist=['A','B']"),
        parse(split={"train_end": date(2015, 8, 1), "valid_end": date(2015, 10, 1), "test_end": date(2016, 1, 1)}),
        parse("text.revision=abc", 'text.encoder="C:\\\\folder"'.replace('"', "'"), "decision=pre-open"),
    ],
)
def test_toml_out_is_toml_in(config: TapewireConfig, tmp_path: Path) -> None:
    path = tmp_path / "tapewire.toml"
    path.write_text(to_toml(config))
    assert load_config(path) == config


def test_set_beats_the_file_and_the_last_set_wins() -> None:
    tables = {"price": {"kind": "lstm", "lookback": 30}, "seeds": [5]}
    assert parse(**tables).price.lookback == 30
    config = parse("price.lookback=40", "seeds=[7, 8]", "price.lookback=50", **tables)
    assert (config.price.lookback, config.seeds) == (50, (7, 8))


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("decision=close", "decision", "close"),
        ("decision='close'", "decision", "close"),
        ("train.learning_rate=1e-4", "train.learning_rate", 1e-4),
        ("watchlist=[]", "watchlist", ()),
        ("watchlist=['BRK.B']", "watchlist", ("BRK.B",)),
        ("text.encoder=/a/b=c", "text.encoder", "/a/b=c"),
        (" price.width = 32 ", "price.width", 32),
        ("fusion.kind=concat", "fusion.kind", "concat"),
    ],
)
def test_set_reads_toml_values_and_bare_strings(override: str, path: str, expected: object) -> None:
    value: Any = parse(override)
    for name in path.split("."):
        value = getattr(value, name)
    assert value == expected


def test_set_takes_the_dates_of_a_split() -> None:
    config = parse("split.train_end=2015-08-01", "split.valid_end=2015-10-01", "split.test_end=2016-01-01")
    assert config.split.valid_end == date(2015, 10, 1)


def test_a_switch_of_kind_keeps_what_both_kinds_know() -> None:
    tables = tomllib.loads(TEMPLATE)
    config = parse_config(tables, ["price.kind=transformer", "fusion.kind=concat"], "template")
    assert isinstance(config.price, TransformerConfig)
    assert (config.price.lookback, config.price.width) == (60, 64)
    assert config.fusion.kind == "concat"


def test_a_table_without_a_kind_has_the_default_one() -> None:
    config = parse(price={"lookback": 20}, fusion={"dropout": 0.0})
    assert (config.price.kind, config.price.lookback) == ("lstm", 20)
    assert isinstance(config.fusion, GatedConfig)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TapewireConfig().calendar = "XLON"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("prices.kind=lstm", ["prices"]),
        ("price.lookbak=5", ["price", "lookbak"]),
        ("price.heads=2", ["price", "heads"]),  # of the transformer only
        ("price.kind=perceptron", ["price", "perceptron", "lstm", "transformer"]),
        ("fusion.kind=mean", ["fusion", "mean", "gated", "price_only"]),
        ("decision=noon", ["decision", "noon", "nightly", "pre-open"]),
        ("target=next", ["target", "next", "close_close"]),
        ("seeds=[]", ["seeds"]),
        ("price.lookback=0", ["price", "lookback", "0"]),
        ("price.lookback=long", ["price", "lookback", "long"]),
        ("train.learning_rate=-1", ["train.learning_rate", "-1"]),
        ("split.train_end=2015-08-01", ["split", "valid_end"]),
        ("split.train_end=2015-02-30", ["split.train_end", "2015-02-30"]),
        ("split.valid_share=0.9", ["split.valid_share"]),
        ("text.pooling=least", ["text.pooling", "least", "cls"]),
        ("nightly.coverage=0", ["nightly.coverage", "greater than 0"]),
    ],
)
def test_what_is_wrong_is_named_with_the_file(override: str, named: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(override)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in ["here.toml", *named] if word not in message] == []


@pytest.mark.parametrize("override", ["price", "=3", "price.=3", ".lookback=3", "calendar.code=XNYS"])
def test_a_malformed_set_shows_itself(override: str) -> None:
    with pytest.raises(ConfigError, match="--set") as caught:
        parse(override, calendar="XNYS")
    assert override in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "nightly.healthcheck=hc-ping.com/SECRET",
        'nightly.webhook=["https://x/SECRET"]',
        'nightly=[{webhook="https://x/SECRET"}]',
    ],
)
def test_an_address_that_is_refused_is_not_shown(override: str) -> None:
    with pytest.raises(ConfigError, match="nightly") as caught:
        parse(override)
    assert "SECRET" not in str(caught.value)


def test_several_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("calender=XNYS", "price.lookback=-1", "train.epochs=0")
    assert [word for word in ("calender", "lookback", "train.epochs") if word not in str(caught.value)] == []


@pytest.mark.parametrize("override", ["price.lookback=-1", "price.heads=2", "fusion.dropout=2", "fusion.gates=1"])
def test_a_wrong_key_is_named_as_the_file_spells_it(override: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"here.toml: {override.partition('=')[0]}:")):
        parse(override)


@pytest.mark.parametrize("text", ["calendar = ", "[price\n", "\x00", 'calendar = "XNYS"\ncalendar = "XLON"'])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "tapewire.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"tapewire\.toml: expected TOML"):
        load_config(tmp_path / "tapewire.toml")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tapewire init"):
        load_config(tmp_path / "tapewire.toml")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tapewire.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"tapewire\.toml"):
        load_config(tmp_path / "tapewire.toml")


def test_init_writes_the_template_and_never_over_another(tmp_path: Path, tapewire: Callable[..., Any]) -> None:
    assert tapewire(tmp_path, "init", "fund", "--json").json == {"path": "fund/tapewire.toml"}
    path = tmp_path / "fund" / "tapewire.toml"
    assert path.read_text() == TEMPLATE
    path.write_text("# mine\n" + TEMPLATE)
    again = tapewire(tmp_path, "init", "fund")
    assert (again.code, again.out) == (2, "")
    assert "fund/tapewire.toml" in again.err
    assert path.read_text().startswith("# mine")
