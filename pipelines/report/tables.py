"""The tables of the reports: data frames of text, and the files of the same numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.report import estimates
from pipelines.report.domains import METHODS, Domain, label
from pipelines.report.frame import ADAPTED, Scores

DASH, NOT_RUN = "–", "not run"
_HERE = Path(__file__).parent
_KEYS = ["method", "set", "measure", "step"]

# By domain, the columns of the headline table and the inner steps before their values.
_STEPS = {"regression": {"post-modulation": 0, "post-adaptation": ADAPTED}}
# Values that mean nothing: MAML is not modulated, the LSTM learner has no inner steps.
_NONE = {("maml", 0), ("multi_maml", 0), ("bayes", 0), ("lstm", ADAPTED)}


def published_values(domain: Domain) -> pd.DataFrame:
    """Returns published values and spreads by method, set and step, in the units of the tables."""
    path = _HERE / "published" / f"{domain.name}.csv"
    values = pd.read_csv(path, comment="#", dtype={"set": str, "step": str})
    values["step"] = values["step"].replace("adapted", str(ADAPTED)).astype(int)
    return values.set_index(["method", "set", "step"])


class Numbers:
    """The estimates of a domain's results that tables and pictures show.

    Attributes:
        scores: the scores.
        cells: (method, set) of the rows of tables.
        pooled: `estimates.over_seeds` by method, set, measure, step and mode, where all modes
            together are called "all".
        paired: paired differences of the headline after adaptation, by method, reference, set,
            mode and seed.
        pooled_differences: the same over seeds.
    """

    def __init__(self, scores: Scores, cells: Sequence[tuple[str, str]]):
        self.scores, domain = scores, scores.domain
        order, sets = list(METHODS), scores.sets
        ran = {(method, tasks) for method, tasks, _ in scores.runs if method in METHODS}
        rows = {cell for cell in (*cells, *ran) if cell[1] in sets and cell[0] in order}
        self.cells = sorted(rows, key=lambda c: (sets.index(c[1]), order.index(c[0])))
        frame = scores.frame[scores.frame["method"].isin(order)]
        self.pooled = _with_all(estimates.over_seeds, frame, _KEYS)
        final = frame[(frame["step"] == ADAPTED) & (frame["measure"] == domain.headline)]
        paired, by = estimates.differences(final, domain.pairs), ["method", "reference", "set"]
        self.paired = _with_all(estimates.means, paired, by, ["seed"])
        self.pooled_differences = _with_all(estimates.over_seeds, paired, by)

    def value(self, method, tasks, step=ADAPTED, mode="all", measure=None):
        """Returns mean and spread as a row, or None where there is none."""
        key = method, tasks, measure or self.scores.domain.headline, step, mode
        return self.pooled.loc[key] if key in self.pooled.index else None

    def text(self, method: str, tasks: str, **which) -> str:
        """Returns mean and spread as text; arguments as for `value`."""
        regression = self.scores.domain.name == "regression"
        nothing = regression and (method, which.get("step", ADAPTED)) in _NONE
        if nothing or (method, tasks) not in self.cells:
            return DASH
        return self._shown(self.value(method, tasks, **which), tasks, method)

    def difference(self, method: str, reference: str, tasks: str) -> str:
        """Returns a paired difference as text."""
        if (method, reference) not in self.scores.domain.pairs or (method, tasks) not in self.cells:
            return DASH
        key = method, reference, tasks, "all"
        known = key in self.pooled_differences.index
        return self._shown(self.pooled_differences.loc[key] if known else None, tasks, method, "+")

    def _shown(self, value, tasks, method, sign=""):
        if value is None:
            return NOT_RUN
        text = self.scores.domain.text(value["mean"], value["spread"], tasks, sign)
        if value["nonfinite"]:
            text += f" ({int(value['nonfinite'])} not finite)"
        few = method != "bayes" and value["seeds"] < len(self.scores.seeds)
        seeds = int(value["seeds"])
        return text + (f" ({seeds} seed{'s' if seeds > 1 else ''})" if few else "")


def _with_all(estimate, frame, by, last=()):
    """Returns estimates by mode as well, the level before `last`; all modes are called "all"."""
    overall = estimate(frame, [*by, *last]).reset_index().assign(mode="all")
    by_mode = estimate(frame, [*by, "mode", *last]).reset_index()
    return pd.concat([overall, by_mode]).set_index([*by, "mode", *last]).sort_index()


def headline(numbers: Numbers) -> pd.DataFrame:
    """Returns the table of values beside the published ones, and of paired differences."""
    domain = numbers.scores.domain
    theirs = published_values(domain)
    references = list(dict.fromkeys(reference for _, reference in domain.pairs))
    rows = []
    for method, tasks in numbers.cells:
        row = {"tasks": domain.set_title(tasks), "method": label(method)}
        for title, step in _STEPS.get(domain.name, {"here": ADAPTED}).items():
            row[title] = numbers.text(method, tasks, step=step)
            beside = f"{title}, published" if domain.name in _STEPS else "published"
            row[beside] = _published(theirs, (method, tasks, step), domain)
        for reference in references:
            row[f"− {label(reference)}"] = numbers.difference(method, reference, tasks)
        rows.append(row)
    return pd.DataFrame(rows)


def _published(values, key, domain):
    if key not in values.index:
        return DASH
    value, spread = values.loc[key, ["value", "spread"]]
    if np.isnan(spread):
        return f"{value:.{2 if domain.factor > 1 else 3}f}"
    return f"{value:g} ± {spread:g}"


def more(numbers: Numbers) -> tuple[str, pd.DataFrame]:
    """Returns a caption and the table of what else a domain measures of its cells."""
    caption, columns = _MORE[numbers.scores.domain.name]
    rows = []
    for method, tasks in numbers.cells:
        row = {"tasks": numbers.scores.domain.set_title(tasks), "method": label(method)}
        rows.append(row | columns(numbers, method, tasks))
    return caption, pd.DataFrame(rows).fillna(DASH)


def _tails(numbers, method, tasks):
    """Returns the error without noise, the median, and the share of the worst tasks."""
    row = {"noise-free targets": DASH, "median": NOT_RUN, "share of the worst 1 %": NOT_RUN}
    value = numbers.value(method, tasks, measure="noise_free")
    row["noise-free targets"] = numbers._shown(value, tasks, method)
    frame = numbers.scores.frame
    final = (frame["step"] == ADAPTED) & (frame["measure"] == "noisy")
    values = frame[final & (frame["method"] == method) & (frame["set"] == tasks)]
    if len(values):
        losses = [np.sort(part.to_numpy()) for _, part in values.groupby("seed")["value"]]
        shares = [part[-max(1, len(part) // 100) :].sum() / part.sum() for part in losses]
        row["median"] = f"{np.mean([np.median(part) for part in losses]):.3f}"
        row["share of the worst 1 %"] = f"{np.mean(shares):.0%}"
    return row


def _chance(numbers, method, tasks):
    """Returns the accuracy of guessing, and whether every run's interval is above it."""
    runs = numbers.scores.of(method, tasks)
    if not runs:
        return dict.fromkeys(("chance", "lower end", "above chance"), NOT_RUN)
    frame = numbers.scores.frame
    final = (frame["step"] == ADAPTED) & (frame["method"] == method) & (frame["set"] == tasks)
    found = estimates.means(frame[final], ["seed"])
    lowest = (found["mean"] - found["ci95"]).min()
    chance = chance_of(runs)
    above = "yes" if lowest > chance else "no"
    texts = f"{100 * chance:.1f}", f"{100 * lowest:.1f}", above
    return dict(zip(("chance", "lower end", "above chance"), texts, strict=True))


