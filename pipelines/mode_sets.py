"""Decides which modes the mode sets of the classification table have with the images at hand."""

import argparse
import json
import warnings
from pathlib import Path

from pipelines import params as parameters

MISSING = ("stand_in", "leave_out", "error")


def resolve(params: dict, statuses: dict[str, dict]) -> dict[str, dict]:
    """Returns by mode set its modes with the images' digests, and what is not as published.

    Args:
        params: params.yaml.
        statuses: by dataset, what `prepare_images` wrote.

    Raises:
        ParameterError: for an unknown policy, or a missing mode with the policy "error".
    """
    policy = parameters.get(params, "classification.missing")
    if policy not in MISSING:
        raise parameters.ParameterError(
            f"classification.missing is {policy!r}; expected one of {MISSING}."
        )
    stand_ins = parameters.get(params, "classification.stand_ins")
    resolved = {}
    for name, wanted in parameters.get(params, "classification.mode_sets").items():
        modes, replaced, left_out = {}, {}, []
        for mode in wanted:
            for name_of in (mode, stand_ins.get(mode, mode)):
                if name_of not in statuses:
                    raise parameters.ParameterError(
                        f"classification.mode_sets.{name} or classification.stand_ins names "
                        f"{name_of!r}, which is none of classification.datasets, "
                        f"{sorted(statuses)}."
                    )
            chosen = mode
            if not statuses[mode]["available"] and policy == "stand_in":
                chosen = stand_ins.get(mode, mode)
            status = statuses[chosen]
            if status["available"] and chosen not in modes:
                modes[chosen] = status["digest"]
                replaced |= {mode: chosen} if chosen != mode else {}
                continue
            if policy == "error":
                raise parameters.ParameterError(
                    f"classification.missing is 'error', and mode {mode!r} has no images. "
                    + statuses[mode]["message"]
                )
            left_out.append(mode)
        resolved[name] = {"modes": modes, "stand_ins": replaced, "left_out": left_out}
    return resolved


def _data(resolved, statuses):
    """Returns what the report says of the images of each mode that some mode set has."""
    modes = dict.fromkeys(mode for found in resolved.values() for mode in found["modes"])
    kept = {mode: {"images": statuses[mode].get("images")} for mode in modes}
    for mode in modes:
        if altered := statuses[mode].get("not_as_published"):
            kept[mode]["not_as_published"] = altered
    return kept


def main() -> None:
    """Writes one file for each mode set, and what the report says of the images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", required=True, choices=parameters.SCALES)
    scale = parser.parse_args().scale
    params = parameters.load()
    directory = Path("models", scale, "classification")
    statuses = {
        path.parent.name: json.loads(path.read_text())
        for path in directory.glob("images/*/status.json")
    }
    resolved = resolve(params, statuses)
    results = Path("results", scale, "classification")
    results.mkdir(parents=True, exist_ok=True)
    (results / "data.json").write_text(json.dumps(_data(resolved, statuses), indent=1) + "\n")
    for name, found in resolved.items():
        path = directory / "modes" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
        for mode, stand_in in found["stand_ins"].items():
            warnings.warn(f"mode set {name}: {stand_in} stands in for {mode}.", stacklevel=1)
        for mode in found["left_out"]:
            warnings.warn(f"mode set {name}: {mode} is left out, it has no images.", stacklevel=1)


if __name__ == "__main__":
    main()
