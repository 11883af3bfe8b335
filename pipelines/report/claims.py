"""Which published claims hold here: how far MMAML is above its baselines, there and here."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from pipelines.report.domains import Domain, label
from pipelines.report.facts import published_protocol
from pipelines.report.frame import ADAPTED
from pipelines.report.tables import published_values

HOLDS, OPPOSITE, OPEN, NOT_RUN = "holds", "opposite", "open", "not run"


def judge(domain: Domain, directory: Path) -> list[dict]:
    """Returns for each published set of tasks and baseline how far the method is above it.

    Args:
        domain: the domain.
        directory: `results/<scale>/<domain>`, whose differences.csv and metrics are read.

    Returns:
        Rows with the set and its title, the baseline, `theirs` (the published advantage), `mean`,
        `low` and `high` (ours with its 95 % interval, NaN where it was not run), the verdict and
        what was trained. An advantage is positive where the method is better.
    """
    theirs, found = published_values(domain)["value"] / domain.factor, _ours(domain, directory)
    rows = []
    for tasks in dict.fromkeys(theirs.index.get_level_values("set")):
        for baseline in domain.baselines:
            keys = [(method, tasks, ADAPTED) for method in (domain.method, baseline)]
            published = domain.better * (theirs[keys[0]] - theirs[keys[1]])
            mean, half = found.get((baseline, tasks), (np.nan, np.nan))
            rows.append(
                {
                    "set": tasks,
                    "title": domain.set_title(tasks),
                    "group": domain.group(tasks) if domain.name == "reinforcement" else "",
                    "baseline": label(baseline),
                    "theirs": published,
                    "mean": mean,
                    "low": mean - half,
                    "high": mean + half,
                    "verdict": verdict(published, mean, half),
                    "trained": _trained(domain, directory, tasks),
                }
            )
    for group in {row["group"] for row in rows}:
        own = [row for row in rows if row["group"] == group]
        values = [abs(row[name]) for row in own for name in ("theirs", "low", "high")]
        for row in own:
            row["reach"] = 1.05 * np.nanmax(values)
    return rows


def verdict(published: float, mean: float, half: float) -> str:
    """Returns whether an advantage has the sign of the published one, beyond its interval."""
    if np.isnan(mean):
        return NOT_RUN
    if np.isnan(half) or abs(mean) <= half:
        return OPEN
    return HOLDS if np.sign(mean) == np.sign(published) else OPPOSITE


def _ours(domain, directory):
    """Returns advantage and half-width of its interval by baseline and set."""
    path = directory / "differences.csv"
    if not path.is_file():
        return {}
    table = pd.read_csv(path, dtype=dict.fromkeys([*domain.columns, "seed"], str))
    table = table[table["mode"] == "all"]
    found = {}
    for baseline in domain.baselines:
        for first, second, sign in ((domain.method, baseline, 1), (baseline, domain.method, -1)):
            chosen = (table["method"] == label(first)) & (table["reference"] == label(second))
            for values, part in table[chosen].groupby(list(domain.columns)):
                mean, half = _pooled(part)
                key = baseline, "-".join(values)
                found[key] = domain.better * sign * mean, half
    return found


def _pooled(rows):
    """Returns mean and half-width: over tasks for one seed, over seeds for several."""
    if len(rows) == 1:
        return rows["mean"].iloc[0], rows["ci95"].iloc[0]
    pooled, seeds = rows[rows["seed"] == "all"].iloc[0], len(rows) - 1
    return pooled["mean"], stdtrit(seeds - 1, 0.975) * pooled["sd_over_seeds"] / np.sqrt(seeds)


def _trained(domain, directory, tasks):
    """Returns for how many iterations the method was trained, and the published number."""
    published = published_protocol(domain.name)["iterations"]
    published = published[domain.group(tasks)] if isinstance(published, dict) else published
    name = domain.run_name(domain.method, tasks)
    paths = sorted((directory / "metrics").glob(f"{name}-[0-9]*.json"))
    counts = {json.loads(path.read_text()).get("iterations") for path in paths} - {None}
    if not counts:
        return ""
    return f"{' or '.join(f'{count:,}' for count in sorted(counts))} of {published:,}"


def conclusion(domain: Domain, rows: list[dict]) -> list[dict]:
    """Returns for each baseline on how many sets the method is better, here and as published."""
    found = []
    for baseline in dict.fromkeys(row["baseline"] for row in rows):
        own = [row for row in rows if row["baseline"] == baseline]
        run = [row for row in own if row["verdict"] != NOT_RUN]
        shares = {
            "sets": len(own),
            "run": len(run),
            "published": sum(row["theirs"] > 0 for row in own),
            "better": sum(row["low"] > 0 for row in run),
            "worse": sum(row["high"] < 0 for row in run),
            "holds": sum(row["verdict"] == HOLDS for row in run),
        }
        found.append({"claim": f"{label(domain.method)} above {baseline}", **shares})
    return found
