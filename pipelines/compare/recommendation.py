"""A comparison in plain sentences: which depth and which kind for how much data. They follow from `advice` alone."""

from collections.abc import Sequence
from fractions import Fraction

from pipelines.compare.result import Comparison


def recommend(result: Comparison) -> list[str]:
    """One sentence for each run of shares of which the same is said, the smallest first."""
    alike: list[tuple[str, list[Fraction]]] = []
    for share in result.grid.shares:
        choice = _choice(result, share)
        if alike and alike[-1][0] == choice:
            alike[-1][1].append(share)
        else:
            alike.append((choice, [share]))
    return [f"{_sizes(result, shares)}: {choice}." for choice, shares in alike]


def price_of_depth(result: Comparison) -> list[str]:
    """A sentence for each kind that was nowhere shown to gain by more layers: what they cost."""
    share = result.grid.shares[-1]
    told = []
    for kind in result.grid.kinds:
        layers = result.layers(kind)
        if len(layers) > 1 and all(result.depths[kind, each].advised == layers[0] for each in result.grid.shares):
            flat, deep = (result.scores[kind, depth, share].seconds for depth in (layers[0], layers[-1]))
            told.append(
                f"For {kind}, more than {layers_name(layers[0])} nowhere showed a gain, and an epoch with "
                f"{layers[-1]} took {deep / flat:.1f} times as long."
            )
    return told


def share_name(share: Fraction) -> str:
    """As a reader says it."""
    return "all" if share == 1 else str(share)


def layers_name(count: int) -> str:
    """With its noun."""
    return f"{count} layer" if count == 1 else f"{count} layers"


def _choice(result: Comparison, share: Fraction) -> str:
    first, *others = kinds = result.grid.kinds
    depths = [f"{layers_name(result.depths[kind, share].advised)} for {kind}" for kind in kinds]
    return "; ".join([", ".join(depths), *(_verdict(result, kind, first, share) for kind in others)])


def _verdict(result: Comparison, kind: str, first: str, share: Fraction) -> str:
    better = result.matches[kind, share].better
    if better is None:
        return f"between {first} and {kind} no difference is shown"
    return f"at these depths {better} forecasts better than {first if better == kind else kind}"


def _sizes(result: Comparison, shares: Sequence[Fraction]) -> str:
    few, many = (f"{result.samples(share):,}" for share in (shares[0], shares[-1]))
    if len(shares) == 1:
        return f"{few} training samples ({share_name(shares[0])} of these data)"
    return f"{few} to {many} training samples ({share_name(shares[0])} to {share_name(shares[-1])} of these data)"
