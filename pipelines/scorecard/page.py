"""The scorecard as Markdown, from the very values that `--json` gives."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.scorecard.evidence import ENOUGH

NAMES = {
    "rank_ic": "rank IC",
    "hit_rate": "hit rate",
    "coverage_50": "inside the 50% interval",
    "coverage_80": "inside the 80% interval",
    "coverage_90": "inside the 90% interval",
    "pinball": "pinball loss",
    "nll": "negative log likelihood",
}
MOST_INPUTS = 5


def markdown(card: Mapping[str, Any]) -> str:
    """Alarms and proposals first, then a section a model."""
    return "\n".join([*_head(card), *(line for model in card["models"] for line in _model(model))]) + "\n"


def _head(card: Mapping[str, Any]) -> Iterator[str]:
    yield "# Scorecard"
    yield ""
    if card["through"] is None:
        yield "No night is sealed yet."
    else:
        yield f"{card['nights']} nights, the last after {card['through']}. Seal: `{card['head']}`"
    for alarm in card["alarms"]:
        model = f" `{alarm['model_id']}`" if alarm["model_id"] else ""
        yield f"- **Alarm ({alarm['rule']}){model}**: {alarm['what']}."
    for found in card["evidence"]:
        said = "**is proposed**" if found["proposed"] else "is not proposed"
        yield (
            f"- Challenger `{found['challenger']}` {said} over `{found['champion']}`: e = {found['e_value']:.2f} "
            f"(at most {found['highest']:.2f}; {ENOUGH:.0f} proposes) over {found['nights']} nights{_gain(found)}."
        )
    yield ""


def _gain(found: Mapping[str, Any]) -> str:
    if found["gain"] is None:
        return ""
    return f", mean gain {found['gain']:.2e}, worst night {found['worst']:.2e} of pinball loss"


def _model(model: Mapping[str, Any]) -> Iterator[str]:
    live = model["live"]
    yield f"## `{model['model_id']}` ({model['role']})"
    yield ""
    yield (
        f"Live: {live['nights']} nights, {live['rows']} rows settled; {live['waiting']} wait, "
        f"{live['missing']} missing, {live['delisted']} delisted, {live['superseded']} superseded."
    )
    if model["note"]:
        yield model["note"]
    yield ""
    yield from _measures(live, model["band"])
    yield from _calibration(live["calibration"])
    yield from _error_drift(live["error_drift"])
    yield from _inputs(model["drift"])
    for standing in ("late", "replay"):
        yield from _aside(standing, model[standing])
    if model["in_sample"]:
        yield f"In-sample: {model['in_sample']} rows, on no scorecard."
    if model["unproven"]:
        yield (
            f"Unproven: {model['unproven']} rows, on no scorecard: replays where nobody knows what the model was "
            "fitted on, and forecasts that say live and are not under the seal of their own night."
        )
    yield ""


def _measures(live: Mapping[str, Any], band: Mapping[str, Any] | None) -> Iterator[str]:
    if live["measures"] is None:
        yield f"{live['why'].capitalize()}."
        yield ""
        return
    yield "| measure | live | 95% interval | nights | backtest | its 95% interval |"
    yield "|---|---|---|---|---|---|"
    for name, said in NAMES.items():
        value, kept = live["measures"][name], (band or {}).get(name)
        if value:
            backtest = f"{kept['mean']:.4g} | {kept['low']:.4g} to {kept['high']:.4g}" if kept else "- | -"
            interval = f"{value['low']:.4g} to {value['high']:.4g}"
            yield f"| {said} | {value['mean']:.4g} | {interval} | {value['days']} | {backtest} |"
    yield ""


def _calibration(calibration: Mapping[str, Any] | None) -> Iterator[str]:
    if calibration:
        pairs = zip(calibration["found"], calibration["expected"], strict=True)
        shares = ", ".join(f"{found:.3f} ({expected:.2f})" for found, expected in pairs)
        yield f"Between the quantiles (expected): {shares}."


def _error_drift(drift: Mapping[str, Any] | None) -> Iterator[str]:
    if drift:
        yield (
            f"Pinball loss of the last {drift['nights']} nights less that before: {drift['mean']:.2e} "
            f"({drift['low']:.2e} to {drift['high']:.2e}); before: {drift['before']:.2e}."
        )


def _inputs(drift: Mapping[str, Any] | None) -> Iterator[str]:
    if drift:
        ranked = sorted(drift["inputs"].items(), key=lambda item: -item[1]["psi"] / item[1]["threshold"])[:MOST_INPUTS]
        shown = ", ".join(
            f"{name} {value['psi']:.3f} (unusual above {value['threshold']:.3f})" for name, value in ranked
        )
        yield f"Drift of the inputs (PSI, {drift['rows']} rows), nearest to unusual: {shown}."


def _aside(standing: str, part: Mapping[str, Any]) -> Iterator[str]:
    if part["rows"]:
        measured = part["measures"] or {}
        rank_ic = measured.get("rank_ic")
        said = part["why"] or "too few tickers for a rank IC"
        if rank_ic:
            said = f"rank IC {rank_ic['mean']:.4g} ({rank_ic['low']:.4g} to {rank_ic['high']:.4g})"
        yield f"{standing.capitalize()}, not live: {part['nights']} nights, {part['rows']} rows; {said}."
