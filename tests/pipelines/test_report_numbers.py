"""The report's estimates: against the package's, and against tables that were committed before."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from repository import ROOT

from mmaml_tf.report import Report
from pipelines.report import estimates, frame
from pipelines.report.domains import DOMAINS
from pipelines.report.frame import ADAPTED

GOLDEN = pd.read_csv(
    Path(__file__).parent / "golden_tables.csv", dtype={"set": str, "step": str, "seed": str},
    keep_default_na=False, na_values={"ci": ""},
)  # fmt: skip
KEYS = ["method", "set", "mode", "measure", "step"]
NORMAL = 1.96  # these tables had intervals of so many standard errors


def with_all(values, by):
    """Means by mode and over all modes, which are called "all"."""
    overall = estimates.means(values, by).reset_index().assign(mode="all")
    return pd.concat([overall, estimates.means(values, [*by, "mode"]).reset_index()])


def compare(golden, found, keys):
    both = golden.merge(found, on=keys, suffixes=("", "_ours"), how="left", validate="1:1")
    np.testing.assert_array_equal(both["n_ours"], both["n"])
    np.testing.assert_allclose(both["mean_ours"], both["mean"], rtol=1e-5, atol=1e-9)
    one = both["ci"].notna()
    np.testing.assert_allclose(NORMAL * both["se"][one], both["ci"][one], rtol=1e-5, atol=1e-9)
    # Student's intervals are the wider ones.
    assert (both["ci95"][one] >= both["ci"][one] * 0.9999).all()


def compare_pooled(golden, values):
    """Compares what has several seeds, all modes together; the number of values."""
    if not len(values):
        return 0
    found = estimates.over_seeds(values, ["method", "set", "measure", "step"])
    golden, compared = golden[golden["mode"] == "all"], 0
    for (method, tasks, measure, step), row in found.iterrows():
        step = "adapted" if step == ADAPTED else str(step)
        same = (golden["method"] == method) & (golden["set"] == tasks)
        for old in golden[
            same & (golden["measure"] == measure) & (golden["step"] == step)
        ].itertuples():
            np.testing.assert_allclose(row["mean"], old.mean, rtol=1e-5)
            if old.ci == old.ci:
                np.testing.assert_allclose(row["spread"], old.ci, rtol=1e-5)
            compared += 1
    return compared


@pytest.fixture(scope="module")
def scores():
    read = {}

    def of(table, domain):
        if (table, domain) not in read:
            read[table, domain] = frame.read(DOMAINS[domain], table, ROOT / "results")
        return read[table, domain]

    return of


TABLES = sorted(set(zip(GOLDEN["table"], GOLDEN["domain"], strict=True)))


@pytest.mark.parametrize(("table", "domain"), TABLES)
def test_the_frame_has_the_numbers_of_the_tables_before_it(scores, table, domain):
    golden = GOLDEN[(GOLDEN["table"] == table) & (GOLDEN["domain"] == domain)]
    own, all_pairs = golden[golden["reference"] == ""], golden[golden["reference"] != ""]
    values = scores(table, domain).frame
    one_seed = values.groupby(["method", "set"])["seed"].transform("nunique") == 1
    found = with_all(values[one_seed], ["method", "set", "measure", "step", "seed"])
    found["step"] = found["step"].map(lambda step: "adapted" if step == ADAPTED else str(step))
    keys = set(zip(found["method"], found["set"], strict=True))
    own = own[[pair in keys for pair in zip(own["method"], own["set"], strict=True)]]
    compare(own.drop(columns="seed"), found, KEYS)
    pooled = compare_pooled(golden[golden["reference"] == ""], values[~one_seed])
    values = values[(values["step"] == ADAPTED) & (values["measure"] == DOMAINS[domain].headline)]
    paired = estimates.differences(values, DOMAINS[domain].pairs)
    if len(all_pairs):
        found = with_all(paired, ["method", "reference", "set", "measure", "seed"])
        found["seed"] = found["seed"].astype(str)
        compare(all_pairs, found, ["method", "reference", "set", "mode", "measure", "seed"])
    assert len(own) + len(all_pairs) + pooled


def test_the_frozen_tables_are_whole():
    assert len(GOLDEN) > 1000
    assert ("laptop", "regression") in TABLES and len(TABLES) == 7


@pytest.mark.parametrize("bad", [None, np.inf, np.nan])
def test_means_and_differences_are_those_of_the_package(bad):
    rng, mode = np.random.default_rng(0), np.repeat([0, 1, 2], [7, 9, 4])
    values = {name: rng.normal(size=len(mode)) for name in "ab"}
    if bad is not None:
        values["a"][3] = bad
    task = np.concatenate([np.arange(n) for n in (7, 9, 4)])
    rows = [
        pd.DataFrame({"mode": np.array(list("xyz"))[mode], "task": task, "value": v})
        .assign(method=name, set="3", measure="m", step=ADAPTED, seed=0)
        for name, v in values.items()
    ]  # fmt: skip
    whole = pd.concat(rows)
    reports = {n: Report({"m": v[None]}, mode, ("x", "y", "z"), 1, (1,)) for n, v in values.items()}
    own = with_all(whole, ["method"]).set_index(["method", "mode"])
    paired = with_all(estimates.paired(whole, "a", "b"), ["method"]).set_index("mode")
    for name in (None, "x", "y", "z"):
        for expected, row in (
            (reports["a"].estimate(name), own.loc["a", name or "all"]),
            (reports["b"].estimate(name), own.loc["b", name or "all"]),
            (reports["a"].difference(reports["b"], name), paired.loc[name or "all"]),
        ):
            np.testing.assert_allclose(row["mean"], expected.mean)
            np.testing.assert_allclose(row["ci95"], expected.ci95)
            assert (row["n"], row["nonfinite"]) == (expected.n, expected.nonfinite)


def test_what_has_no_seed_is_compared_with_every_seed():
    def rows(method, seed, value):
        part = pd.DataFrame({"mode": ["x", "x"], "task": [0, 1], "value": value})
        return part.assign(method=method, seed=seed, set="2", measure="m", step=ADAPTED)

    whole = pd.concat(
        [rows("a", 0, [1.0, 2.0]), rows("a", 1, [3.0, 5.0]), rows("b", frame.SEEDLESS, [1.0, 1.0])]
    )
    for pair, sign in ((("a", "b"), 1), (("b", "a"), -1)):
        found = estimates.paired(whole, *pair)
        expected = {0: [0.0, 1.0], 1: [2.0, 4.0]}
        for seed, values in expected.items():
            np.testing.assert_array_equal(
                found["value"][found["seed"] == seed], np.multiply(sign, values)
            )
    pooled = estimates.over_seeds(whole, ["method"])
    assert pooled.loc["a", "mean"] == 2.75 and pooled.loc["a", "seeds"] == 2
    np.testing.assert_allclose(pooled.loc["a", "spread"], np.std([1.5, 4.0], ddof=1))
