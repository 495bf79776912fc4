"""Every option with its default, unit and rule, as typed dataclasses; config.py reads them from words and presets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any


class Engine(Enum):
    """What runs the queries, and where."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"
    ray = "ray"


class Source(Enum):
    """Where the raw tables come from."""

    files = "files"
    cdnow = "cdnow"
    complete_journey = "complete_journey"
    online_retail = "online_retail"


class IdRule(Enum):
    """A way to make customer ids alike that mean one person."""

    trim = "trim"
    casefold = "casefold"
    nfc = "nfc"
    integer = "integer"


class AmountIs(Enum):
    """What the amount of a row is."""

    line = "line"
    order_total = "order_total"


class Rung(Enum):
    """What makes the forecast."""

    auto = "auto"
    own_rate = "own_rate"
    bg_nbd = "bg_nbd"
    mbg_nbd = "mbg_nbd"
    pareto_nbd = "pareto_nbd"
    zero_shot = "zero_shot"
    xgboost = "xgboost"
    blend = "blend"
    sequence_gru = "sequence_gru"
    sequence_transformer = "sequence_transformer"


class Encoder(Enum):
    """What reads a history of events."""

    gru = "gru"
    transformer = "transformer"


class Accelerator(Enum):
    """Where a network trains."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


class Strategy(Enum):
    """What several processes that train one network keep; ddp is all of it in each, fsdp a share in each."""

    ddp = "ddp"
    fsdp = "fsdp"


class Tracking(Enum):
    """Where Weights & Biases keeps what a command found; auto is offline for trainings, off for the rest."""

    auto = "auto"
    off = "off"
    offline = "offline"
    online = "online"


def option(default: Any, help: str, unit: str = "") -> Any:
    """A dataclass field that `--help` can explain; mutable defaults are copied."""
    about = {"help": help, "unit": unit}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=about)
    if isinstance(default, type):
        return field(default_factory=default, metadata=about)
    return field(default=default, metadata=about)


@dataclass
class ColumnOptions:
    """The name in your file of each of our columns; null means the same name as ours, where the file has it."""

    customer_id: str | None = option(None, "who (needed)")
    event_time: str | None = option(None, "when it happened (needed)")
    known_time: str | None = option(None, "when it could be known; for late refunds and backfills")
    event_type: str | None = option(None, "what happened; without it every row is data.event_type")
    order_id: str | None = option(None, "order the row belongs to; rows of one order are summed")
    amount: str | None = option(None, "money of the row, net of discount, signed", "account currency")
    discount: str | None = option(None, "money taken off, ≥ 0", "account currency")
    cost: str | None = option(None, "goods cost", "account currency")
    quantity: str | None = option(None, "units")
    category: str | None = option(None, "product category")
    brand: str | None = option(None, "product brand")
    product: str | None = option(None, "product code or name")
    channel: str | None = option(None, "web, store, app, …")
    device: str | None = option(None, "desktop, mobile, …")
    campaign: str | None = option(None, "campaign name")
    region: str | None = option(None, "country, state or region")
    severity: str | None = option(None, "of a ticket", "0 to 1")
    sentiment: str | None = option(None, "of a ticket, review or survey", "-1 to 1")
    rating: str | None = option(None, "of a review or survey", "1 to 5")
    currency: str | None = option(None, "currency code of the row; more than one in a base is an error")
    base: str | None = option(None, "retailer, brand or market, where a file holds several")
    status: str | None = option(None, "state of the order (paid, cancelled, …); see data.status_counts")
    refunded_amount: str | None = option(
        None, "money given back of the row's order; becomes a refund", "account currency"
    )
    refund_time: str | None = option(None, "when it was given back; null = the time of the order")
    consent: str | None = option(
        None, "whether the customer may be contacted: yes or no; becomes consent events"
    )


@dataclass
class DataOptions:
    """Where events come from and how to read them."""

    source: Source = option(Source.files, "files, cdnow, complete_journey or online_retail")
    name: str = option("files", "names the run folder")
    path: str | None = option(None, "file, glob or folder of CSV, Parquet or JSON lines")
    paths: dict[str, str] = option({}, "one file, glob or folder per event type: data.paths.visit=visits.csv")
    columns: ColumnOptions = option(ColumnOptions, "your column names: data.columns.amount=value")
    columns_of: dict[str, dict[str, str]] = option(
        {}, "your column names for one type of event: data.columns_of.refund.amount=returned"
    )
    join: dict[str, str] = option(
        {},
        "linked files, whose columns data.columns may name: data.join.customers='customers.csv on customer_id'",
    )
    keep_where: str | None = option(
        None, "condition in SQL on your columns; other rows are left out: \"status in ('paid','shipped')\""
    )
    status_counts: list[str] = option(
        [],
        "statuses of orders that count; empty = all but known words for cancelled, failed, pending or test",
    )
    event_names: dict[str, Any] = option(
        {},
        "your word for a type of event: data.event_names.order=purchase, or a list; known systems need none",
    )
    consent_yes: list[str] = option([], "words of data.columns.consent that mean yes, beside the known ones")
    consent_no: list[str] = option([], "words of data.columns.consent that mean no, beside the known ones")
    id_normalise: list[IdRule] = option(
        [], "how customer ids are made alike: trim, casefold, nfc, integer; empty = as written"
    )
    event_type: str = option("order", "type of every row where no column says it")
    base: str = option("base", "name of the retailer, brand or market")
    currency: str = option("", "account currency code, for the report")
    time_zone: str | None = option(
        None, "zone of times without one, e.g. Europe/London; null = UTC, and said so"
    )
    local_zone: str | None = option(
        None, "zone the shoppers live in (weekday, hour, day); null = data.time_zone"
    )
    null_values: list[str] = option(
        ["", "NA", "N/A", "null", "NULL", "None", "nan", "NaN"], "texts that mean unknown"
    )
    encoding: str | None = option(
        None, "of text files, e.g. cp1252 or utf-16; null = found from the bytes, and stated"
    )
    amount_is: AmountIs | None = option(
        None,
        "line (amounts of an order's rows are summed) or order_total (each or the first row has the whole order's); null = line, "
        "with a warning where it looks like order_total",
    )
    guest_ids: list[str] = option(
        [], "customer ids that stand for everybody without an account; their rows are set aside"
    )
    decimal: str | None = option(
        None,
        "point or comma: decimal sign of numbers in text; null = found where one reading fits, and stated",
    )
    thousands: str | None = option(
        None,
        "point, comma, space, apostrophe or none: what parts thousands; null = the other one than data.decimal",
    )
    separator: str | None = option(None, "of CSV fields; null = found from the header line")
    observation_end: str | None = option(
        None, "last day or instant the data cover; null = end of the day of the last event, and said so"
    )
    time_format: str | None = option(
        None,
        "strftime pattern of times that are not ISO, e.g. '%d/%m/%Y %H:%M'; null = found, where only one reading fits",
    )
    merge_duplicates: bool | None = option(
        None, "merge rows equal in every column; null = where they carry an order id or a clock, else kept"
    )
    max_bad_share: float = option(
        0.05, "rows with unreadable time or amount above this share stop the run", "share"
    )
    pseudonym_key: str | None = option(
        None, "name of an environment variable with a secret: customer ids are replaced by keyed hashes"
    )


@dataclass
class ValueOptions:
    """What an order is worth to the firm."""

    margin_rate: float = option(
        1.0, "margin where no cost column says it; 1 means clv counts revenue", "share of net spend"
    )
    discount_rate_yearly: float = option(0.10, "discounting of future margin, continuous", "per year")
    save_share: float = option(
        0.1, "a contact keeps this share of those who would leave; for a backtest's profit curve", "share"
    )
    acquisition_cost: dict[str, float] = option(
        {},
        "of winning a customer, by channel of the first order, or all: value.acquisition_cost.all=20",
        "account currency",
    )
    ltv_to_cac: float = option(3.0, "value over cost of acquisition that is aimed at", "ratio")
    contact_cost: float | None = option(
        None,
        "of a contact, for a backtest's profit curve; null = where treating everyone would just have paid",
        "account currency",
    )


@dataclass
class KpiOptions:
    """Targets for key figures."""

    targets: dict[str, float] = option(
        {},
        "change of a base-wide figure to reach, as a share of what it was: kpis.targets.churn_rate=-0.1",
        "share",
    )
    months: float = option(6.0, "by when", "months")


@dataclass
class SegmentOptions:
    """Micro-segments and lifecycle."""

    max_segments: int = option(8, "upper end of the search; the lower end is 2")
    min_share: float = option(0.03, "smallest segment kept", "share of customers")
    min_customers: int = option(20, "smallest segment kept", "customers")
    bootstraps: int = option(10, "resamples behind the stability of each number of segments")
    previous: str | None = option(None, "segment_model.json of an earlier fit whose identities are kept")
    compare_days: int = option(90, "migration is shown against this long before the cutoff; 0 = not", "days")
    new_days: int = option(90, "younger than this is new", "days since first order")
    cooling_ratio: float = option(1.5, "silent longer than this is cooling", "× own mean gap")
    dormant_ratio: float = option(3.0, "silent longer than this is dormant", "× own mean gap")
    lapsed_ratio: float = option(6.0, "silent longer than this is lapsed", "× own mean gap")


class EffectSource(Enum):
    """Where an action's effect comes from."""

    assumed = "assumed"
    measured = "measured"


