"""Every feature by an obvious slow loop over one customer's events: the reference of the vectorised queries."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

Event = dict[str, Any]
Row = dict[str, Any]
ON_SITE = {"visit", "view", "cart", "search", "login", "app_open"}
ANSWERS = {"email_open", "email_click", "sms_click", "push_open"}
WEB = {"web", "website", "online", "site", "ecommerce", "e-commerce", "internet"}
APP = {"app", "mobile", "mobile app"}
STORE = {"store", "shop", "retail", "offline", "pos", "in-store"}
PHONE = {"phone", "telephone", "call centre", "call center"}
HANDHELD = {"mobile", "phone", "smartphone", "tablet", "ios", "android"}


def mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return math.fsum(known) / len(known) if known else None


def over(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below is not None and below > 0 else None


def minus(a: float | None, b: float | None) -> float | None:
    return a - b if a is not None and b is not None else None


def known_sum(events: Sequence[Event], column: str, sign: Callable[[float], float] = float) -> float | None:
    """0 of no events; unknown where none of them carries the number."""
    known = [sign(e[column]) for e in events if e[column] is not None]
    return None if events and not known else math.fsum(known)


class Customer:
    """One customer's known events at a cutoff."""

    def __init__(self, events: Sequence[Event], cutoff: datetime, zone: str) -> None:
        self.cutoff, self.zone = cutoff, ZoneInfo(zone)
        self.today = cutoff.astimezone(self.zone).date()
        self.events = [e for e in events if e["event_time"] <= cutoff and e["known_time"] <= cutoff]
        self.orders = sorted(self.of("order"), key=lambda e: (e["event_time"], e["order_id"]))
        self.refunds = self.of("refund")
        self.days = sorted({self.day(e) for e in self.orders})

    def of(self, *types: str) -> list[Event]:
        return [e for e in self.events if e["event_type"] in types]

    def day(self, event: Event) -> date:
        local: datetime = event["event_time"].astimezone(self.zone)
        return local.date()

    def ago(self, event: Event) -> int:
        return (self.today - self.day(event)).days

    def last(self, events: Sequence[Event], days: float | None) -> list[Event]:
        return [e for e in events if days is None or self.cutoff - e["event_time"] < timedelta(days=days)]

    def least_ago(self, events: Sequence[Event]) -> int | None:
        return min((self.ago(e) for e in events), default=None)


def features_of(c: Customer, everyone: Sequence[Customer]) -> Row:
    """All features of one customer; `everyone` are the customers of the base at the same cutoff."""
    row: Row = {}
    for family in (
        btyd, volume, rhythm, basket, price, returns, channel, timing, engagement, campaigns, service,
        subscription, loyalty,
    ):  # fmt: skip
        row |= family(c)
    row |= price_level(c, everyone) | cohort(c, everyone) | calendar(c, everyone)
    return row


def btyd(c: Customer) -> Row:
    def value(day: date) -> float | None:
        known = [e["amount"] for e in c.orders if c.day(e) == day and e["amount"] is not None]
        return math.fsum(known) if known else None

    has = bool(c.days)
    return {
        "frequency": len(c.days) - 1 if has else None,
        "recency_days": (c.days[-1] - c.days[0]).days if has else None,
        "T_days": (c.today - c.days[0]).days if has else None,
        "valued_transactions": sum(value(day) is not None for day in c.days) if has else None,
        "monetary_value": mean(value(day) for day in c.days[1:]),
        "days_since_last": (c.today - c.days[-1]).days if has else None,
        "days_since_first_event": max(c.ago(e) for e in c.events),
    }


def volume(c: Customer) -> Row:
    row: Row = {}
    for days in (7, 30, 90, 180, 365, None):
        name = "ever" if days is None else f"{days}d"
        orders, refunds = c.last(c.orders, days), c.last(c.refunds, days)
        row[f"orders_{name}"] = len(orders)
        row[f"net_spend_{name}"] = known_sum(orders + refunds, "amount")
        row[f"units_{name}"] = known_sum(orders, "quantity")
        row[f"refunds_{name}"] = len(refunds)
        row[f"refund_value_{name}"] = known_sum(refunds, "amount", lambda a: -a)
    return row


