"""Means with intervals and paired differences of scores, pooled over modes and seeds.

They are functions of `frame.Scores.frame` or a part of it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from pipelines.report.frame import SEEDLESS

_PAIR = ["set", "measure", "step", "mode", "task"]


def means(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Returns means over tasks with the half-widths of their 95 % confidence intervals.

    Where `by` does not name the mode, a mean is the unweighted mean of the modes' means, and its
    interval is stratified by mode, with the degrees of freedom of Welch and Satterthwaite. No value
    is left out: where one is not finite, neither are mean and interval.

    Args:
        frame: rows with a mode and a value.
        by: the columns whose values tell what is averaged.

    Returns:
        A row a group, indexed by `by`, with mean, ci95, se, n and nonfinite.
    """
    strata = _strata(frame, [*by, *([] if "mode" in by else ["mode"])])
    groups = strata.groupby(level=list(range(len(by))), sort=False)
    found = groups.agg(
        mean=("mean", "mean"), n=("n", "sum"), nonfinite=("nonfinite", "sum"),
        modes=("n", "size"), fewest=("n", "min"), total=("error", "sum"), squares=("own", "sum"),
        freedom=("freedom", "sum"),
    )  # fmt: skip
    bad = (found["nonfinite"] > 0) | (found["fewest"] < 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        together = found["total"] ** 2 / found["squares"]
        freedom = together.where(found["total"] > 0, found["freedom"])
        error = np.sqrt(found["total"]) / found["modes"]
        interval = stdtrit(freedom, 0.975) * error
    if (found["nonfinite"] > 0).any():  # pandas leaves values out
        found["mean"] = groups["mean"].agg(_mean)
    found["ci95"], found["se"] = interval.where(~bad), error.where(~bad)
    return found[["mean", "ci95", "se", "n", "nonfinite"]]


def _strata(frame, by):
    frame = frame.assign(finite=np.isfinite(frame["value"]))
    groups = frame.groupby(by, sort=False, observed=True)
    strata = groups.agg(n=("value", "size"), finite=("finite", "sum"))
    with np.errstate(invalid="ignore"):
        strata["mean"], variance = groups["value"].mean(), groups["value"].var(ddof=1)
    strata["nonfinite"] = strata["n"] - strata["finite"]
    if (strata["nonfinite"] > 0).any():
        strata["mean"] = groups["value"].agg(_mean)
    strata["error"], strata["freedom"] = variance / strata["n"], strata["n"] - 1
    strata["own"] = strata["error"] ** 2 / strata["freedom"].where(strata["freedom"] > 0)
    return strata


def _mean(values):
    with np.errstate(invalid="ignore"):
        return np.mean(values.to_numpy())


def over_seeds(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Returns means with their spread: the interval over tasks of one seed, else the deviation.

    Returns:
        A row a group, indexed by `by`, with mean, spread, tasks, seeds and nonfinite. The spread
        of several seeds is the standard deviation of their means.
    """
    single = means(frame, [*by, "seed"])
    groups = single.groupby(level=list(range(len(by))), sort=False)
    found = groups.agg(
        mean=("mean", "mean"), tasks=("n", "first"), seeds=("n", "size"), ci95=("ci95", "first"),
        deviation=("mean", "std"), nonfinite=("nonfinite", "sum"),
    )  # fmt: skip
    found["spread"] = found["ci95"].where(found["seeds"] == 1, found["deviation"])
    return found[["mean", "spread", "tasks", "seeds", "nonfinite"]]


def paired(frame: pd.DataFrame, method: str, reference: str) -> pd.DataFrame:
    """Returns the values of `method` minus those of `reference` on the same tasks and seeds.

    What has no seed is compared with every seed of the other.
    """
    own, other = (frame[frame["method"] == name] for name in (method, reference))
    seedless = [(part["seed"] == SEEDLESS).all() for part in (own, other)]
    if any(seedless):
        keys, kept = _PAIR, "seed_y" if seedless[0] else "seed_x"
    else:
        keys, kept = [*_PAIR, "seed"], "seed"
    both = own.merge(other, on=keys, suffixes=("_x", "_y"))
    with np.errstate(invalid="ignore"):
        value = both["value_x"] - both["value_y"]
    return both[_PAIR].assign(
        seed=both[kept], value=value, method=method, reference=reference
    )  # fmt: skip


def differences(frame: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Returns the paired values of all pairs that have any, with a column `reference`."""
    found = [paired(frame, method, reference) for method, reference in pairs]
    found = [part for part in found if len(part)]
    if found:
        return pd.concat(found, ignore_index=True)
    empty = pd.DataFrame(columns=[*_PAIR, "seed", "value", "method", "reference"])
    return empty.astype({"value": float})