def chance_of(runs) -> float:
    """Returns the accuracy of guessing: the mean over modes of 1 / ways."""
    return float(np.mean([1 / ways for ways in next(iter(runs.values())).metrics["ways"].values()]))


def _returns(numbers, method, tasks):
    return _of_steps(numbers, method, tasks, "all")


def _of_steps(numbers, method, tasks, mode):
    """Returns the value before adaptation and after each inner step."""
    runs = numbers.scores.of(method, tasks)
    curve = next(iter(runs.values())).curve if runs else (0, 1, 2)
    names = {step: f"after {step}" if step else "before" for step in curve}
    return {name: numbers.text(method, tasks, step=step, mode=mode) for step, name in names.items()}


_MORE = {
    "regression": (
        "Final error against noise-free targets; of that against noisy targets the median over "
        "tasks, and how much of the mean the worst 1 % of the tasks carry",
        _tails,
    ),
    "classification": (
        "Chance, the mean over modes of 1/ways, and the lower end of the 95 % confidence interval "
        "over tasks (the lowest over seeds), in %",
        _chance,
    ),
    "reinforcement": ("Return before adaptation and after each inner step", _returns),
}


def by_mode(numbers: Numbers) -> pd.DataFrame:
    """Returns the table of final values by mode; of policies after each inner step."""
    scores, rows = numbers.scores, []
    for tasks in scores.sets:
        for mode in scores.modes(tasks):
            row = {
                "tasks": scores.domain.set_title(tasks),
                "mode": _mode_title(scores, tasks, mode),
            }
            if scores.domain.name == "reinforcement":
                of_set = [method for method, other in numbers.cells if other == tasks]
                for method in of_set:
                    steps = _of_steps(numbers, method, tasks, mode)
                    rows.append(row | {"method": label(method)} | steps)
                continue
            for method in dict.fromkeys(method for method, _ in numbers.cells):
                final = 0 if method == "lstm" else ADAPTED
                row[label(method)] = numbers.text(method, tasks, mode=mode, step=final)
            rows.append(row)
    return pd.DataFrame(rows).fillna(DASH)


