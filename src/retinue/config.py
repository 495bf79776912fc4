"""The way from `key=value` words and presets to typed options. The only Hydra importer."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from retinue.options import ActionOptions, ActionsOptions, DataOptions, ModelOptions, Options, TrainerOptions
from retinue.schema import InputError

MENU = "actions.menu."
_NAMES = "data.event_names."  # a text, or a list of them
_TEXT_DICTS = ("data.paths.", "data.join.", "data.columns_of.", _NAMES)
GROUPS = {
    "data": DataOptions,
    "actions": ActionsOptions,
    "model": ModelOptions,
    "trainer": TrainerOptions,
}  # with presets in conf/


def shipped_base_model() -> Path:
    """Folder of the base model that comes with retinue: in the package where it was installed, else in the checkout."""
    inside = Path(__file__).parent / "checkpoints" / "base"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "checkpoints" / "base"


def conf_dir() -> Path:
    """The presets: inside the installed package, or at the root of a checkout."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def presets(group: str) -> list[str]:
    """Names of the presets of one group, e.g. `data`."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


@dataclass(frozen=True)
class OptionLine:
    """One line of `--help`."""

    key: str
    default: str
    unit: str
    help: str


def option_lines(kind: Any = Options, prefix: str = "") -> Iterator[OptionLine]:
    """Every option below a dataclass, depth first, with its dotted key."""
    hints = typing.get_type_hints(kind)
    for item in fields(kind):
        key = prefix + item.name
        if is_dataclass(hints[item.name]):
            yield from option_lines(hints[item.name], key + ".")
            continue
        value = item.default if item.default_factory is not None and item.default is not MISSING else None
        if callable(item.default_factory):
            value = item.default_factory()
        shown = value.value if isinstance(value, Enum) else "null" if value is None else value
        yield OptionLine(key, str(shown), item.metadata["unit"], item.metadata["help"])


def _dict_options(kind: Any = Options, prefix: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    for item in fields(kind):
        hint = hints[item.name]
        if is_dataclass(hint):
            yield from _dict_options(hint, prefix + item.name + ".")
        elif typing.get_origin(hint) is dict:
            yield prefix + item.name + "."


def _check_key(word: str) -> None:
    """Names the nearest option where a key is unknown; Hydra's own message names the node only."""
    key = word.split("=", 1)[0].lstrip("+~")
    if key.startswith(MENU):
        name, _, item = key.removeprefix(MENU).partition(".")
        known = [one.name for one in fields(ActionOptions)]
        if not name.isidentifier() or item not in known:
            near = difflib.get_close_matches(item, known, 1, 0.5)
            raise InputError(
                f"option '{key}' does not exist.{f' Did you mean {MENU}{name}.{near[0]}?' if near else ''} An action is "
                f"written {MENU}<name>.<field>=…; the fields are {', '.join(known)}."
            )
        return
    known = [line.key for line in option_lines()]
    groups = [*GROUPS, "experiment"]
    if key in known or key in groups or any(key.startswith(d) or key + "." == d for d in _dict_options()):
        return
    near = difflib.get_close_matches(key, known + groups, 1, 0.5)
    raise InputError(
        f"option '{key}' does not exist.{f' Did you mean {near[0]}?' if near else ''} See --help."
    )


def _text_options(kind: Any = Options, prefix: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    for item in fields(kind):
        hint = hints[item.name]
        if is_dataclass(hint):
            yield from _text_options(hint, prefix + item.name + ".")
        elif hint is str or (isinstance(hint, types.UnionType) and str in typing.get_args(hint)):
            yield prefix + item.name


def _is_quoted(value: str) -> bool:
    """Whether the whole of a text stands in one pair of quotes; a condition may begin and end with another."""
    mark, rest = value[:1], value[1:].replace("\\'", "").replace('\\"', "")
    return mark in ("'", '"') and rest.find(mark) == len(rest) - 1


def _opened(word: str) -> str:
    """The word in Hydra's grammar: texts quoted (paths hold commas and brackets), new keys of a dict allowed."""
    key, value = word.split("=", 1)
    in_dict = any(key.startswith(prefix) for prefix in _dict_options())
    if (
        (key.startswith(_TEXT_DICTS) or key in set(_text_options()))
        and value != "null"
        and not _is_quoted(value)
        and not (key.startswith(_NAMES) and value.startswith("["))
    ):
        value = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return f"{'++' if in_dict else ''}{key}={value}"


def _with_menu(forms: Sequence[str]) -> list[str]:
    """The forms with those of one action of the menu put together, as a new action is made from all at once."""
    actions: dict[str, list[str]] = {}
    rest = []
    for form in forms:
        key, value = form.split("=", 1)
        if key.lstrip("+").startswith(MENU):
            name, _, item = key.lstrip("+").removeprefix(MENU).partition(".")
            actions.setdefault(name, []).append(f"{item}: {value}")
        else:
            rest.append(form)
    return rest + [f"++{MENU}{name}={{{', '.join(items)}}}" for name, items in actions.items()]


CONFIG = "config="
WORDS = Path(".stages") / "words.json"


def expanded(words: Sequence[str]) -> list[str]:
    """The words with those of an options file (`config=shop.yaml`) and of the run in the output folder before them.

    A command that names no data works on the run in its output folder: it takes the options of that run, and its own words
    override them.

    Raises:
        InputError: an options file that cannot be read.
    """
    files = [word.removeprefix(CONFIG) for word in words if word.startswith(CONFIG)]
    own = [word for word in words if not word.startswith(CONFIG)]
    from_files = [word for name in files for word in _words_of_file(Path(name))]
    given = [*from_files, *own]
    if not any(word.split("=", 1)[0] == "data" or word.startswith("data.") for word in given):
        output = next((word.split("=", 1)[1] for word in reversed(given) if word.startswith("output=")), None)
        if output is not None and (Path(output) / WORDS).is_file():
            given = [*_saved_words(Path(output) / WORDS), *given]
    latest = {word.split("=", 1)[0]: word for word in given}
    return list(latest.values())


def _saved_words(path: Path) -> list[str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(word, str) and "=" in word for word in found):
        raise InputError(
            f"{path}: cannot be read. Give the words of the run again; the file is then written anew."
        )
    return found


def _words_of_file(path: Path) -> list[str]:
    """The words that an options file stands for: `data: {path: orders.csv}` is data.path=orders.csv."""
    try:
        found = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, UnicodeError, YAMLError, OmegaConfBaseException) as error:
        why = " ".join(str(error).split())
        raise InputError(f"config={path}: cannot be read ({why}). Give a YAML file of options.") from error
    if not isinstance(found, dict):
        raise InputError(f"config={path}: holds no options. Write lines such as 'cutoff: 2024-06-30'.")
    return list(_flat(found))


