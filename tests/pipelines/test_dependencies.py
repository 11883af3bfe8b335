"""What dvc.yaml names as dependencies."""

import ast

import pytest
import yaml
from repository import ROOT, stages

from pipelines.code_digest import CODE, files

STAGES = stages()


def imported(module):
    """The modules of the pipeline that one of them imports, itself included, and so on."""
    found, new = set(), {module}
    while new:
        found |= new
        imports = set()
        for name in new:
            for node in ast.walk(ast.parse((ROOT / f"pipelines/{name}.py").read_text())):
                if isinstance(node, ast.ImportFrom) and node.module == "pipelines":
                    imports |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module.startswith("pipelines."):
                    imports.add(node.module.removeprefix("pipelines."))
        new = imports - found
    return found


@pytest.mark.parametrize("stage", ["report_regression", "report_images", "report_policies", "page"])
def test_reports_depend_on_all_their_modules(stage):
    script = STAGES[stage]["cmd"].split()[2].removeprefix("pipelines.")
    modules = imported(script) - {"params", "code_digest"}  # their values are dependencies
    assert script in modules
    assert {f"pipelines/{name}.py" for name in modules} <= set(STAGES[stage]["deps"])


def test_code_that_is_named_is_there():
    named = {dep for stage in STAGES.values() for dep in stage.get("deps", [])}
    named |= {path for paths in CODE.values() for path in paths}
    code = {dep for dep in named if dep.startswith(("pipelines/", "mmaml_tf/"))}
    assert len(code) > 60
    assert [dep for dep in sorted(code) if not (ROOT / dep).exists()] == []


#: decide no number of a trained or evaluated model
NO_NUMBERS = {
    "__init__.py", "__main__.py", "arguments.py", "checkpoint.py", "checks.py", "extras.py",
    "mlflow_model.py", "mlflow_policy.py", "names.py", "tracking.py", "tasks/__init__.py",
    "rl/__init__.py",
    # on the way to what other stages write, which name them
    "tasks/bayes.py", "tasks/callables.py",
    # no stage has such tasks
    "tasks/arrays.py", "tasks/augmentation.py", "tasks/columns.py", "tasks/given.py",
}  # fmt: skip


def test_every_module_is_part_of_a_digest():
    covered = {file for name in CODE for file in files(name)}
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mmaml_tf").rglob("*.py")}
    left = {path.removeprefix("mmaml_tf/") for path in package - covered}
    assert {p for p in left if not p.startswith(("command_line/", "datasets/"))} == NO_NUMBERS
    assert not [path for path in covered if "__pycache__" in path]


@pytest.mark.parametrize("domain", ["regression", "classification", "reinforcement"])
def test_stages_depend_on_the_digests_of_their_code(domain):
    checked = []
    for name, stage in STAGES.items():
        kind = name.partition("_")[0]
        if kind in ("train", "evaluate", "export") and f"/{domain}/" in stage["outs"][0]:
            found = {dep for dep in stage["deps"] if dep.startswith("models/code/")}
            assert found == {f"models/code/{part}_{domain}.json" for part in {"train", kind}}
            checked.append(name)
    assert len(checked) == {"regression": 6, "classification": 5, "reinforcement": 5}[domain]


def test_dvc_has_a_record_of_every_committed_metric():
    recorded = set()
    for lock in (ROOT / "dvc.lock", *ROOT.glob("stages/*/dvc.lock")):
        for stage in yaml.safe_load(lock.read_text())["stages"].values():
            recorded |= {out["path"] for out in stage["outs"]}
    metrics = {
        path.relative_to(ROOT).as_posix() for path in ROOT.glob("results/*/*/metrics/*.json")
    }
    metrics = {path for path in metrics if not path.startswith("results/smoke/")}
    assert len(metrics) > 100
    assert sorted(metrics - recorded) == []


@pytest.mark.parametrize("domain", ["regression", "classification", "reinforcement"])
def test_laptop_results_are_of_code_that_is_recorded(domain):
    path = ROOT / ("dvc.lock" if domain == "regression" else f"stages/{domain}/dvc.lock")
    trained = [
        stage
        for name, stage in yaml.safe_load(path.read_text())["stages"].items()
        if name.startswith("train") and "@laptop" in name
    ]
    assert len(trained) > 10
    for stage in trained:
        digest = f"models/code/train_{domain}.json"
        assert digest in {dep["path"] for dep in stage["deps"]}
