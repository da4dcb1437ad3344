import numpy as np
import pandas as pd
import pytest
import torch
from tiny import action_frame, bar_frame, headline_frame, link_frame, span, walk

from data.news.index import Cells, build_news
from data.panel import Panel, build_panel
from data.scaling import Scaler
from data.types import NewsBatch
from data.windows import Samples, Windows, in_order

DAYS = span(50)
TICKERS = ("A", "B", "C")
LOOKBACK, NEWS_WINDOW, WIDTH = 12, 5, 4
CPU = torch.device("cpu")


def make_panel(headlines: int = 160) -> Panel:
    rng = np.random.default_rng(0)
    closes = np.stack([walk(50, seed) for seed in range(3)])
    closes[rng.random(closes.shape) < 0.1] = np.nan
    bars = pd.concat([bar_frame(DAYS, line, name) for line, name in zip(closes, TICKERS, strict=True)])
    stamps = DAYS.opens[0] + rng.integers(0, 70 * 24, headlines) * np.timedelta64(1, "h")
    rows = [(str(n), f"title {rng.integers(80)}", at) for n, at in enumerate(stamps)]
    links = [(str(n), str(rng.choice(TICKERS)), stamps[n]) for n in range(headlines) if rng.random() < 0.7]
    news = build_news(headline_frame(rows), link_frame(links), TICKERS, DAYS, 3, NEWS_WINDOW)
    return build_panel(TICKERS, DAYS, bars, action_frame(), news)


@pytest.fixture(scope="module")
def panel() -> Panel:
    return make_panel()


def embeddings(panel: Panel) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(len(panel.news.texts), WIDTH)).astype(np.float16)


def scalers(panel: Panel) -> tuple[Scaler, Scaler]:
    return Scaler.fit(panel.features[panel.mask]), Scaler.fit_common(embeddings(panel))


def windows(panel: Panel, target: str = "close_close", lookback: int = LOOKBACK) -> Windows:
    return Windows(panel, embeddings(panel), *scalers(panel), target, lookback, NEWS_WINDOW, CPU)


def every_row(panel: Panel) -> Samples:
    ticker, session = np.divmod(np.arange(panel.mask.size), panel.mask.shape[1])
    return Samples(ticker, session)


def scaled(values: np.ndarray, scaler: Scaler) -> np.ndarray:
    return np.clip((values - scaler.centre) * scaler.scale, -scaler.limit, scaler.limit)


def test_prices_equal_a_loop_over_samples(panel: Panel) -> None:
    rows = every_row(panel)
    batch = windows(panel).gather(rows)
    assert batch.price_BLF.shape == (150, LOOKBACK, panel.features.shape[2])
    for at in range(len(rows)):
        ticker, session = rows.ticker[at], rows.session[at]
        for back in range(LOOKBACK):
            then = session - LOOKBACK + 1 + back
            seen = then >= 0 and bool(panel.mask[ticker, then])
            assert bool(batch.mask_BL[at, back]) == seen
            expected = scaled(panel.features[ticker, then], scalers(panel)[0]) if seen else 0.0
            np.testing.assert_allclose(batch.price_BLF[at, back].numpy(), expected, rtol=1e-6, atol=1e-6)


def test_masked_rows_are_zero_and_all_is_finite(panel: Panel) -> None:
    batch = windows(panel).gather(every_row(panel))
    assert (batch.price_BLF[~batch.mask_BL] == 0).all()
    assert batch.price_BLF.isfinite().all()
    assert 0 < batch.mask_BL.float().mean() < 1


@pytest.mark.parametrize("target", ["close_close", "overnight", "open_close"])
def test_targets_are_in_units_and_missing_where_they_did_not_happen(panel: Panel, target: str) -> None:
    rows = every_row(panel)
    batch = windows(panel, target).gather(rows)
    label, unit = panel.labels[target].ravel(), panel.unit.ravel()
    np.testing.assert_allclose(batch.target_B.numpy(), label / unit, rtol=1e-5)
    np.testing.assert_allclose(batch.unit_B.numpy(), unit, rtol=1e-6)
    np.testing.assert_array_equal(batch.session_B.numpy(), rows.session)
    assert batch.target_B[rows.session == 49].isnan().all()


Item = tuple[int, int, int]  # text, age, copies


def naive_news(panel: Panel, cells: Cells, row: int, session: int) -> list[Item]:
    """Each piece of news in the window, newest session first, newest of a session first."""
    found = []
    for then in range(session, max(session - NEWS_WINDOW, -1), -1):
        entries = range(cells.start[row + then], cells.start[row + then + 1])
        age = session - then
        found += [(int(cells.text[entry]), age, int(cells.copies[entry, age])) for entry in entries[::-1]]
    return found