def rhythm(c: Customer) -> Row:
    gaps = [float((b - a).days) for a, b in pairwise(c.days)]
    average = mean(gaps)
    spread = statistics.stdev(gaps) if len(gaps) > 1 else None
    shape = trend = None
    if len(gaps) > 1:
        assert average is not None
        s = math.log(average) - math.fsum(math.log(g) for g in gaps) / len(gaps)
        shape = 1000.0 if s < 5e-4 else (3 - s + math.sqrt((s - 3) ** 2 + 24 * s)) / (12 * s)
    if c.days and (tenure := (c.today - c.days[0]).days) >= 2:
        late = sum(2 * (day - c.days[0]).days > tenure for day in c.days)
        trend = math.log((late + 0.5) / (len(c.days) - late + 0.5))
    silent = (c.today - c.days[-1]).days if c.days else None
    return {
        "gap_mean_days": average,
        "gap_std_days": spread,
        "gap_cv": over(spread, average),
        "gap_median_days": statistics.median(gaps) if gaps else None,
        "gap_last_days": gaps[-1] if gaps else None,
        "silence_ratio": over(silent, average),
        "velocity_trend": trend,
        "regularity": shape,
    }


def kinds(c: Customer, events: Sequence[Event], label: Callable[[Event], Any]) -> Row:
    counts = Counter(label(e) for e in events if label(e) is not None)
    recent = {label(e) for e in c.last(events, 180) if label(e) is not None}
    n = sum(counts.values())
    pairs = sum(k * (k - 1) for k in counts.values())
    return {
        "kinds": len(counts) or None,
        "recent": len(recent) if counts else None,
        "entropy": math.fsum(-k / n * math.log(k / n) for k in counts.values()) if n else None,
        "top": max(counts.values()) / n if n else None,
        "same": pairs / (n * (n - 1)) if n > 1 else None,
    }


def basket(c: Customer) -> Row:
    recent, before = (mean(e["amount"] for e in part) for part in (c.orders[-3:], c.orders[:-3]))
    trend = math.log(recent / before) if recent and before and recent > 0 and before > 0 else None
    products = kinds(c, c.orders, lambda e: e["product"])
    categories = kinds(c, c.orders, lambda e: e["category"])
    return {
        "average_order_value": mean(e["amount"] for e in c.orders),
        "order_value_trend": trend,
        "largest_order": max((e["amount"] for e in c.orders if e["amount"] is not None), default=None),
        "lines_per_order": mean(e["lines"] for e in c.orders),
        "categories_per_order": mean(e["categories"] for e in c.orders),
        "quantity_per_order": mean(e["quantity"] for e in c.orders),
        "products_ever": products["kinds"],
        "products_180d": products["recent"],
        "categories_ever": categories["kinds"],
        "categories_180d": categories["recent"],
        "basket_diversity": categories["entropy"],
        "category_concentration": categories["same"],
        "top_category_share": categories["top"],
    }


def price(c: Customer) -> Row:
    def share(orders: Sequence[Event]) -> float | None:
        return mean(None if e["discount"] is None else float(e["discount"] > 0) for e in orders)

    both = [e for e in c.orders if e["discount"] is not None and e["amount"] is not None]
    off = math.fsum(e["discount"] for e in both)
    return {
        "discount_rate": over(off, math.fsum(e["discount"] + e["amount"] for e in both)),
        "discount_share": share(c.orders),
        "discount_shift": minus(share(c.orders[-3:]), share(c.orders[:-3])),
        "coupons_redeemed_90d": len(c.last(c.of("coupon_redeemed"), 90)),
        "coupons_redeemed_ever": len(c.of("coupon_redeemed")),
    }


