"""The examples for Slurm: their options exist, and make the trainer that they say."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from retinue.config import resolve
from retinue.options import Encoder, Options, Strategy

FOLDER = Path(__file__).parents[2] / "scripts" / "slurm"
SCRIPTS = sorted(FOLDER.glob("*.sbatch"))


def words_of(script: Path, *given: str) -> Options:
    """What the last command of a script tells retinue, as bash expands it."""
    text = re.sub(
        r"(?m)^(exec |srun )?(\S+ )*?\.venv/bin/\w+ .*?(?=scripts/)", "printf '%s\\n' ", script.read_text()
    )
    assert "printf" in text
    slurm = {"SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "4", "SLURM_GPUS_ON_NODE": "4"}
    told = subprocess.run(
        ["bash", "-c", text, script.name, *given], env=slurm | {"PATH": "/usr/bin:/bin"}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    door, *words = shlex.split(told.stdout)
    assert (FOLDER.parents[1] / door).is_file()
    return resolve(words)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_script_asks_for_exists(script: Path) -> None:
    options = words_of(script)
    assert options.output == "runs/slurm"
    trains = script.stem.startswith("train")
    assert options.trainer.devices == (4 if trains else 1)
    assert options.trainer.nodes == (2 if "two_nodes" in script.stem else 1)
    assert options.model.encoder is (Encoder.transformer if trains else Encoder.gru)


def test_words_of_the_command_line_come_last() -> None:
    options = words_of(FOLDER / "train_one_node.sbatch", "trainer=fsdp", "seed=7")
    assert (options.trainer.strategy, options.trainer.devices, options.seed) == (Strategy.fsdp, 4, 7)
