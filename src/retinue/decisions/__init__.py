"""From forecasts to what to do: value × risk quadrants."""

from retinue.decisions.quadrants import Quadrant, quadrant_moves, quadrant_table, quadrants

__all__ = ["Quadrant", "quadrant_moves", "quadrant_table", "quadrants"]
