"""Reads and checks params.yaml, before anything heavy is imported."""

import argparse
import hashlib
import json
from pathlib import Path

import yaml

# libyaml's, where PyYAML has it, takes an eighth of the time; every stage's process reads the file.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

SCALES = ("smoke", "laptop", "middle", "middle_seeds", "start", "gpu", "paper")


class ParameterError(SystemExit):
    """A missing or malformed parameter; ends the program with a message."""

    def __init__(self, message: str):
        super().__init__(f"params.yaml: {message}")


def load(path: str | Path = "params.yaml") -> dict:
    """Returns params.yaml as a dictionary, checked.

    Raises:
        ParameterError: naming the parameter, what was found and what is expected.
    """
    try:
        params = yaml.load(Path(path).read_text(), Loader=_LOADER)
    except OSError as error:
        raise ParameterError(f"cannot be read ({error}); run from the project's root.") from None
    except yaml.YAMLError as error:
        raise ParameterError(f"is not valid YAML: {error}") from None
    if get(params, "scale") not in SCALES:
        raise ParameterError(f"scale is {params['scale']!r}; expected one of {SCALES}.")
    if not isinstance(get(params, "threads"), int) or params["threads"] < 1:
        raise ParameterError(f"threads is {params['threads']!r}; expected a positive number.")
    seeds = get(params, "seeds")
    if not (isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds)):
        raise ParameterError(f"seeds is {seeds!r}; expected a list of whole numbers.")
    return params


def get(params: dict, path: str):
    """Returns the value at a dotted path; ParameterError when it is missing."""
    value = params
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            raise ParameterError(f"{path!r} is missing (no {key!r}).")
        value = value[key]
    return value


def regression_scale(params: dict, scale: str) -> dict:
    """Returns and checks the regression settings of a scale."""
    settings = get(params, f"scales.{scale}.regression")
    for name in (
        "iterations",
        "member_iterations",
        "log_every",
        "checkpoint_every",
        "batch_per_mode",
        "tasks_per_mode",
        "particles",
    ):
        _positive(f"scales.{scale}.regression.{name}", get(settings, name))
    for name in ("iterations", "member_iterations"):
        _whole_windows(f"scales.{scale}.regression.{name}", settings[name], settings)
    _true_or_false(f"scales.{scale}.regression.xla", get(settings, "xla"))
    _inner_steps("regression.evaluation.curve", [get(params, "regression.evaluation.curve")])
    return settings


def _positive(name, value):
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ParameterError(f"{name} is {value!r}; expected a positive whole number.")


def _true_or_false(name, value):
    if not isinstance(value, bool):
        raise ParameterError(f"{name} is {value!r}; expected true or false.")


def _whole_windows(name, value, settings):
    if value % settings["log_every"]:
        raise ParameterError(
            f"{name} is {value}; expected a multiple of log_every, {settings['log_every']}."
        )


def _inner_steps(name, values):
    if not all(type(value) is int and value >= 0 for value in values):
        raise ParameterError(f"{name} is {values}; expected numbers of inner steps, from 0.")


#: settings of cells that have no default, since few cells have them
OPTIONAL = {
    "update": "rule of the inner loop, by its name in mmaml_tf.update_rules; gradient descent else",
}


def regression_cell(params: dict, cell: str) -> dict:
    """Returns a cell's complete settings: the defaults and what the cell says otherwise."""
    defaults = get(params, "regression.defaults")
    own = get(params, f"regression.cells.{cell}")
    unknown = sorted(set(own) - set(defaults) - {"method", "modes", *OPTIONAL})
    if unknown:
        raise ParameterError(
            f"regression.cells.{cell} has unknown settings {unknown}; known are "
            f"{sorted({*defaults, *OPTIONAL})}, method and modes."
        )
    for required in ("method", "modes"):
        get(own, required)
    evaluated = get(params, "regression.evaluation.modes")
    if absent := sorted(set(own["modes"]) - set(evaluated)):
        raise ParameterError(
            f"regression.cells.{cell} has modes {absent} that regression.evaluation.modes, "
            f"{evaluated}, lacks; name them there."
        )
    return defaults | own


def classification_scale(params: dict, scale: str) -> dict:
    """Returns and checks the classification settings of a scale."""
    where = f"scales.{scale}.classification"
    settings = get(params, where)
    for name in (
        "image_size",
        "embedding",
        "queries",
        "log_every",
        "checkpoint_every",
        "validation_every",
        "validation_tasks",
        "tasks_per_mode",
    ):
        _positive(f"{where}.{name}", get(settings, name))
    for size in get(settings, "filters"):
        _positive(f"{where}.filters", size)
    for protocol in get(params, "classification.protocols"):
        for name in ("iterations", "member_iterations", "batch"):
            _positive(f"{where}.{name}.{protocol}", get(settings, f"{name}.{protocol}"))
            if name != "batch":
                _whole_windows(f"{where}.{name}.{protocol}", settings[name][protocol], settings)
    _whole_windows(f"{where}.validation_every", settings["validation_every"], settings)
    _true_or_false(f"{where}.xla", get(settings, "xla"))
    _inner_steps("classification.evaluation.curve", get(params, "classification.evaluation.curve"))
    return settings


