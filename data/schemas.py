"""The lake's tables: Arrow schema and key of each. Instants are UTC microseconds.

Rows are append-only. Each carries `available_at` (when a trader could have known it), `recorded_at`
(when this lake committed it) and `origin` (live | backfill). A restated bar or an edited headline is
a new `version` under the same key.
"""

import pyarrow as pa

INSTANT = pa.timestamp("us", tz="UTC")

_STAMPS = [("available_at", INSTANT), ("recorded_at", INSTANT), ("origin", pa.string())]

SCHEMAS: dict[str, pa.Schema] = {
    "bars": pa.schema(
        [
            ("ticker", pa.string()),
            ("session", pa.date32()),
            ("version", pa.int32()),
            ("open", pa.float64()),
            ("high", pa.float64()),
            ("low", pa.float64()),
            ("close", pa.float64()),
            ("volume", pa.float64()),
            ("basis", pa.string()),
            ("source", pa.string()),
            *_STAMPS,
        ]
    ),
    "actions": pa.schema(
        [
            ("ticker", pa.string()),
            ("ex_date", pa.date32()),
            ("kind", pa.string()),  # split: new shares per old; dividend: cash per share after any split
            ("version", pa.int32()),
            ("value", pa.float64()),
            ("source", pa.string()),
            *_STAMPS,
        ]
    ),
    "headlines": pa.schema(
        [
            ("id", pa.string()),
            ("version", pa.int32()),
            ("title", pa.string()),
            ("summary", pa.string()),
            ("source", pa.string()),
            ("url", pa.string()),
            ("published_at", INSTANT),
            ("published_raw", pa.string()),
            ("precision", pa.string()),  # second | day
            ("first_seen_at", INSTANT),
            *_STAMPS,
        ]
    ),
    "links": pa.schema(
        [
            ("id", pa.string()),
            ("ticker", pa.string()),
            ("rule", pa.string()),  # dataset | feed | tag | cashtag | ric | bracket | symbol | alias
            ("confidence", pa.float64()),
            ("hindsight", pa.bool_()),  # found through an alias whose dates are unknown: today's knowledge
            *_STAMPS,
        ]
    ),
    "feeds": pa.schema(
        [
            ("name", pa.string()),
            ("url", pa.string()),
            ("version", pa.int32()),
            ("outcome", pa.string()),  # of the last fetch: fed | suspect | limited | gone | failed
            ("reason", pa.string()),
            ("etag", pa.string()),
            ("last_modified", pa.string()),
            ("retry_at", INSTANT),
            *_STAMPS,
        ]
    ),
    "tickers": pa.schema(
        [
            ("ticker", pa.string()),
            ("source", pa.string()),
            ("version", pa.int32()),
            ("outcome", pa.string()),  # of the last attempt: fed | ended | unknown | limited | failed
            ("code", pa.string()),
            ("reason", pa.string()),
            ("since", pa.date32()),  # the bars stored are all there are from here
            ("through", pa.date32()),  # to here
            ("failing_since", INSTANT),
            ("retry_at", INSTANT),
            *_STAMPS,
        ]
    ),
    "adjustments": pa.schema(
        [
            ("ticker", pa.string()),
            ("ex_date", pa.date32()),
            ("source", pa.string()),
            ("version", pa.int32()),
            ("ratio", pa.float64()),  # of the split: new shares per old
            (
                "factor",
                pa.float64(),
            ),  # what the vendor's earlier prices were multiplied by to undo it; 1: nothing to undo
            ("evidence", pa.string()),  # stored | step | custom: see data/prices/traded.py
            *_STAMPS,
        ]
    ),
    "forecasts": pa.schema(
        [
            ("ticker", pa.string()),
            ("target_session", pa.date32()),
            ("model_id", pa.string()),
            ("data_version", pa.string()),
            ("target", pa.string()),
            ("decision_at", INSTANT),
            ("made_at", INSTANT),
            ("cutoff_at", INSTANT),
            ("mean", pa.float64()),
            ("quantiles", pa.list_(pa.float64())),
            ("prob_up", pa.float64()),
            ("price", pa.float64()),
            ("price_low", pa.float64()),
            ("price_high", pa.float64()),
            *_STAMPS,
            ("standing", pa.string()),  # live | late | replay | in-sample
        ]
    ),
    "settlements": pa.schema(
        [
            ("target_session", pa.date32()),
            ("ticker", pa.string()),
            ("model_id", pa.string()),
            ("data_version", pa.string()),
            ("target", pa.string()),
            ("night", pa.date32()),  # the session whose nightly run settled it
            ("outcome", pa.string()),  # settled | missing | delisted
            ("realised", pa.float64()),  # logarithmic return of the target; null where missing
            *_STAMPS,
        ]
    ),
    "seals": pa.schema(
        [
            ("night", pa.date32()),
            ("target_session", pa.date32()),
            ("forecasts", pa.int64()),  # rows under the seal
            ("forecasts_sha256", pa.string()),
            ("settlements", pa.int64()),
            ("settlements_sha256", pa.string()),
            ("record", pa.string()),  # JSON of the night: coverage, abstentions and drift of each model
            ("previous", pa.string()),  # sha256 of the seal before; empty for the first
            ("sha256", pa.string()),  # of all above
            *_STAMPS,
        ]
    ),
}

KEYS: dict[str, tuple[str, ...]] = {
    "bars": ("ticker", "session"),
    "actions": ("ticker", "ex_date", "kind"),
    "headlines": ("id",),
    "links": ("id", "ticker"),
    "feeds": ("name", "url"),
    "tickers": ("ticker", "source"),
    "adjustments": ("ticker", "ex_date", "source"),
    "forecasts": ("target_session", "ticker", "model_id", "data_version"),
    "settlements": ("target_session", "ticker", "model_id", "data_version"),
    "seals": ("night",),
}
