"""The price language model on Markov markets: nats a session against the source's entropy, and interval coverage.

What is printed stands in docs/price-language-model.md. Peers are the truth itself, known here, and the long-run
frequencies of the states, which is what a model without memory could know.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from markov import FEATURES, MarkovMarket, coverage, nats_a_session, taught

from encoders.price.tokens import TokensConfig

LOOKBACK, DAYS, PATHS = 16, 5, 200


def measure(config: TokensConfig, markets: int, samples: int) -> None:
    ratios, held, spent = [], [], []
    for seed in range(markets):
        symbols, bands = (MarkovMarket.draw(5, spread, seed) for spread in (0.0, 0.8))
        start = time.process_time()
        encoder = taught(symbols, config, tickers=64, sessions=512, seed=seed)
        spent.append(time.process_time() - start)
        ratios.append(nats_a_session(encoder, symbols, 1000, 129, 99) / symbols.entropy_rate)
        encoder = taught(bands, config.model_copy(update={"bins": 32}), tickers=64, sessions=512, seed=seed)
        held.append(coverage(encoder, bands, samples, LOOKBACK, DAYS, PATHS, seed=1_000_000 * (seed + 1)))
    size = sum(p.numel() for p in config.build(FEATURES).language.parameters())
    print(f"{config.stack}, {config.quantiser}: {size} parameters, taught in {np.mean(spent):.1f} CPU s")
    print(f"  nats a session over entropy: {', '.join(f'{ratio:.4f}' for ratio in ratios)}")
    print(f"  80% intervals held, 1 to {DAYS} days ahead: {', '.join(f'{day:.3f}' for day in np.mean(held, 0))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markets", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2000, help="held-out windows a market")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(args.markets):
        market = MarkovMarket.draw(5, 0.0, seed)
        without = -float(market.long_run @ np.log(market.long_run)) / market.entropy_rate
        print(
            f"market {seed}: entropy {market.entropy_rate:.4f} nats a session; without memory {without:.2f} times that"
        )
    for stack, quantiser in (("lstm", "quantiles"), ("transformer", "quantiles"), ("lstm", "rvq")):
        config = TokensConfig(
            lookback=LOOKBACK, width=32, dropout=0.0, stack=stack, quantiser=quantiser, shape_bins=1, stages=1
        )
        measure(config, args.markets, args.samples)


if __name__ == "__main__":
    main()
