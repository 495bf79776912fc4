"""Property tests: no deadline on a busy machine, and in CI the same examples at every run."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("busy", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "busy")
