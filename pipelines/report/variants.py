"""Variants of the methods, which tell why a result is what it is, each beside what it varies."""

from itertools import product

import pandas as pd

from pipelines import params as parameters
from pipelines.report import estimates
from pipelines.report.frame import ADAPTED, Scores

COLUMNS = ["variant", "of", "differs in", "variant's", "its", "difference", "skipped updates"]


def compare(scores: Scores, params: dict) -> list[dict]:
    """Returns the variants that were evaluated, with every seed there is.

    A variant is compared with the run of the same seed, or with that of the first seed. A method
    named as its own variant in params.yaml is one with other seeds.
    """
    domain, found = scores.domain, []
    values = scores.frame
    values = values[(values["step"] == ADAPTED) & (values["measure"] == domain.headline)]
    first = scores.seeds[0]
    for own, other in _pairs(scores, params):
        for seed in scores.of(*own):
            reference = (*other, seed)
            if own == other or reference not in scores.runs:
                reference = (*other, first)
            if reference not in scores.runs or (*own, seed) == reference:
                continue
            found.append(_comparison(scores, params, values, (*own, seed), reference))
    return found


def _pairs(scores, params):
    """Returns (method, set) of each variant and of what it is a variant of."""
    variants = parameters.get(params, f"{scores.domain.name}.ablations")
    if scores.domain.name == "regression":
        return [
            (scores.domain.split(own), scores.domain.split(other))
            for own, others in variants.items()
            for other in others
        ]
    sets = dict.fromkeys(tasks for _, tasks, _ in scores.runs)
    pairs = [(own, other) for own, others in variants.items() for other in others]
    return [((own, t), (other, t)) for (own, other), t in product(pairs, sets)]


def _comparison(scores, params, values, own, other):
    domain, runs = scores.domain, [scores.runs[own], scores.runs[other]]
    mine, its = (domain.settings(params, domain.run_name(*key[:2])) for key in (own, other))
    changes = [
        f"{name}: {mine.get(name)} (not {its.get(name)})"
        for name in dict.fromkeys([*mine, *its])  # some settings few cells have
        if mine.get(name) != its.get(name)
    ]
    first = scores.seeds[0]
    if own[2] != first:
        changes.append(f"seed: {own[2]} ({'both' if own[2] == other[2] else f'not {other[2]}'})")
    parts = []
    for name, key in (("own", own), ("other", other)):
        method, tasks, seed = key
        same = (values["method"] == method) & (values["set"] == tasks) & (values["seed"] == seed)
        parts.append(values[same].assign(method=name, set="", seed=0))
    both = pd.concat(parts)
    single = estimates.means(both, ["method"])
    difference = estimates.means(estimates.paired(both, "own", "other"), ["method"]).iloc[0]
    return {
        "name": f"{domain.run_name(*own[:2])}-{own[2]}",
        "reference": domain.run_name(*other[:2]),
        "changes": ", ".join(changes),
        "set": own[1],
        "estimates": [single.loc["own"], single.loc["other"]],
        "difference": difference,
        "skipped": [run.metrics.get("skipped_updates", 0) for run in runs],
    }


def table(scores: Scores, compared: list[dict]) -> pd.DataFrame:
    """Returns the table of the variants."""
    rows = []
    for item in compared:

        def text(value, sign="", tasks=item["set"]):
            return scores.domain.text(value["mean"], value["ci95"], tasks, sign)

        own, other = item["skipped"]
        rows.append(
            [item["name"], item["reference"], item["changes"], *map(text, item["estimates"]),
             text(item["difference"], "+"), f"{own} ({other})"]
        )  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)
