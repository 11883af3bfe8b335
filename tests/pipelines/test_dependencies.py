"""What dvc.yaml names as dependencies."""

import ast

import pytest
import yaml
from repository import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


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
    modules = imported(script) - {"params"}  # whose values are dependencies
    assert script in modules
    assert {f"pipelines/{name}.py" for name in modules} <= set(STAGES[stage]["deps"])


def test_code_that_is_named_is_there():
    named = {dep for stage in STAGES.values() for dep in stage.get("deps", [])}
    code = {dep for dep in named if dep.startswith(("pipelines/", "mmaml_tf/"))}
    assert len(code) > 30
    assert [dep for dep in sorted(code) if not (ROOT / dep).exists()] == []