def _mode_title(scores, tasks, mode):
    ways = {
        run.metrics["ways"][mode]
        for (_, t, _), run in scores.runs.items()
        if t == tasks and run.metrics.get("ways", {}).get(mode)
    }
    asked = tasks.rpartition("-")[2].partition("w")[0]
    return f"{mode} ({ways.pop()}-way)" if ways and str(min(ways)) != asked else mode


def write_table(numbers: Numbers, path: Path) -> None:
    """Writes means and spreads by method, set, mode, measure and number of inner steps."""
    domain, theirs = numbers.scores.domain, published_values(numbers.scores.domain)
    values = numbers.pooled.reset_index()
    values = values[(values["step"] <= 0) | (domain.name != "regression")]
    values["spread_is"] = np.where(values["seeds"] == 1, "ci95 over tasks", "sd over seeds")
    keys = list(zip(values["method"], values["set"], values["step"], strict=True))
    compared = (values["mode"] == "all") & (values["measure"] == domain.headline)
    known = [use and key in theirs.index for use, key in zip(compared, keys, strict=True)]
    for name, column in (("published", "value"), ("published_spread", "spread")):
        values[name] = [
            theirs.loc[key, column] if has else None for key, has in zip(keys, known, strict=True)
        ]
    values["step"] = values["step"].replace(ADAPTED, "adapted")
    columns = ["mode", "measure", "step", "seeds", "tasks", "nonfinite", "mean", "spread"]
    columns += ["spread_is", "published", "published_spread"]
    _write(domain, values, columns, path)


def write_differences(numbers: Numbers, path: Path) -> None:
    """Writes paired differences, one row a seed and, for several, one over seeds."""
    single = numbers.paired.reset_index()
    several = numbers.pooled_differences.reset_index()
    several = several[several["seeds"] > 1].rename(
        columns={"spread": "sd_over_seeds", "tasks": "n"}
    )
    values = pd.concat([single, several.assign(seed="all")])
    columns = ["reference", "mode", "seed", "mean", "ci95", "n", "sd_over_seeds"]
    _write(
        numbers.scores.domain, values.reindex(columns=["method", "set", *columns]), columns, path
    )


def _write(domain, values, columns, path):
    order = {name: index for index, name in enumerate(METHODS)}
    values = values.assign(order=values["method"].map(order), is_all=values["mode"] != "all")
    values = values.sort_values(["set", "order", "is_all"], kind="stable")
    for name in ("method", "reference"):
        if name in values:
            values[name] = values[name].map(label)
    parts = [domain.values(tasks) for tasks in values["set"]]
    for name in domain.columns:
        values[name] = [part[name] for part in parts]
    first = ["method", *(["reference"] if "reference" in columns else []), *domain.columns]
    rest = [name for name in columns if name not in first]
    values[[*first, *rest]].to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
