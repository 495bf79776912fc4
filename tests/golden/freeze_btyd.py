"""Freezes what other implementations say, for tests/models; needs lifetimes and mpmath.

lifetimes 0.11.3 fits BG/NBD, MBG/NBD and Pareto/NBD to the CDNOW files that it ships; mpmath integrates to 25
digits.
"""

from __future__ import annotations

import json
import random
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import mpmath

HERE = Path(__file__).parent
CUTOFF = date(1997, 9, 30)


def cdnow(path: Path) -> list[tuple[int, int, int, int]]:
    """Distinct (x, t_x days, T days) with counts; same-day orders are one."""
    days: dict[str, set[date]] = {}
    for line in path.read_text().splitlines():
        words = line.split()
        if not words or not words[0].isdigit():
            continue
        text = words[-3]
        if (day := date(int(text[:4]), int(text[4:6]), int(text[6:]))) <= CUTOFF:
            days.setdefault(words[0], set()).add(day)
    found: dict[tuple[int, int, int], int] = {}
    for own in days.values():
        key = (len(own) - 1, (max(own) - min(own)).days, (CUTOFF - min(own)).days)
        found[key] = found.get(key, 0) + 1
    return [(*key, count) for key, count in sorted(found.items())]


def theirs(model: Any, rung: str, parameters: list[float], x: float, t_x: float, T: float) -> float:
    """Log-likelihood of one customer by the formulas of lifetimes, times in weeks."""
    import numpy as np

    one = [np.array([value]) for value in (x, t_x, T)]
    if rung == "pareto_nbd":
        return float(model._conditional_log_likelihood(parameters, *one)[0])
    return -float(model._negative_log_likelihood(np.log(parameters), *one, np.ones(1), 0.0))


def fitted() -> list[dict[str, Any]]:
    import lifetimes
    import numpy as np

    fitters = {
        "bg_nbd": lifetimes.BetaGeoFitter,
        "mbg_nbd": lifetimes.ModifiedBetaGeoFitter,
        "pareto_nbd": lifetimes.ParetoNBDFitter,
    }
    rows = []
    for name in ("sample", "master"):
        data = np.array(
            cdnow(Path(lifetimes.__file__).parent / "datasets" / f"CDNOW_{name}.txt"), dtype=float
        )
        for rung, fitter in fitters.items():
            if (rung, name) == ("pareto_nbd", "master"):
                continue  # minutes of Nelder-Mead, and the sample shows the same
            model = fitter().fit(data[:, 0], data[:, 1] / 7, data[:, 2] / 7, weights=data[:, 3])
            parameters = [float(value) for value in model.params_]
            total = sum(
                count * theirs(model, rung, parameters, x, t_x / 7, T / 7) for x, t_x, T, count in data
            )
            rows.append(
                {"data": name, "rung": rung, "parameters": parameters, "log_likelihood": float(total)}
            )
    return rows


def integrals() -> list[list[float]]:
    """m, n, a, b, width, log of the integral of (a + y)^-m (b + y)^-n over [0, width]."""
    mpmath.mp.dps = 25
    draw = random.Random(7)
    cases: list[tuple[float, ...]] = [(0.1033, 357.95, 0.04446, 1892.26, 351.65)]
    cases += [(0.0768, 557.37, 0.001632, 66.308, 840.387)]
    for i in range(40):
        m = 10 ** draw.uniform(-1.5, 0.5 if i % 2 else 3.5)
        scales = [10 ** draw.uniform(low, high) for low, high in ((-2, 3), (-4, 2), (-4, 3.5), (-2, 3))]
        cases.append((m, *scales))
    rows = []
    for m, n, a, b, width in cases:
        end = mpmath.log1p(mpmath.mpf(width) / a)
        cuts = (
            {mpmath.mpf(0)}
            | {end * k / 16 for k in range(17)}
            | {end * mpmath.mpf(2) ** -k for k in range(13)}
        )

        def inside(w: Any, m: float = m, n: float = n, a: float = a, b: float = b) -> Any:
            return (
                mpmath.mpf(a) ** (1 - m)
                * mpmath.exp((1 - m) * w)
                * (mpmath.mpf(b) + a * mpmath.expm1(w)) ** (-n)
            )

        rows.append([m, n, a, b, width, float(mpmath.log(mpmath.quad(inside, sorted(cuts))))])
    return rows


def bg_nbd_expectations() -> list[list[float]]:
    """r, alpha, a, b, x, t_x, T, h, E[orders in (T, T + h]]: Fader, Hardie and Lee 2005, eq. 10, at 30 digits."""
    mpmath.mp.dps = 30
    rows = []
    for r, alpha, a, b in ((0.243, 4.414, 0.793, 2.426), (0.9, 20.0, 0.05, 0.4), (2.5, 0.3, 1.7, 3.0)):
        for x, t_x, T, h in (
            (0, 0, 30, 39),
            (1, 5, 39, 39),
            (4, 35, 38, 10),
            (60, 30, 39, 39),
            (2, 1, 2, 400),
        ):
            z = mpmath.mpf(h) / (alpha + T + h)
            hyper = mpmath.hyp2f1(r + x, b + x, a + b + x - 1, z)
            top = (
                (a + b + x - 1)
                / (mpmath.mpf(a) - 1)
                * (1 - (mpmath.mpf(alpha + T) / (alpha + T + h)) ** (r + x) * hyper)
            )
            dead = (
                mpmath.mpf(a) / (b + x - 1) * (mpmath.mpf(alpha + T) / (alpha + t_x)) ** (r + x) if x else 0
            )
            rows.append([r, alpha, a, b, x, t_x, T, h, float(top / (1 + dead))])
    return rows


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    frozen = {"lifetimes": fitted(), "integrals": integrals(), "bg_nbd_expectations": bg_nbd_expectations()}
    (HERE / "btyd.json").write_text(json.dumps(frozen, indent=1) + "\n")
