"""How every customer looked at a cutoff: pure queries from events to features."""

from retinue.features.catalogue import Family, Feature, LeftOut
from retinue.features.query import CATALOGUE, available_at, catalogue_markdown, features_at
from retinue.features.table import build

__all__ = [
    "CATALOGUE",
    "Family",
    "Feature",
    "LeftOut",
    "available_at",
    "build",
    "catalogue_markdown",
    "features_at",
]