def assert_news(panel: Panel, batch: NewsBatch, expected: list[list[Item]]) -> None:
    vectors = scaled(embeddings(panel).astype(np.float32), scalers(panel)[1])
    assert batch.mask_BK.shape[1] == max(map(len, expected))
    for at, items in enumerate(expected):
        assert batch.mask_BK[at].sum() == len(items)
        assert batch.mask_BK[at, : len(items)].all()
        assert batch.age_BK[at, : len(items)].tolist() == [age for _, age, _ in items]
        assert batch.copies_BK[at, : len(items)].tolist() == [copies for *_, copies in items]
        wanted = vectors[[text for text, *_ in items]]
        np.testing.assert_allclose(batch.embedding_BKE[at, : len(items)].numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_news_equals_a_loop_over_samples(panel: Panel) -> None:
    rows = every_row(panel)
    batch = windows(panel).gather(rows)
    own = [naive_news(panel, panel.news.own, t * 50, s) for t, s in zip(rows.ticker, rows.session, strict=True)]
    assert_news(panel, batch.news, own)
    assert max(age for items in own for _, age, _ in items) == NEWS_WINDOW - 1


def test_market_news_is_gathered_once_a_session_and_equals_a_loop_over_samples(panel: Panel) -> None:
    rows = every_row(panel).take(np.array([140, 30, 41, 90, 80, 29, 30, 79, 129]))  # sessions 29, 30, 40 and 41
    batch = windows(panel).gather(rows)
    assert batch.market_row_B.shape == (len(rows),)
    assert len(batch.market.mask_BK) == len(np.unique(rows.session)) == 4
    row = batch.market_row_B
    columns = (batch.market.embedding_BKE, batch.market.mask_BK, batch.market.age_BK, batch.market.copies_BK)
    whose = NewsBatch(*(column[row] for column in columns))
    expected = [naive_news(panel, panel.news.market, 0, session) for session in rows.session]
    assert_news(panel, whose, expected)
    assert max(age for items in expected for _, age, _ in items) == NEWS_WINDOW - 1


def test_all_market_news_is_one_row_a_session(panel: Panel) -> None:
    rows = every_row(panel)
    batch = windows(panel).gather(rows)
    assert_news(panel, batch.market, [naive_news(panel, panel.news.market, 0, session) for session in range(50)])
    np.testing.assert_array_equal(batch.market_row_B.numpy(), rows.session)


def test_texts_are_scaled_by_their_own_scaler(panel: Panel) -> None:
    prices, texts = scalers(panel)
    narrow = Scaler(texts.centre + 1, texts.scale * 2, limit=0.5)
    made = Windows(panel, embeddings(panel), prices, narrow, "close_close", LOOKBACK, NEWS_WINDOW, CPU)
    batch, usual = made.gather(every_row(panel)), windows(panel).gather(every_row(panel))
    assert torch.equal(batch.price_BLF, usual.price_BLF)
    for channel, as_usual in ((batch.news, usual.news), (batch.market, usual.market)):
        assert torch.equal(channel.mask_BK, as_usual.mask_BK)
        seen = channel.mask_BK
        # 2 s (x - c - 1) is 2 (v - s), where v = s (x - c) is what the usual scaler makes of x.
        expected = (2 * (as_usual.embedding_BKE[seen] - torch.from_numpy(texts.scale))).clamp(-0.5, 0.5)
        torch.testing.assert_close(channel.embedding_BKE[seen], expected, atol=1e-5, rtol=1e-5)


def test_the_order_and_company_of_samples_change_nothing(panel: Panel) -> None:
    made, rows = windows(panel), every_row(panel)
    order = np.random.default_rng(2).permutation(150)[:40]
    whole, some = made.gather(rows), made.gather(rows.take(order))
    assert torch.equal(some.price_BLF, whole.price_BLF[order])
    most = some.news.mask_BK.shape[1]
    assert torch.equal(some.news.mask_BK, whole.news.mask_BK[order, :most])
    seen = some.news.mask_BK
    assert torch.equal(some.news.embedding_BKE[seen], whole.news.embedding_BKE[order, :most][seen])
    mine, theirs = some.market_row_B, whole.market_row_B[order]
    most = some.market.mask_BK.shape[1]
    seen = some.market.mask_BK[mine]
    assert torch.equal(seen, whole.market.mask_BK[theirs, :most])
    assert not whole.market.mask_BK[theirs, most:].any()
    assert torch.equal(some.market.age_BK[mine], whole.market.age_BK[theirs, :most])
    assert torch.equal(some.market.embedding_BKE[mine][seen], whole.market.embedding_BKE[theirs, :most][seen])


def test_a_lookback_longer_than_the_panel_is_masked(panel: Panel) -> None:
    batch = windows(panel, lookback=80).gather(every_row(panel))
    assert batch.price_BLF.shape[1] == 80
    assert not batch.mask_BL[:, :30].any()


def test_without_headlines_no_news_is_gathered() -> None:
    panel = make_panel(headlines=0)
    scaler = Scaler.fit_common(np.zeros((0, WIDTH), np.float32))
    none = np.zeros((0, WIDTH), np.float16)
    made = Windows(panel, none, scalers(make_panel())[0], scaler, "close_close", LOOKBACK, NEWS_WINDOW, CPU)
    batch = made.gather(every_row(panel))
    for channel, count in ((batch.news, 150), (batch.market, 50)):
        assert channel.embedding_BKE.shape == (count, 0, WIDTH)
        assert channel.mask_BK.shape == channel.age_BK.shape == (count, 0)
    assert batch.market_row_B.shape == (150,)


def test_no_samples_give_an_empty_batch(panel: Panel) -> None:
    batch = windows(panel).gather(every_row(panel).take(np.zeros(150, dtype=bool)))
    assert batch.price_BLF.shape == (0, LOOKBACK, panel.features.shape[2])
    assert len(batch.news.mask_BK) == len(batch.target_B) == 0
    assert len(batch.market.mask_BK) == len(batch.market_row_B) == len(batch.session_B) == 0


def test_samples_in_order_come_in_parts_and_none_is_lost(panel: Panel) -> None:
    rows = every_row(panel)
    parts = list(in_order(rows, 64))
    assert [len(part) for part in parts] == [64, 64, 22]
    np.testing.assert_array_equal(np.concatenate([part.ticker for part in parts]), rows.ticker)
    np.testing.assert_array_equal(np.concatenate([part.session for part in parts]), rows.session)
    assert list(in_order(rows.take(np.array([], dtype=int)), 64)) == []
