"""Reads and checks params.yaml, before anything heavy is imported."""

import argparse
import hashlib
import json
from pathlib import Path

import yaml

SCALES = ("smoke", "laptop", "paper")


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
        params = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ParameterError(f"cannot be read ({error}); run from the project's root.") from None
    except yaml.YAMLError as error:
        raise ParameterError(f"is not valid YAML: {error}") from None
    if get(params, "scale") not in SCALES:
        raise ParameterError(f"scale is {params['scale']!r}; expected one of {SCALES}.")
    if not isinstance(get(params, "threads"), int) or params["threads"] < 1:
        raise ParameterError(f"threads is {params['threads']!r}; expected a positive number.")
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
        value = get(settings, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ParameterError(
                f"scales.{scale}.regression.{name} is {value!r}; expected a positive whole number."
            )
    return settings


def regression_cell(params: dict, cell: str) -> dict:
    """Returns a cell's complete settings: the defaults and what the cell says otherwise."""
    defaults = get(params, "regression.defaults")
    own = get(params, f"regression.cells.{cell}")
    unknown = sorted(set(own) - set(defaults) - {"method", "modes"})
    if unknown:
        raise ParameterError(
            f"regression.cells.{cell} has unknown settings {unknown}; known are "
            f"{sorted(defaults)}, method and modes."
        )
    for required in ("method", "modes"):
        get(own, required)
    return defaults | own


def digest(config: dict) -> str:
    """Returns a short digest of a configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def cell_arguments(description: str) -> argparse.Namespace:
    """Parses the command line that the stages of one cell share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--scale", required=True, choices=SCALES)
    parser.add_argument("--cell", required=True, help="a key of regression.cells")
    parser.add_argument("--seed", required=True, type=int)
    return parser.parse_args()
