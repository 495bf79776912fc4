"""retinue: what every customer is worth, who is leaving, who is alike, and what to do."""

import os

# Threads of torch's OpenMP spin while they wait for each other. Where other jobs want the same cores, as long as GNU's does
# unasked, scoring takes 40 times as long; so short a spin costs an idle machine 4 to 10 % of training (docs/log.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