@dataclass
class ActionOptions:
    """One thing that can be done for a customer. Shares of effect stand with their 90 % interval."""

    channel: str = option("email", "that it goes through; budgets and exports are per channel")
    fixed_cost: float = option(0.0, "of one contact", "account currency")
    order_share: float = option(
        0.0, "cost as a share of the customer's next order, such as a discount", "share"
    )
    take_up: float = option(1.0, "orders on which that share is claimed", "share")
    minutes: float = option(0.0, "of a person, per contact; 0 where nobody is needed", "minutes")
    capacity: float | None = option(None, "contacts at most; null = no limit", "contacts")
    contacts: int = option(1, "contacts it adds to the customer's last 30 days")
    quadrants: list[str] = option([], "save, advocate, let_go, nurture; empty = all")
    causes: list[str] = option([], "causes that it answers; empty = all, also without a reason")
    stages: list[str] = option([], "lifecycle stages; empty = all")
    needs_consent: bool = option(True, "never where consent was withdrawn")
    effect: EffectSource = option(
        EffectSource.assumed,
        "assumed (the shares below) or measured (from the campaign's randomised exposures)",
    )
    keeps: float = option(0.0, "of those who would leave, how many stay", "share")
    keeps_lower: float = option(0.0, "its lower end", "share")
    keeps_upper: float = option(0.0, "its upper end", "share")
    lifts: float = option(0.0, "what it adds to the value of those who would stay", "share")
    lifts_lower: float = option(0.0, "its lower end", "share")
    lifts_upper: float = option(0.0, "its upper end", "share")
    campaign: str | None = option(
        None, "name of the campaign in the events, * for any part of it; for measured effects"
    )
    everyone_drawn: bool = option(
        False,
        "whoever had ordered could have been reached, by the same chance; false = control events say who was not",
    )

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            ValueError: the option, its value and the rule.
        """
        for name in ("fixed_cost", "minutes"):
            _within(f"actions.menu.….{name}", getattr(self, name), 0.0, 1e12)
        for name in ("order_share", "take_up", "keeps", "keeps_lower", "keeps_upper"):
            _within(f"actions.menu.….{name}", getattr(self, name), -1.0 if "keeps" in name else 0.0, 1.0)
        if self.capacity is not None:
            _within("actions.menu.….capacity", self.capacity, 0.0, 1e12)
        for name in ("keeps", "lifts"):
            low, mid, high = (getattr(self, name + end) for end in ("_lower", "", "_upper"))
            if not low <= mid <= high:
                raise ValueError(
                    f"actions.menu.….{name}={mid}: must lie in its interval, {name}_lower={low} to {name}_upper={high}."
                )
        if self.effect is EffectSource.measured and not self.campaign:
            raise ValueError(
                "actions.menu.….effect=measured: needs campaign=…, the name of the randomised campaign in the events."
            )


@dataclass
class ActionsOptions:
    """What can be done: the menu."""

    name: str = option("none", "of the menu")
    menu: dict[str, Any] = option({}, "actions by name: actions.menu.call.fixed_cost=2.5")

    @property
    def actions(self) -> dict[str, ActionOptions]:
        """The actions by name, in the order of the menu."""
        return dict(self.menu)


@dataclass
class DecisionOptions:
    """Value × risk quadrants, causes, and the rules under which actions are given."""

    risk_threshold: float = option(0.7, "p_churn from here on is high risk", "probability")
    value_quantile: float = option(0.75, "value if retained from this quantile on is high", "quantile")
    value_threshold: float | None = option(
        None, "value if retained from here on is high, in place of the quantile", "account currency"
    )
    reasons_for: int = option(
        50_000, "customers, most value at stake first, for whom causes are looked for", "customers"
    )
    channel_budgets: dict[str, float] = option(
        {}, "at most this through a channel: decisions.channel_budgets.email=500", "account currency"
    )
    agent_hours: float | None = option(None, "hours that people have for actions; null = no limit", "hours")
    most_contacts: int = option(4, "campaign contacts in 30 days, the new one included", "contacts")
    floors: dict[str, float] = option(
        {}, "least customers of a segment who get an action: decisions.floors.3=100", "customers"
    )
    effect_days: int = option(90, "window in which measured effects are looked for", "days")
    exploration: float = option(
        0.0, "customers who get a random admissible action or none, so that effects can be learnt", "share"
    )
    holdout: float = option(
        0.0, "customers never treated, the same ones from run to run, to measure against", "share"
    )


@dataclass
class ExperimentOptions:
    """A randomised experiment (`retinue experiment design|assign|analyse`)."""

    name: str = option("experiment", "names its folder, <output>/experiments/<name>")
    arms: dict[str, float] = option(
        {}, "share of each: experiments.arms.call=0.5; empty = control and treated, half each"
    )
    control: str = option("control", "arm that gets nothing")
    starts: str | None = option(None, "outcomes count from after this day or instant; null = the cutoff")
    days: int = option(30, "how long outcomes count", "days")
    quadrants: list[str] = option([], "who takes part; empty = everyone")
    strata: list[str] = option(["quadrant"], "columns of the decisions within which the shares hold")
    cost: float = option(0.0, "of one treated customer", "account currency")
    effect: float | None = option(
        None,
        "on the mean margin per customer that the design is to find; null = the smallest it can",
        "account currency",
    )
    power: float = option(0.8, "chance of finding it", "probability")
    alpha: float = option(0.05, "chance of a false alarm over all looks", "probability")

    @property
    def shares(self) -> dict[str, float]:
        """The arms with their shares."""
        return dict(self.arms) or {self.control: 0.5, "treated": 0.5}


@dataclass
class WorldOptions:
    """A simulated base with known truth (`retinue worlds`)."""

    kind: str = option("pareto_nbd", "process and effects; a wrong one is answered with the list")
    customers: int = option(10_000, "size of the base", "customers")
    days: int = option(730, "length of the history", "days")


@dataclass
class ModelOptions:
    """The network of the sequence rungs."""

    encoder: Encoder = option(Encoder.gru, "gru or transformer")
    width: int = option(32, "of the encoder's state", "numbers")
    layers: int = option(1, "of the encoder")
    heads: int = option(4, "of attention; the width must be a multiple")
    dropout: float = option(0.5, "of hidden numbers while training", "share")
    family_dropout: float = option(0.0, "whole families of features hidden while training", "share")
    context: bool = option(False, "each customer is read against others of the base at the same cutoff")


@dataclass
class TrainerOptions:
    """The hardware a network trains on."""

    accelerator: Accelerator = option(Accelerator.cpu, "auto, cpu or gpu")
    devices: int = option(1, "processes per node, one GPU each where there are any")
    nodes: int = option(1, "machines")
    strategy: Strategy = option(
        Strategy.ddp, "of several processes: ddp, or fsdp (weights and optimiser are split among them)"
    )
    accumulate: int = option(
        1, "backward passes per step, each over a part of the buckets: the same step in less memory"
    )
    recompute: bool = option(
        False, "hidden numbers of the encoder are made again in the backward pass: less memory, more time"
    )
    bf16: bool = option(False, "16-bit products; on a GPU only")
    compile: bool | None = option(
        None,
        "torch.compile, minutes before the first step; null = on a GPU with a C compiler, without fsdp and recompute",
    )


@dataclass
class TrainingOptions:
    """How a network learns."""

    steps: int = option(500, "optimiser steps at most")
    readouts: int = option(2_048, "customers at cutoffs per step, over all processes")
    buckets: int = option(4, "groups of like lengths that make up a step; each process has its share of each")
    horizons: int = option(4, "horizons per readout and step: random ones, and the whole window")
    learning_rate: float = option(5e-4, "peak of warm-up and cosine")
    weight_decay: float = option(0.05, "of AdamW")
    warmup_share: float = option(0.05, "steps with rising learning rate", "share of steps")
    clip: float = option(1.0, "largest norm of the gradient")
    average: float = option(0.999, "decay of the weight average that is judged and kept, after a warm-up")
    check_every: int = option(20, "steps between looks at the held-out customers")
    patience: int = option(5, "looks without a better log score before training stops")
    held_out: float = option(0.125, "customers that early stopping is judged on", "share")
    orders_weight: float = option(1.0, "of the log score of counts beside that of the next order")
    value_weight: float = option(0.3, "of the log score of order values")
    refund_weight: float = option(0.1, "of the log score of refunds")
    next_event_weight: float = option(0.1, "of foretelling type, gap and amount of each next event")
    tune_steps: int = option(300, "optimiser steps at most, where init= gives a network to start from")
    tune_learning_rate: float = option(2e-4, "peak of warm-up and cosine, likewise")
    proximity: float = option(0.01, "what the squared distance from the weights of init= costs")


@dataclass
class PretrainingOptions:
    """How the base model learns from simulated bases (`retinue pretrain`)."""

    steps: int = option(6_000, "optimiser steps")
    bases: int = option(12, "simulated bases per step, over all processes; each comes three times")
    customers: int = option(160, "of each base, at most")
    width: int = option(96, "of the encoder's state", "numbers")
    dropout: float = option(0.02, "of hidden numbers while training", "share")
    learning_rate: float = option(1e-3, "peak of warm-up and cosine")
    law_bases: int = option(5_000, "bases that the first law learns from")
    law_steps: int = option(4_000, "its steps")
    judged: int = option(96, "held-out bases, half of them of families that training never sees")
    check_every: int = option(200, "steps between looks at the held-out bases")
    patience: int = option(1_000, "looks without a better log score before training stops")
    workers: int = option(1, "processes that simulate ahead; 0 = the training one does")


@dataclass
class ScoringOptions:
    """Batch scoring with a checkpoint (`retinue forecast checkpoint=…`)."""

    rank: int | None = option(None, "of this process, from 0; null = RANK of the environment, else 0")
    world_size: int | None = option(
        None, "processes that share the shards; null = WORLD_SIZE of the environment, else 1"
    )
    causes: bool = option(
        False,
        "once all shards stand, look for the causes of the decisions.reasons_for customers with most at stake",
    )


@dataclass
class ExportOptions:
    """Audience files."""

    raw: bool = option(
        False,
        "write cells that a spreadsheet would run (=, +, -, @) as they are, without an apostrophe before them",
    )
    assume_consent: bool = option(
        False, "export actions that need consent where the events hold none: everyone has agreed elsewhere"
    )


@dataclass
class RunOptions:
    """How a command runs."""

    umask: str = option(
        "077",
        "rights that files and folders do not get, in octal: 077 = none but yours, 027 = your group may read",
    )

    stage_timeout_minutes: float | None = option(
        None, "a stage that takes longer is ended with a line that names it; null = no limit", "minutes"
    )


@dataclass
class Options:
    """Everything a run can be told."""

    data: DataOptions = option(
        DataOptions, "preset of conf/data: files, cdnow, complete_journey, online_retail"
    )
    value: ValueOptions = option(ValueOptions, "margin and discounting")
    kpis: KpiOptions = option(KpiOptions, "targets")
    segments: SegmentOptions = option(SegmentOptions, "micro-segments and lifecycle")
    decisions: DecisionOptions = option(DecisionOptions, "quadrants, causes, and rules for actions")
    actions: ActionsOptions = option(ActionsOptions, "preset of conf/actions: retail, subscription, none")
    budget: float | None = option(
        None, "that all actions together may cost, in expectation; null = no limit", "account currency"
    )
    experiments: ExperimentOptions = option(ExperimentOptions, "a randomised experiment")
    export: ExportOptions = option(ExportOptions, "audience files")
    run: RunOptions = option(RunOptions, "how a command runs")
    worlds: WorldOptions = option(WorldOptions, "simulated bases")
    model: ModelOptions = option(ModelOptions, "preset of conf/model: gru, transformer")
    trainer: TrainerOptions = option(TrainerOptions, "preset of conf/trainer: cpu, gpu, ddp, fsdp")
    training: TrainingOptions = option(TrainingOptions, "how a network learns")
    pretraining: PretrainingOptions = option(PretrainingOptions, "how the base model learns")
    scoring: ScoringOptions = option(
        ScoringOptions, "batch scoring: which part of the base a process scores, and causes"
    )
    cutoff: Any = option(None, "last day (or instant) of history, or a list; null = end of observation")
    horizon_days: Any = option(
        365, "length of the future, or a list; the report leads with the longest", "days"
    )
    output: str | None = option(None, "folder for everything the run leaves; null = runs/<data.name>")
    forecaster: Rung = option(
        Rung.auto,
        "auto (best on held-out history), own_rate, bg_nbd, mbg_nbd, pareto_nbd, zero_shot, xgboost, blend, sequence_gru "
        "or sequence_transformer",
    )
    checkpoint: str | None = option(
        None,
        "folder that retinue train or pretrain has left: forecast with it, shard by shard, nothing is fitted",
    )
    init: str | None = option(
        None,
        "folder of a base model, such as checkpoints/base, from which sequence_gru goes on in place of anew",
    )
    base_model: str | None = option(
        None,
        "folder that retinue pretrain has left, for forecaster=zero_shot; null = the one that comes with retinue",
    )
    delta: bool = option(False, "retinue export writes only what changed since the last export")
    engine: Engine = option(
        Engine.auto, "auto, cpu, gpu, or ray: shards on the nodes of the cluster of RAY_ADDRESS"
    )
    shards: int = option(0, "parts the customers are split into; 0 = from the number of rows")
    seed: int = option(0, "of everything random")
    origins: int = option(
        4, "past cutoffs of a backtest, evenly spaced; a given cutoff list takes their place"
    )
    rungs: list[Rung] = option(
        [],
        "rungs that a backtest compares, empty = all that train in seconds; auto and the blend try a sequence rung "
        "that is among them",
    )
    seeds: int = option(3, "seeds per random rung in a backtest, from seed on")
    ledger: str | None = option(
        None,
        "folder that keeps every forecast of the base; null = <output>/ledger",
    )
    retrain_cost: float = option(0.0, "what making and rolling out new forecasts costs", "account currency")
    tracking: Tracking = option(
        Tracking.auto, "Weights & Biases run: off, offline or online; auto = offline for train, else off"
    )
    experiment: Any = option(None, "preset of conf/experiment: several options at once")

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            ValueError: the option, its value and the rule; reaches the user as one line.
        """
        self.horizon_days = _whole_days(self.horizon_days)
        self.cutoff = [
            str(c) for c in (self.cutoff if isinstance(self.cutoff, list) else [self.cutoff]) if c is not None
        ]
        _within("value.margin_rate", self.value.margin_rate, 0.0, 1.0)
        _within("value.discount_rate_yearly", self.value.discount_rate_yearly, 0.0, 10.0)
        _within("value.save_share", self.value.save_share, 0.0, 1.0)
        if self.value.contact_cost is not None:
            _within("value.contact_cost", self.value.contact_cost, 0.0, float("inf"))
        _within("decisions.risk_threshold", self.decisions.risk_threshold, 0.0, 1.0)
        _within("decisions.value_quantile", self.decisions.value_quantile, 0.0, 1.0)
        _within("value.ltv_to_cac", self.value.ltv_to_cac, 0.01, 1e6)
        for channel, cost in self.value.acquisition_cost.items():
            _within(f"value.acquisition_cost.{channel}", cost, 0.0, 1e12)
        _within("kpis.months", self.kpis.months, 0.01, 1_200)
        _within("decisions.reasons_for", self.decisions.reasons_for, 0, 10**9)
        _within("decisions.most_contacts", self.decisions.most_contacts, 0, 10**6)
        _within("decisions.effect_days", self.decisions.effect_days, 1, 36_500)
        _within("decisions.exploration", self.decisions.exploration, 0.0, 1.0)
        _within("decisions.holdout", self.decisions.holdout, 0.0, 0.99)
        for name, limit in (("budget", self.budget), ("decisions.agent_hours", self.decisions.agent_hours)):
            if limit is not None:
                _within(name, limit, 0.0, 1e15)
        for group, limits in (
            ("channel_budgets", self.decisions.channel_budgets),
            ("floors", self.decisions.floors),
        ):
            for name, value in limits.items():
                _within(f"decisions.{group}.{name}", value, 0.0, 1e15)
        _within("experiments.days", self.experiments.days, 1, 36_500)
        _within("experiments.power", self.experiments.power, 0.05, 0.999)
        _within("experiments.alpha", self.experiments.alpha, 1e-6, 0.5)
        _within("experiments.cost", self.experiments.cost, 0.0, 1e12)
        if self.experiments.control not in self.experiments.shares:
            raise ValueError(
                f"experiments.control={self.experiments.control}: is not among experiments.arms, "
                f"{', '.join(self.experiments.shares)}."
            )
        if not self.experiments.name.replace("-", "_").isidentifier():
            raise ValueError(
                f"experiments.name={self.experiments.name}: must be letters, digits, - and _ alone."
            )
        if not re.fullmatch(r"0?[0-7]{3}", self.run.umask):
            raise ValueError(f"run.umask={self.run.umask}: must be three octal digits, such as 077 or 022.")
        if self.run.stage_timeout_minutes is not None:
            _within("run.stage_timeout_minutes", self.run.stage_timeout_minutes, 0.001, 1e6)
        _within("data.max_bad_share", self.data.max_bad_share, 0.0, 1.0)
        _within("segments.min_share", self.segments.min_share, 0.0, 0.5)
        _within("segments.max_segments", self.segments.max_segments, 1, 64)
        _within("shards", self.shards, 0, 65_536)
        _within("seed", self.seed, 0, 2**32 - 1)
        _within("origins", self.origins, 1, 100)
        _within("seeds", self.seeds, 1, 100)
        _within("retrain_cost", self.retrain_cost, 0.0, float("inf"))
        if self.scoring.rank is not None:
            _within("scoring.rank", self.scoring.rank, 0, 65_535)
        if self.scoring.world_size is not None:
            _within("scoring.world_size", self.scoring.world_size, 1, 65_536)
        _check_training(self.model, self.trainer, self.training)

    @property
    def cutoffs(self) -> list[str]:
        """The cutoffs as given, in order; empty means the end of observation."""
        return list(self.cutoff)

    @property
    def horizons(self) -> list[int]:
        """Whole days, ascending, without doubles."""
        return list(self.horizon_days)

    @property
    def folder(self) -> Path:
        """Where the run's tables stand."""
        return Path(self.output or f"runs/{self.data.name}")

    @property
    def ledger_folder(self) -> Path:
        """Where the base's forecasts are kept from run to run."""
        return Path(self.ledger) if self.ledger else self.folder / "ledger"


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}={value}: must lie between {low:g} and {high:g}.")