def price_level(c: Customer, everyone: Sequence[Customer]) -> Row:
    def log_prices(customer: Customer, category: str | None = None) -> list[tuple[str, float]]:
        return [
            (e["category"], math.log(e["amount"] / e["quantity"]))
            for e in customer.orders
            if e["category"] is not None and (e["amount"] or 0) > 0 and (e["quantity"] or 0) > 0
            and category in (None, e["category"])
        ]  # fmt: skip

    levels = []
    for category, log_price in log_prices(c):
        typical = mean(value for other in everyone for _, value in log_prices(other, category))
        assert typical is not None
        levels.append(log_price - typical)
    return {"price_level": math.exp(math.fsum(levels) / len(levels)) if levels else None}


def returns(c: Customer) -> Row:
    def rate(orders: Sequence[Event], refunds: Sequence[Event]) -> float | None:
        back = math.fsum(-e["amount"] for e in refunds if e["amount"] is not None)
        return over(back, math.fsum(e["amount"] for e in orders if e["amount"] is not None))

    recent, back = c.last(c.orders, 180), c.last(c.refunds, 180)
    before = [e for e in c.orders if e not in recent]
    back_before = [e for e in c.refunds if e not in back]
    told = not c.refunds or any(e["amount"] is not None for e in c.refunds)
    return {
        "refund_rate_value": rate(c.orders, c.refunds) if told else None,
        "refund_rate_orders": over(len(c.refunds), len(c.orders)),
        "refund_rate_trend": minus(rate(recent, back), rate(before, back_before)) if told else None,
        "days_since_last_refund": c.least_ago(c.refunds),
    }


def channel(c: Customer) -> Row:
    def lower(column: str) -> Callable[[Event], str | None]:
        return lambda e: None if e[column] is None else str(e[column]).lower()

    known = [str(e["channel"]).lower() for e in c.orders if e["channel"] is not None]
    devices = [str(e["device"]).lower() for e in c.events if e["device"] is not None]
    steps = [
        (a["channel"].lower(), b["channel"].lower())
        for a, b in pairwise(c.orders)
        if a["channel"] is not None and b["channel"] is not None
    ]
    shares = {
        name: over(sum(k in names for k in known), len(known))
        for name, names in {
            "web_share": WEB, "app_share": APP, "store_share": STORE, "phone_share": PHONE, "online_share": WEB | APP,
        }.items()
    }  # fmt: skip
    spread, device = kinds(c, c.orders, lower("channel")), kinds(c, c.events, lower("device"))
    return {
        **shares,
        "top_channel_share": spread["top"],
        "channels_ever": spread["kinds"],
        "channel_entropy": spread["entropy"],
        "channel_switch_rate": over(sum(a != b for a, b in steps), len(steps)),
        "handheld_share": over(sum(d in HANDHELD for d in devices), len(devices)),
        "top_device_share": device["top"],
        "device_entropy": device["entropy"],
    }


def timing(c: Customer) -> Row:
    local = [e["event_time"].astimezone(c.zone) for e in c.orders]
    return {
        "weekend_share": over(sum(t.weekday() >= 5 for t in local), len(local)),
        "evening_share": over(sum(t.hour >= 18 for t in local), len(local)),
        "holiday_season_share": over(sum(t.month >= 11 for t in local), len(local)),
        "month_concentration": kinds(c, c.orders, lambda e: e["event_time"].astimezone(c.zone).month)["same"],
        "day_of_month_concentration": kinds(c, c.orders, lambda e: c.day(e).day)["same"],
    }


def rate_trend(c: Customer, events: Sequence[Event]) -> float | None:
    recent, long = len(c.last(events, 30)), len(c.last(events, 180))
    return math.log((recent + 0.5) / 30 / ((long + 0.5) / 180)) if long else None


