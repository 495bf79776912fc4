"""A law's outlook, moved: gone customers stay gone, and nobody's orders leave the ground."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retinue.forecasting.outlook import corrected, least_orders


def test_who_is_gone_for_ever_is_not_expected_to_order_without_end() -> None:
    gone, few = np.array([1.0, 1.0 - 2**-53]), np.array([1e-20, 1e-14])
    p_churn, orders = corrected(gone, few, np.array([2.0, 2.0]), np.array([0.5, 0.5]))
    assert (p_churn > 1 - 1e-12).all()
    assert (orders < 1e-12).all()


@given(
    st.floats(0.0, 1.0),
    st.floats(0.0, 300.0),
    st.floats(-4.0, 4.0),
    st.floats(-2.0, 2.0),
)
def test_corrected_orders_stay_near_what_odds_and_level_allow(
    p_churn: float, beyond: float, log_odds: float, log_orders: float
) -> None:
    law = (1 - p_churn) * (1 + beyond)
    moved, orders = corrected(np.array([p_churn]), np.array([law]), log_odds, log_orders)
    assert orders[0] >= (1 - moved[0]) * (1 - 1e-12)
    assert orders[0] <= max(law * np.exp(log_orders), (1 - moved[0]) * (1 + beyond)) * (1 + 1e-9) + 1e-12
    assert (
        np.isclose(
            least_orders(moved, np.array([p_churn]), np.array([law]))[0],
            (1 - moved[0]) * (1 + 0.25 * beyond),
            atol=1e-9,
            rtol=1e-6,
        )
        or p_churn > 1 - 1e-9
    )
