"""Words of other systems for what happened, for the state of an order and for consent, in our own terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from retinue.schema import KNOWN_EVENT_TYPES, InputError

GIVEN, WITHDRAWN = "consent_given", "consent_withdrawn"

# names of GA4, Segment, Klaviyo and Shopify; a name that tells of a purchase a second time (Ordered Product,
# orders/paid, Fulfilled Order) is left out, since it would count the purchase twice
_SYSTEMS = {
    "order": ("purchase", "ecommerce_purchase", "order completed", "placed order", "orders/create", "checkout_completed"),
    "refund": ("order refunded", "refunded order", "refunds/create"),
    "visit": ("session_start", "active on site"),
    "view": ("view_item", "product viewed", "viewed product", "product_viewed"),
    "cart": ("add_to_cart", "product added", "added to cart", "product_added_to_cart"),
    "search": ("view_search_results", "products searched", "search_submitted", "submitted search"),
    "login": ("signed in",),
    "app_open": ("application opened", "opened app"),
    "email_sent": ("email delivered", "received email"),
    "email_open": ("email opened", "opened email"),
    "email_click": ("email link clicked", "clicked email"),
    "sms_sent": ("received sms",),
    "sms_click": ("clicked sms",),
    "push_sent": ("push notification received", "received push"),
    "push_open": ("push notification tapped", "opened push"),
    "coupon_redeemed": ("coupon applied", "coupon used"),
    "review": ("product reviewed", "submitted review"),
    "consent_given": ("subscribed to email marketing", "subscribed to list"),
    "consent_withdrawn": (
        "unsubscribed", "unsubscribed from email marketing", "unsubscribed from list", "marked email as spam",
    ),
}  # fmt: skip

# orders that never became a sale; as shops write them, in the languages of the large shop systems
NO_SALE = frozenset((
    "cancelled", "canceled", "void", "voided", "test", "failed", "failure", "declined", "denied", "rejected", "error",
    "expired", "abandoned", "draft", "checkout draft", "trash", "pending", "pending payment", "payment pending",
    "awaiting payment", "unpaid", "on hold", "cancelled by customer", "payment failed", "payment error",
    "storniert", "abgebrochen", "fehlgeschlagen", "ausstehend", "annulé", "annulée", "en attente", "échouée",
    "cancelado", "cancelada", "anulado", "anulada", "pendiente", "pendente", "annullato", "in attesa", "geannuleerd",
))  # fmt: skip
# sales whose money went back whole
GIVEN_BACK = frozenset((
    "refunded", "fully refunded", "returned", "chargeback", "charged back", "reversed", "erstattet", "remboursé",
    "remboursée", "reembolsado", "reembolsada", "rimborsato", "terugbetaald",
))  # fmt: skip
PARTLY_BACK = frozenset(("partially refunded", "partial refund", "partially returned", "teilweise erstattet"))

YES = frozenset((
    "yes", "y", "true", "t", "1", "1.0", "ja", "oui", "si", "sí", "sì", "sim", "on", "opt in", "optin", "opted in",
    "subscribed", "granted", "given", "accepted", "accepts", "agreed", "consented", "allowed", "confirmed",
))  # fmt: skip
NO = frozenset((
    "no", "n", "false", "f", "0", "0.0", "nein", "non", "nao", "não", "nee", "off", "opt out", "optout", "opted out",
    "unsubscribed", "not subscribed", "never subscribed", "denied", "declined", "refused", "rejected", "withdrawn",
    "revoked", "not given", "not granted",
))  # fmt: skip


def plain(word: str) -> str:
    """A word of state in the form that they are compared in: `wc-on_hold` is `on hold`."""
    return " ".join(word.lower().replace("_", " ").replace("-", " ").split()).removeprefix("wc ")


def plain_column(text: pl.Expr) -> pl.Expr:
    """`plain` for a column of texts."""
    spaced = text.str.to_lowercase().str.replace_all(r"[_\-\s]+", " ").str.strip_chars()
    return spaced.str.strip_prefix("wc ")


def event_names(given: Mapping[str, Any]) -> dict[str, str]:
    """Their names of events, in small letters, with ours; what is given for one of ours replaces its known names."""
    names = given_names(given)
    own = set(names.values())
    known = {word: ours for ours, words in _SYSTEMS.items() if ours not in own for word in words}
    return known | names


def given_names(given: Mapping[str, Any]) -> dict[str, str]:
    """The entries of data.event_names, their names in small letters with ours.

    An entry stands either way round, as long as one side is a name of ours: `purchase=order` or `order=purchase`.
    Where that leaves it open the key is ours.

    Raises:
        InputError: an entry is empty, or one of their names is given to two of ours.
    """
    names: dict[str, str] = {}
    for key, value in given.items():
        words = [
            str(one).strip()
            for one in (value if isinstance(value, Sequence) and not isinstance(value, str) else [value])
        ]
        if not words or not all(words):
            raise InputError(
                f"data.event_names.{key}: has no name. Write data.event_names.order=<your word for an order>."
            )
        turned = (
            len(words) == 1 and words[0].lower() in KNOWN_EVENT_TYPES and key.lower() not in KNOWN_EVENT_TYPES
        )
        ours, theirs = (words[0].lower(), [key]) if turned else (key, words)
        for word in theirs:
            before = names.setdefault(word.lower(), ours)
            if before != ours:
                raise InputError(
                    f"data.event_names: '{word}' is given as {before} and as {ours}. Keep one of the two."
                )
    return names


def in_our_words(text: pl.Expr, names: Mapping[str, str]) -> pl.Expr:
    """Event types with their names replaced by ours; other words stay as they are, known ones in small letters."""
    low = text.str.strip_chars().str.to_lowercase()
    known = {kind: kind for kind in KNOWN_EVENT_TYPES} | dict(names)
    return low.replace_strict(list(known), list(known.values()), default=text, return_dtype=pl.String)


def looks_like_events(words: Sequence[str]) -> bool:
    """Whether texts are kinds of events: all of a few, and at least two of them names that are known."""
    known = {*KNOWN_EVENT_TYPES, *(word for many in _SYSTEMS.values() for word in many)}
    return sum(word.strip().lower() in known for word in words) >= min(2, len(words)) > 0