def engagement(c: Customer) -> Row:
    site = sorted(c.of(*ON_SITE), key=lambda e: e["event_time"])
    starts = [
        e
        for i, e in enumerate(site)
        if i == 0 or e["event_time"] - site[i - 1]["event_time"] >= timedelta(seconds=1801)
    ]
    groups = {
        "visits": c.of("visit"), "sessions": starts, "searches": c.of("search"), "carts": c.of("cart"),
        "logins": c.of("login", "app_open"), "emails_sent": c.of("email_sent"),
    }  # fmt: skip
    counts = {
        f"{name}_{days}d": len(c.last(events, days)) for name, events in groups.items() for days in (30, 180)
    }

    def rate(answer: str, sent: str, days: int = 180) -> float | None:
        return over(len(c.last(c.of(answer), days)), len(c.last(c.of(sent), days)))

    cart_days = {c.day(e) for e in c.of("cart")} - {c.today}
    left = [d for d in cart_days if d not in c.days and d + timedelta(days=1) not in c.days]
    mails = sorted(c.of("email_sent", "email_open"), key=lambda e: (e["event_time"], e["event_type"]))
    delays = [
        (b["event_time"] - a["event_time"]) // timedelta(seconds=1) / 3600
        for a, b in pairwise(mails)
        if (a["event_type"], b["event_type"]) == ("email_sent", "email_open")
    ]
    return {
        **counts,
        "visits_trend": rate_trend(c, c.of("visit")),
        "views_per_visit": over(len(c.of("view")), len(c.of("visit"))),
        "cart_abandonment": over(len(left), len(cart_days)),
        "email_open_rate": rate("email_open", "email_sent"),
        "email_click_rate": rate("email_click", "email_sent"),
        "email_open_trend": minus(rate("email_open", "email_sent", 30), rate("email_open", "email_sent")),
        "email_response_hours": mean(delays),
        "sms_click_rate": rate("sms_click", "sms_sent"),
        "push_open_rate": rate("push_open", "push_sent"),
        "days_since_last_engagement": c.least_ago(c.of(*ON_SITE, *ANSWERS)),
    }


def campaigns(c: Customer) -> Row:
    seen = sorted(c.of("campaign"), key=lambda e: e["event_time"])
    answered: list[list[Event]] = [[] for _ in seen]
    for order in c.orders:
        touches = [i for i, e in enumerate(seen) if e["event_time"] <= order["event_time"]]
        if touches and order["event_time"] - seen[touches[-1]]["event_time"] <= timedelta(days=7):
            answered[touches[-1]].append(order)
    old = [i for i, e in enumerate(seen) if c.cutoff - e["event_time"] >= timedelta(days=7)]
    answers = [order for orders in answered for order in orders]
    return {
        "campaign_exposures_30d": len(c.last(seen, 30)),
        "campaign_exposures_180d": len(c.last(seen, 180)),
        "campaign_exposures_ever": len(seen),
        "orders_after_exposure": len(answers),
        "campaign_response_rate": over(sum(bool(answered[i]) for i in old), len(old)),
        "days_since_last_response": c.least_ago(answers),
    }


def service(c: Customer) -> Row:
    def in_turn(kind: str) -> list[Event]:
        return sorted(
            c.of(kind), key=lambda e: (e["event_time"], e["severity"] is None, e["severity"] or 0.0)
        )

    opened, resolved = in_turn("ticket_opened"), in_turn("ticket_resolved")
    hours = [
        (b["event_time"] - a["event_time"]).total_seconds() / 3600
        for a, b in zip(opened, resolved, strict=False)
    ]
    still_open = opened[len(resolved) :]
    surveys = sorted((e for e in c.of("survey") if e["rating"] is not None), key=lambda e: e["event_time"])
    last = [e["rating"] for e in surveys if e["event_time"] == surveys[-1]["event_time"]]
    return {
        "tickets_90d": len(c.last(opened, 90)),
        "tickets_ever": len(opened),
        "open_tickets": len(still_open),
        "unresolved_severe_ticket": float(any((e["severity"] or 0) >= 0.7 for e in still_open)),
        "resolution_hours": mean(h for h in hours if h >= 0),
        "days_since_last_ticket": c.least_ago(opened),
        "sentiment_mean": mean(e["sentiment"] for e in c.events),
        "rating_mean": mean(e["rating"] for e in c.of("review")),
        "survey_score": mean(e["rating"] for e in surveys),
        "survey_trend": minus(mean(last), mean(e["rating"] for e in surveys[: len(surveys) - len(last)])),
    }