def classification_cell(params: dict, name: str) -> dict:
    """Returns the complete settings of a cell named `<method>-<mode set>-<protocol>`.

    A Multi-MAML's members, `single-<mode>-<protocol>`, have settings of their own by mode and
    protocol.
    """
    method, _, rest = name.partition("-")
    mode_set, _, protocol = rest.partition("-")
    for kind, key in (("methods", method), ("mode_sets", mode_set), ("protocols", protocol)):
        known = get(params, f"classification.{kind}")
        if key not in known:
            raise ParameterError(
                f"cell {name!r} is not <method>-<mode set>-<protocol>: {key!r} is none of "
                f"classification.{kind}, {sorted(known)}."
            )
    defaults = get(params, "classification.defaults")
    own = dict(get(params, f"classification.methods.{method}"))
    if method == "single":
        members = get(params, "classification.members")
        own |= members["others"] | members.get(mode_set, {}).get(protocol, {})
    unknown = sorted(set(own) - set(defaults) - {"method", *OPTIONAL})
    if unknown:
        raise ParameterError(
            f"classification.methods.{method} has unknown settings {unknown}; known are "
            f"{sorted({*defaults, *OPTIONAL})} and method."
        )
    get(own, "method")
    return defaults | own | get(params, f"classification.protocols.{protocol}")


def reinforcement_scale(params: dict, scale: str) -> dict:
    """Returns and checks the reinforcement-learning settings of a scale."""
    where = f"scales.{scale}.reinforcement"
    settings = get(params, where)
    for name in ("tasks", "rollouts", "log_every", "checkpoint_every"):
        _positive(f"{where}.{name}", get(settings, name))
    for environment in get(params, "reinforcement.environments"):
        for name in ("iterations", "member_iterations", "tasks_per_mode", "evaluation_rollouts"):
            _positive(f"{where}.{name}.{environment}", get(settings, f"{name}.{environment}"))
            if name.endswith("iterations"):
                _whole_windows(
                    f"{where}.{name}.{environment}", settings[name][environment], settings
                )
        rate = get(settings, f"outer_learning_rate.{environment}")
        if not isinstance(rate, int | float) or not rate > 0:
            raise ParameterError(
                f"{where}.outer_learning_rate.{environment} is {rate!r}; expected a positive "
                "number."
            )
    _true_or_false(f"{where}.xla", get(settings, "xla"))
    return settings


def reinforcement_cell(params: dict, name: str) -> dict:
    """Returns the complete settings of a cell named `<method>-<environment>-<modes>`.

    Modes are the number of a published set, or for a member of Multi-ProMP the name of one.
    """
    method, _, rest = name.partition("-")
    environment, _, modes = rest.partition("-")
    for kind, key in (("methods", method), ("environments", environment)):
        known = get(params, f"reinforcement.{kind}")
        if key not in known or not modes:
            raise ParameterError(
                f"cell {name!r} is not <method>-<environment>-<modes>: {key!r} is none of "
                f"reinforcement.{kind}, {sorted(known)}, or the modes are missing."
            )
    defaults = get(params, "reinforcement.defaults")
    own = get(params, f"reinforcement.environments.{environment}")
    own = own | get(params, f"reinforcement.methods.{method}")
    unknown = sorted(set(own) - set(defaults) - {"method", *OPTIONAL})
    if unknown:
        raise ParameterError(
            f"reinforcement.methods.{method} or reinforcement.environments.{environment} has "
            f"unknown settings {unknown}; known are {sorted({*defaults, *OPTIONAL})} and method."
        )
    get(own, "method")
    return defaults | own


def stage(domain: str, name: str) -> str:
    """Returns what `dvc repro` calls a stage of a table."""
    return name if domain == "regression" else f"stages/{domain}/dvc.yaml:{name}"


def digest(config: dict) -> str:
    """Returns a short digest of a configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def cell_arguments(description: str, domain: str | None = None) -> argparse.Namespace:
    """Parses the command line that the stages of one cell share.

    Args:
        description: what the stage does.
        domain: the table, where the stage works for one alone.
    """
    parser = argparse.ArgumentParser(description=description)
    if domain is None:
        parser.add_argument("domain", choices=sorted(CELL_SETTINGS), help="the table")
    parser.add_argument("--scale", required=True, choices=SCALES)
    parser.add_argument("--cell", required=True, help="name of a trained model")
    parser.add_argument("--seed", required=True, type=int)
    return parser.parse_args(namespace=argparse.Namespace(domain=domain))


def report_arguments(description: str) -> argparse.Namespace:
    """Parses the command line that the reports share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--scale", required=True, choices=SCALES)
    parser.add_argument("--partial", action="store_true", help="report the cells that there are")
    return parser.parse_args()


def check_cell(params: dict, arguments: argparse.Namespace) -> None:
    """Checks the settings of the cell that the command line names, before any work."""
    of_cell, of_scale = CELL_SETTINGS[arguments.domain]
    of_cell(params, arguments.cell)
    of_scale(params, arguments.scale)


#: by domain, what returns and checks the settings of a cell and those of a scale
CELL_SETTINGS = {
    "regression": (regression_cell, regression_scale),
    "classification": (classification_cell, classification_scale),
    "reinforcement": (reinforcement_cell, reinforcement_scale),
}