def _check_training(model: ModelOptions, trainer: TrainerOptions, training: TrainingOptions) -> None:
    """Raises ValueError for a number outside its rule."""
    for name, value, low, high in (
        ("model.width", model.width, 8, 4_096),
        ("model.layers", model.layers, 1, 48),
        ("model.heads", model.heads, 1, 64),
        ("model.dropout", model.dropout, 0.0, 0.9),
        ("model.family_dropout", model.family_dropout, 0.0, 0.9),
        ("trainer.devices", trainer.devices, 1, 1_024),
        ("trainer.nodes", trainer.nodes, 1, 1_024),
        ("trainer.accumulate", trainer.accumulate, 1, 4_096),
        ("training.steps", training.steps, 1, 10**8),
        ("training.readouts", training.readouts, 1, 10**7),
        ("training.buckets", training.buckets, 1, 4_096),
        ("training.horizons", training.horizons, 1, 64),
        ("training.learning_rate", training.learning_rate, 1e-8, 1.0),
        ("training.weight_decay", training.weight_decay, 0.0, 10.0),
        ("training.warmup_share", training.warmup_share, 0.0, 0.9),
        ("training.clip", training.clip, 1e-3, 1e6),
        ("training.average", training.average, 0.0, 0.99999),
        ("training.check_every", training.check_every, 1, 10**8),
        ("training.patience", training.patience, 1, 10**6),
        ("training.held_out", training.held_out, 0.01, 0.5),
        ("training.orders_weight", training.orders_weight, 0.0, 100.0),
        ("training.value_weight", training.value_weight, 0.0, 100.0),
        ("training.refund_weight", training.refund_weight, 0.0, 100.0),
        ("training.next_event_weight", training.next_event_weight, 0.0, 100.0),
    ):
        _within(name, value, low, high)
    if model.width % (2 * model.heads):
        raise ValueError(f"model.width={model.width}: must be a multiple of 2 × model.heads ({model.heads}).")
    if trainer.compile and trainer.recompute:  # torch 2.13 fails to trace the two together
        raise ValueError(
            "trainer.compile=true: cannot go with trainer.recompute=true. Set one of them to false."
        )


def _whole_days(value: Any) -> list[int]:
    days = value if isinstance(value, list) else [value]
    if not days or not all(isinstance(d, int) and not isinstance(d, bool) and 1 <= d <= 36_500 for d in days):
        raise ValueError(
            f"horizon_days={value}: must be whole days from 1 to 36500, or a list such as [30,90,365]."
        )
    return sorted(set(days))