def subscription(c: Customer) -> Row:
    def age(event: Event) -> float:
        since: timedelta = c.cutoff - event["event_time"]
        return since / timedelta(days=1)

    starts = [age(e) for e in c.of("subscription_start")]
    cancels = [age(e) for e in c.of("subscription_cancel")]
    paid = [age(e) for e in c.of("subscription_start", "subscription_renew")]
    row: Row = dict.fromkeys(("subscription_active", "subscription_months", "days_to_renewal", "usage_trend"))
    if starts:
        runs = not cancels or min(cancels) > min(starts)
        row["subscription_active"] = float(runs)
        row["subscription_months"] = (min(starts) - (0.0 if runs else min(cancels))) / (365.25 / 12)
        row["usage_trend"] = rate_trend(c, c.of("login", "app_open", "visit", "view"))
        if runs and len(paid) > 1:
            row["days_to_renewal"] = (max(paid) - min(paid)) / (len(paid) - 1) - min(paid)
    failed = c.of("payment_failed")
    return row | {
        "renewals_ever": len(c.of("subscription_renew")),
        "pauses_ever": len(c.of("subscription_pause")),
        "downgrades_ever": len(c.of("subscription_downgrade")),
        "failed_payments_90d": len(c.last(failed, 90)),
        "failed_payments_ever": len(failed),
    }


def loyalty(c: Customer) -> Row:
    earned, redeemed = c.of("points_earned"), c.of("points_redeemed")
    moves = [e | {"quantity": abs(e["quantity"]) * (1 if e in earned else -1)} if e["quantity"] is not None else e
             for e in earned + redeemed]  # fmt: skip
    given, withdrawn = (
        max((e["event_time"] for e in c.of(k)), default=None) for k in ("consent_given", "consent_withdrawn")
    )
    return {
        "suppressed": float(withdrawn is not None and (given is None or given <= withdrawn)),
        "points_balance": known_sum(moves, "quantity"),
        "points_earned_90d": known_sum(c.last(earned, 90), "quantity", abs),
        "points_redeemed_90d": known_sum(c.last(redeemed, 90), "quantity", abs),
        "reviews_ever": len(c.of("review")),
        "referrals_ever": len(c.of("referral")),
    }


def cohort(c: Customer, everyone: Sequence[Customer]) -> Row:
    row: Row = dict.fromkeys(
        (
            "acquisition_month",
            "acquisition_channel",
            "cohort_repeat_rate",
            "cohort_mean_frequency",
            "frequency_to_cohort",
        )
    )
    if not c.days:
        return row | {"lifetime_stage": "prospect"}
    month = c.days[0].replace(day=1)
    peers = [len(o.days) - 1 for o in everyone if o.days and o.days[0].replace(day=1) == month]
    tenure = (c.today - c.days[0]).days
    return {
        "acquisition_month": month,
        "acquisition_channel": c.orders[0]["channel"],
        "lifetime_stage": "new" if tenure < 90 else "established" if tenure < 730 else "veteran",
        "cohort_repeat_rate": sum(f > 0 for f in peers) / len(peers),
        "cohort_mean_frequency": sum(peers) / len(peers),
        "frequency_to_cohort": over(len(c.days) - 1, sum(peers) / len(peers)),
    }


def calendar(c: Customer, everyone: Sequence[Customer]) -> Row:
    months = Counter(o.day(e).replace(day=1) for o in everyone for e in o.orders)
    whole = {m: n for m, n in months.items() if m != min(months) and m != c.today.replace(day=1)}
    levels = {k: mean(float(n) for m, n in whole.items() if m.month == k) for k in {m.month for m in whole}}
    days = None
    if len(levels) == 12:
        peak = min(levels, key=lambda k: (-(levels[k] or 0.0), k))
        day = c.today
        while day.month != peak:
            day += timedelta(days=1)
        days = (day - c.today).days
    return {
        "cutoff_month": c.today.month,
        "cutoff_week": c.today.isocalendar().week,
        "days_to_peak_season": days,
    }
