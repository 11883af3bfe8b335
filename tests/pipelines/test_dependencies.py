"""What dvc.yaml names as dependencies."""

import ast

import pytest
import yaml
from repository import ROOT, stages

from pipelines.code_digest import CODE, files

STAGES = stages()


REPORTS = ["report_regression", "report_images", "report_policies", "page"]


def imported(stage):
    """The modules of the pipeline that the script of a stage imports, and those in turn."""
    name = STAGES[stage]["cmd"].split()[2]
    new, found = {name.replace("pipelines.report", "pipelines.report.__main__")}, set()
    while new:
        found |= new
        imports = set()
        for name in new:
            path = ROOT / f"{name.replace('.', '/')}.py"
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module.startswith("pipelines"):
                    names = {f"{node.module}.{alias.name}" for alias in node.names}
                    imports |= names | {node.module}
        new = {
            name for name in imports if (ROOT / f"{name.replace('.', '/')}.py").is_file()
        } - found
    return found


@pytest.mark.parametrize("stage", REPORTS)
def test_reports_depend_on_all_their_modules(stage):
    modules = imported(stage) - {"pipelines.params"}  # its values are dependencies
    assert len(modules) > 5
    deps = STAGES[stage]["deps"]
    for name in modules:
        path = f"{name.replace('.', '/')}.py"
        assert any(path == dep or path.startswith(f"{dep}/") for dep in deps), path


@pytest.mark.parametrize("stage", REPORTS)
def test_reports_read_only_what_git_keeps(stage):
    assert [dep for dep in STAGES[stage]["deps"] if dep.startswith("models/")] == []


def test_code_that_is_named_is_there():
    named = {dep for stage in STAGES.values() for dep in stage.get("deps", [])}
    named |= {path for paths in CODE.values() for path in paths}
    code = {dep for dep in named if dep.startswith(("pipelines/", "mmaml_tf/"))}
    assert len(code) > 60
    assert [dep for dep in sorted(code) if not (ROOT / dep).exists()] == []


#: decide no number of a trained or evaluated model
NO_NUMBERS = {
    "__init__.py", "__main__.py", "arguments.py", "checkpoint.py", "checks.py", "extras.py",
    "names.py", "tasks/__init__.py",
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
    assert {
        p for p in left if not p.startswith(("command_line/", "datasets/", "tracking/"))
    } == NO_NUMBERS
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
