"""A simulated market with known truth: prices, headlines, and the best forecast that could be made of them."""

from data.simulate.config import MarketConfig, WorldName, world
from data.simulate.simulation import World, simulate, write

__all__ = ["MarketConfig", "World", "WorldName", "simulate", "world", "write"]
