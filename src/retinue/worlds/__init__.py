"""Simulated customer bases with known truth."""

from retinue.worlds.kinds import Kind, spec_of
from retinue.worlds.spec import Spec
from retinue.worlds.world import World, simulate, write, write_world

__all__ = ["Kind", "Spec", "World", "simulate", "spec_of", "write", "write_world"]
