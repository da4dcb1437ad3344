"""One ticker's answer from a vendor, before it is judged."""

import numpy as np
import pandas as pd
import pytest

from data.calendar import sessions
from data.prices.answer import RECYCLED, refuse_recycled
from data.prices.source import BAR_COLUMNS, History, MalformedError

NEW_YORK = sessions("XNYS")
THROUGH = 5000  # position of the last stored session


def answer(*days: np.datetime64) -> History:
    numbers = dict.fromkeys(BAR_COLUMNS[1:], 1.0)
    bars = pd.DataFrame({"session": np.array(days, dtype="datetime64[s]"), **numbers})
    return History(bars, pd.DataFrame())


@pytest.mark.parametrize("undated", [(), (np.datetime64("NaT", "s"),)])
def test_bars_that_begin_long_after_those_stored_are_refused(undated: tuple[np.datetime64, ...]) -> None:
    labels = NEW_YORK.labels
    refuse_recycled(answer(*undated, labels[THROUGH + RECYCLED]), NEW_YORK, labels[THROUGH])
    with pytest.raises(MalformedError, match="recycled-ticker"):
        refuse_recycled(answer(*undated, labels[THROUGH + RECYCLED + 1]), NEW_YORK, labels[THROUGH])
