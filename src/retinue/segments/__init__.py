"""Who behaves alike: micro-segments with names that last, lifecycle stages, and who moved between them."""

from retinue.segments.fit import assign, fit_segments
from retinue.segments.lifecycle import STAGES, stages
from retinue.segments.lineage import lineage, match
from retinue.segments.migration import migration
from retinue.segments.model import SegmentModel
from retinue.segments.profiles import profiles

__all__ = [
    "STAGES",
    "SegmentModel",
    "assign",
    "fit_segments",
    "lineage",
    "match",
    "migration",
    "profiles",
    "stages",
]
