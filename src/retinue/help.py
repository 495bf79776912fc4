"""What `retinue --help` and `retinue <command> --help` say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

if TYPE_CHECKING:
    from retinue.config import OptionLine

COMMANDS = {
    "doctor": "say what the data support and what is wrong with them, worst first",
    "prepare": "read, check and clean the events into a store sharded by customer",
    "features": "build every feature as it stood at the cutoff",
    "segment": "find micro-segments, name them, and place every customer in one",
    "forecast": "forecast churn, orders and value of every customer, with the cause of each risk",
    "decide": "choose the action that earns most for each customer, under a budget: budget=10000 actions=retail",
    "report": "draw the report from the tables, bringing up what is missing",
    "train": "train a network on the histories and keep its checkpoint: model=gru|transformer trainer=cpu|gpu|ddp|fsdp",
    "pretrain": "train a base model on simulated bases, which then reads any base with no fit: trainer=cpu|gpu|ddp|fsdp",
    "export": "write who gets which action as files per channel: delta=true for what changed since the last time",
    "experiment": "design|assign|analyse: how large, who is in which arm, and what it found, with the forecast as covariate",
    "policy": "say what the policy of these options would have earned, from exported decisions that were randomised in part",
    "backtest": "hold every rung against past futures, with standard errors, and say who wins",
    "ledger": "keep the forecasts, and hold every earlier one that has matured against what came true",
    "worlds": "simulate a customer base with known truth: kind=… customers=… days=… seed=…",
    "run": "prepare to report, resuming where an earlier run of the same folder stopped",
}

# Options that a command's result depends on; a command also needs what the commands before it need.
SECTIONS = {
    "doctor": ("data", "cutoff", "horizon_days", "output", "shards"),
    "prepare": ("data", "output", "shards"),
    "features": ("data", "cutoff", "output", "engine", "shards"),
    "segment": ("data", "cutoff", "segments", "output", "engine", "shards", "seed"),
    "forecast": (
        "data",
        "cutoff",
        "horizon_days",
        "forecaster",
        "base_model",
        "rungs",
        "model",
        "training",
        "checkpoint",
        "scoring",
        "tracking",
        "value",
        "decisions",
        "output",
        "engine",
        "shards",
        "seed",
    ),
    "decide": (
        "data",
        "cutoff",
        "horizon_days",
        "budget",
        "actions",
        "decisions",
        "value",
        "segments",
        "forecaster",
        "output",
        "engine",
        "shards",
        "seed",
    ),
    "backtest": (
        "data",
        "cutoff",
        "horizon_days",
        "origins",
        "rungs",
        "seeds",
        "seed",
        "tracking",
        "value",
        "segments",
        "output",
        "engine",
        "shards",
    ),
    "train": (
        "data",
        "cutoff",
        "horizon_days",
        "model",
        "init",
        "trainer",
        "training",
        "tracking",
        "value",
        "segments",
        "output",
        "engine",
        "shards",
        "seed",
    ),
    "export": (
        "delta",
        "export",
        "data",
        "cutoff",
        "horizon_days",
        "budget",
        "actions",
        "decisions",
        "output",
    ),
    "policy": ("data", "cutoff", "horizon_days", "actions", "budget", "decisions", "value", "output", "seed"),
    "experiment": ("experiments", "data", "cutoff", "horizon_days", "value", "decisions", "output", "seed"),
    "pretrain": ("pretraining", "trainer", "tracking", "output", "seed"),
    "ledger": (),
    "worlds": ("worlds", "cutoff", "horizon_days", "seed", "output"),
    "report": (),
    "run": (),
}

# sections that a run of all stages has no use for
NOT_IN_A_RUN = (
    "model", "trainer", "training", "pretraining", "init", "worlds", "experiments", "export", "delta", "scoring", "origins",
)  # fmt: skip
# options that people change; the others are shown by --help=all
CHANGED = (
    "data.path", "data.paths", "data.columns.customer_id", "data.columns.event_time", "data.columns.amount",
    "data.columns.order_id", "data.columns.event_type", "data.columns.status", "data.time_zone", "data.currency",
    "data.keep_where", "data.pseudonym_key", "value.margin_rate", "segments.max_segments", "budget", "decisions.holdout",
    "decisions.most_contacts", "cutoff", "horizon_days", "output", "forecaster", "checkpoint", "init", "delta", "engine",
    "seed", "ledger", "tracking", "origins", "training.steps", "model.width", "trainer.devices", "pretraining.steps",
)  # fmt: skip
OWN = {
    "experiment": ("experiments",),
    "backtest": ("rungs", "seeds"),
    "worlds": ("worlds",),
    "export": ("export",),
    "forecast": ("scoring",),
}

EXAMPLES = {
    "run": [
        "retinue run data=cdnow cutoff=1997-09-30 horizon_days=273",
        "retinue run data=files data.path=orders.parquet data.columns.customer_id=cid data.columns.event_time=day \\\n"
        "            data.columns.amount=value cutoff=2014-12-31 horizon_days=365 output=out/",
    ],
    "doctor": ["retinue doctor data=files data.path='exports/*.csv' data.time_zone=Europe/London"],
    "backtest": [
        "retinue backtest data=cdnow origins=3 horizon_days=273",
        "retinue backtest data=online_retail cutoff=[2011-06-09,2011-09-09] horizon_days=91",
    ],
    "train": [
        "retinue train data=cdnow cutoff=1997-09-30 horizon_days=273 model=gru",
        "retinue train data=cdnow cutoff=1997-09-30 horizon_days=273 init=checkpoints/base",
        "retinue train --multirun data=cdnow cutoff=1997-09-30 horizon_days=273 model=gru,transformer seed=0,1,2",
        "torchrun --nproc-per-node 2 scripts/train.py data=cdnow cutoff=1997-09-30 trainer=ddp",
    ],
    "pretrain": [
        "retinue pretrain output=runs/base",
        "torchrun --nproc-per-node 2 scripts/pretrain.py trainer=ddp output=runs/base",
    ],
    "forecast": [
        "retinue forecast data=cdnow cutoff=1997-09-30 horizon_days=[90,273]",
        "retinue forecast data=cdnow cutoff=1998-03-31 horizon_days=90 checkpoint=runs/cdnow/checkpoints/sequence_gru",
        "retinue forecast data=cdnow cutoff=1997-09-30 horizon_days=273 forecaster=zero_shot",
        "retinue forecast data=cdnow cutoff=1997-09-30 horizon_days=273 checkpoint=checkpoints/base",
    ],
    "export": [
        "retinue export data=complete_journey cutoff=2017-09-30 horizon_days=90 budget=500 delta=true"
    ],
    "policy": [
        "retinue export data=files data.path=events.parquet cutoff=2024-03-31 horizon_days=90 actions=retail "
        "decisions.exploration=0.1",
        "retinue policy data=files data.path=events.parquet cutoff=2024-03-31 horizon_days=90 actions=retail budget=500",
    ],
    "experiment": [
        "retinue experiment design data=complete_journey cutoff=2017-09-30 horizon_days=90 experiments.days=60",
        "retinue experiment assign data=complete_journey cutoff=2017-09-30 horizon_days=90 experiments.name=winback \\\n"
        "            experiments.quadrants=[save,let_go] experiments.days=60",
        "retinue experiment analyse data=complete_journey horizon_days=90 experiments.name=winback experiments.cost=2.5",
    ],
    "decide": [
        "retinue decide data=complete_journey horizon_days=90 budget=10000 actions=retail",
        "retinue decide data=complete_journey horizon_days=90 budget=500 actions.menu.service_call.capacity=40 "
        "decisions.agent_hours=6",
    ],
    "ledger": ["retinue ledger data=cdnow cutoff=1997-09-30 horizon_days=[90,273]"],
    "worlds": ["retinue worlds kind=seasonal customers=20000 seed=1 output=world/"],
    "features": ["retinue features data=cdnow cutoff=[1997-06-30,1997-09-30]"],
}


def overview() -> None:
    """Prints the commands."""
    out = Console()
    out.print("[bold]retinue[/] turns a retailer's events into churn risk, value, segments and a report.\n")
    out.print(
        "Usage: retinue <command> key=value …   (retinue <command> --help lists its options)\n",
        highlight=False,
    )
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, sentence in COMMANDS.items():
        table.add_row(f"  [bold]{name}[/]", sentence)
    out.print(table)
    out.print("\nStart: retinue run data=cdnow cutoff=1997-09-30 horizon_days=273", highlight=False)


def command_help(command: str, everything: bool = False) -> None:
    """Prints a command's examples, presets and the options that people change; all options on request."""
    from retinue.config import GROUPS, option_lines, presets

    out = Console()
    out.print(f"[bold]retinue {command}[/]: {COMMANDS[command]}.\n", highlight=False)
    verbs = " design|assign|analyse" if command == "experiment" else ""
    out.print(
        f"Usage: retinue {command}{verbs} [config=options.yaml] key=value …\n", highlight=False, markup=False
    )
    for example in EXAMPLES.get(command, EXAMPLES["run"][:1]):
        out.print(
            "  " + escape(example.replace("retinue run", f"retinue {command}")),
            highlight=False,
            soft_wrap=True,
        )
    lines = [line for line in option_lines() if _concerns(command, line.key.split(".")[0])]
    groups = [group for group in GROUPS if _concerns(command, group)]
    shown = " ".join(f"{group}={'|'.join(presets(group))}" for group in groups)
    out.print(f"\nPresets: {shown}\n", highlight=False)
    if everything:
        _all_options(out, lines)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for line in lines:
        if line.key in CHANGED or line.key.split(".")[0] in OWN.get(command, ()):
            unit = f" [{line.unit}]" if line.unit else ""
            table.add_row(
                f"  [cyan]{line.key}[/]={escape(line.default)}", escape(line.help.split("; ")[0] + unit)
            )
    out.print(table)
    out.print(f"\nAll {len(lines)} options: retinue {command} --help=all", highlight=False)


def _concerns(command: str, root: str) -> bool:
    """Whether a command's result can depend on the options of a section."""
    return root in SECTIONS[command] if SECTIONS[command] else root not in NOT_IN_A_RUN


def _all_options(out: Console, lines: Sequence[OptionLine]) -> None:
    section = ""
    for line in lines:
        root = line.key.split(".")[0]
        if "." in line.key and root != section:
            out.print(f"\n[bold]{root}[/]")
        elif "." not in line.key and section:
            out.print("\n[bold]the run[/]")
        section = root if "." in line.key else ""
        unit = f"  \\[{line.unit}]" if line.unit else ""
        out.print(f"  [cyan]{line.key}[/]={escape(line.default)}{unit}", highlight=False, soft_wrap=True)
        out.print(Padding(escape(line.help), (0, 0, 0, 6)), highlight=False)