def _flat(found: dict[Any, Any], prefix: str = "") -> Iterator[str]:
    for name, value in found.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            # a group's preset stands as `preset` among its options
            yield from _flat(value, f"{key}.")
        else:
            yield f"{key.removesuffix('.preset')}={_as_word(value)}"


def _as_word(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(_quoted(item) if isinstance(item, str) else _as_word(item) for item in value)}]"
    return str(value)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def resolve(words: Sequence[str]) -> Options:
    """Typed options from `key=value` words over the presets of conf/.

    Raises:
        InputError: a word that is not key=value, an unknown option or preset, or a value outside its rule.
    """
    for word in words:
        if "=" not in word or word.startswith("-"):
            raise InputError(
                f"'{word}' is not key=value. Example: retinue run data=cdnow cutoff=1997-09-30. See --help."
            )
        _check_key(word)
        key, value = word.split("=", 1)
        if "${" in value:
            raise InputError(
                f"{key}={value}: ${{…}} is not read here, as what it stands for would be written into config.yaml. Let the shell "
                "fill it in; a secret goes by the name of its environment variable (data.pseudonym_key=NAME)."
            )
        if key == "experiment" and value != "null" and value not in presets(key):
            there = (
                f"there are {', '.join(presets(key))}"
                if presets(key)
                else "there is none; conf/experiment holds them"
            )
            raise InputError(
                f"experiment={value}: there is no such preset; {there}. For an experiment on customers: experiments.name."
            )
        if key in GROUPS and value not in presets(key):
            raise InputError(f"{key}={value}: there is no such preset; there are {', '.join(presets(key))}.")
    opened = [_opened(word) for word in words]
    for word, form in zip(words, opened, strict=True):
        try:
            OverridesParser.create().parse_override(form)
        except HydraException as error:
            raise InputError(
                f"'{word}' cannot be read; put quotes round the value or close its bracket."
            ) from error
    opened = _with_menu(opened)
    store = ConfigStore.instance()
    store.store(name="schema", node=Options)
    for group, node in GROUPS.items():
        store.store(group=group, name="schema", node=node)
    try:
        with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
            options = OmegaConf.to_object(compose("config", overrides=opened))
        assert isinstance(options, Options)
        # an entry of a dict cannot be typed by the schema
        options.actions.menu = {name: _action(name, entry) for name, entry in options.actions.menu.items()}
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise InputError(_plain(error)) from error
    return options


def _action(name: str, entry: Any) -> ActionOptions:
    if isinstance(entry, ActionOptions):
        return entry
    try:
        made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ActionOptions), entry))
    except OmegaConfBaseException as error:
        raise ValueError(f"{MENU}{name}: {_plain(error)}") from error
    except ValueError as error:
        raise ValueError(str(error).replace("….", f"{name}.")) from error
    assert isinstance(made, ActionOptions)
    return made


def combinations(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Every combination of the values of a multirun, the last word's values changing fastest.

    Several values stand as Hydra has them: `seed=0,1,2`, `range(0,3)` or `choice(a,b)`. Texts, such as paths, are
    one value, commas and all.

    Returns:
        For each, the values chosen as `model=gru,seed=0`, and all words.
    """
    parser, texts = OverridesParser.create(), set(_text_options())
    choices: list[list[tuple[str, str]]] = []
    for word in words:
        key = word.split("=", 1)[0]
        try:
            asked = parser.parse_override(word)
        except HydraException:  # resolve says what is wrong with it
            asked = None
        if asked is None or key in texts or not asked.is_sweep_override():
            choices.append([("", word)])
        else:
            choices.append([(f"{key}={value}",) * 2 for value in asked.sweep_string_iterator()])
    return [
        (",".join(name for name, _ in chosen if name), [word for _, word in chosen])
        for chosen in product(*choices)
    ]


def _plain(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None and isinstance(cause, HydraException):
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    shown = [line for line in lines if not line.startswith(("object_type", "reference_type", "full_key"))]
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key")), "")
    return f"option {key}: {' '.join(shown)}" if key else " ".join(shown)


def as_yaml(options: Options) -> str:
    """The resolved options, for the run folder."""
    return OmegaConf.to_yaml(OmegaConf.structured(options))


def saved_options(path: Path) -> dict[str, Any]:
    """What `as_yaml` wrote into a run folder, as plain data."""
    found = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}
