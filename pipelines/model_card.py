"""The README.md of a stored model: metadata that the Hugging Face hub reads, and a page. Measures nothing."""

from typing import Any

from pipelines.bundle_stored import Stored
from pipelines.bundle_training import band_of

LABELS = {
    "rank_ic": "Rank IC",
    "hit_rate": "Hit rate of the sign",
    "coverage_50": "Coverage of the 50% interval",
    "coverage_80": "Coverage of the 80% interval",
    "coverage_90": "Coverage of the 90% interval",
    "pinball": "Pinball loss",
    "nll": "Negative log likelihood",
}
TARGETS = {
    "close_close": "from a session's close to the next session's close",
    "overnight": "from a session's close to the next session's open",
    "open_close": "from the next session's open to its close",
}


def model_card(stored: Stored) -> str:
    """Markdown under YAML. The same model and facts give the same text."""
    config, training = stored.core["config"], stored.training
    return "\n".join(
        (
            "---",
            _metadata(stored),
            "---",
            f"# Tapewire model {stored.model_id}",
            "",
            *_what_it_is(config),
            "",
            "Research software. A forecast here is a probability, not a promise, and **not financial advice**.",
            "",
            "## Data",
            "",
            *_data(training),
            "",
            "## Metrics",
            "",
            *_metrics(training),
            "",
            "## Limits",
            "",
            *_limits(config),
            "",
            "## Use",
            "",
            "```python",
            "from pipelines.bundle import Bundle",
            "",
            'bundle = Bundle.from_pretrained("OWNER/NAME", revision="COMMIT")  # or a folder',
            "```",
            "",
            "Loading checks every file against `manifest.json`. That shows damage, not who made it: pin a commit.",
            "",
        )
    )


def _metadata(stored: Stored) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    band = band_of(stored.training) or {}
    measured = [
        EvalResult(
            task_type="time-series-forecasting",
            dataset_type="tapewire-lake",
            dataset_name="A lake of prices and news",
            metric_type=name,
            metric_value=found["mean"],
            metric_name=label,
        )
        for name, label in LABELS.items()
        if (found := band.get(name))
    ]
    card = ModelCardData(
        library_name="tapewire",
        pipeline_tag="time-series-forecasting",
        tags=["finance", "stocks", "news", "safetensors"],
        model_name=f"tapewire-{stored.model_id}" if measured else None,
        eval_results=measured or None,
    )
    return str(card.to_yaml()).strip()


def _what_it_is(config: dict[str, Any]) -> list[str]:
    price, fusion, text = config["price"], config["fusion"]["kind"], config["text"]
    target = TARGETS.get(config["target"], config["target"])
    reads = {
        "price_only": f"prices alone ({price['kind']}, {price['lookback']} sessions)",
        "text_only": f"headlines alone (as embedded by {text['encoder']})",
    }
    both = (
        f"prices ({price['kind']}, {price['lookback']} sessions) and headlines (as embedded by {text['encoder']}, "
        f"{config['news']['window']} sessions), fused by {fusion}"
    )
    when = f"`{config['decision']}` decision of {config['calendar']}"
    return [
        f"Forecasts one stock's log total return {target}, as a calibrated Student-t distribution.",
        f"It reads {reads.get(fusion, both)}; every forecast is made at the {when}.",
    ]


def _data(training: dict[str, Any]) -> list[str]:
    lines = []
    if sessions := training.get("sessions"):
        lines.append(f"- Fitted on sessions {sessions[0]} to {sessions[1]}, stopped and calibrated by {sessions[2]}.")
    lines.append(f"- Last label settled: {training['settled_at']} UTC. A forecast made before then proves nothing.")
    if tickers := training.get("tickers"):
        lines.append(f"- {len(tickers)} tickers.")
    if rows := training.get("rows"):
        counts = ", ".join(f"{count} {table}" for table, count in rows.items())
        last = f" The last session was {training['last_session']}." if "last_session" in training else ""
        lines.append(f"- The lake held {counts} when it was trained.{last}")
    return lines


def _metrics(training: dict[str, Any]) -> list[str]:
    lines = [
        f"Validation loss {training['valid_nll']:.4f} after {training['epochs']} epochs; chosen by it, so no evidence."
    ]
    band = band_of(training)
    if not band:
        return [*lines, "", "It was not tested out of sample: no settled session was left for it."]
    nights = f"{band['nights']} sessions from {band['sessions'][0]} to {band['sessions'][1]}, {band['rows']} forecasts"
    table = [
        f"| {label} | {found['mean']:.4f} | {found['low']:.4f} to {found['high']:.4f} |"
        for name, label in LABELS.items()
        if (found := band.get(name))
    ]
    head = (
        f"Out of sample ({nights}; used for no choice), means over sessions with 95% bootstrap intervals over sessions:"
    )
    return [*lines, "", head, "", "| | Mean | 95% interval |", "|---|---|---|", *table]


def _limits(config: dict[str, Any]) -> list[str]:
    lines = [
        "- Measured on the past of the tickers above; other markets, other years and other sources may differ.",
        "- Costs, slippage and capacity are in none of the numbers.",
    ]
    if config["target"] == "close_close":
        lines.append("- Close to close includes the gap over night, which news after the close may already have made.")
    if config["fusion"]["kind"] != "price_only":
        lines.append("- It needs headlines from feeds like those it was trained on, embedded by the very same encoder.")
    return lines
