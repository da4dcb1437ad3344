"""A million stamps to the first decision each may inform, against pandas' merge_asof onto the same decisions."""

import numpy as np
import pandas as pd
from paired import compare

from data.calendar import sessions

STAMPS = 1_000_000


def main() -> None:
    exchange = sessions("XNYS", "nightly")
    spread = np.random.default_rng(0).integers(0, 20 * 365 * 86_400, STAMPS)
    stamps = np.datetime64("2005-01-01", "us") + spread.astype("timedelta64[s]")
    decisions = pd.DataFrame({"at": exchange.decision_at, "session": np.arange(len(exchange))})

    def peer() -> pd.DataFrame:
        ordered = pd.DataFrame({"at": stamps}).sort_values("at")
        return pd.merge_asof(ordered, decisions, on="at", direction="forward")

    compare(f"{STAMPS} stamps against pandas.merge_asof", lambda: exchange.first_informed(stamps), peer, rounds=5)


if __name__ == "__main__":
    main()
