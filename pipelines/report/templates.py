"""Writes HTML and Markdown from the templates in templates/."""

from pathlib import Path

import jinja2
import pandas as pd

from pipelines.report.domains import label

_NAMED = {"tasks", "method", "mode", "variant", "of", "differs in", "table", "baseline"}


def environment() -> jinja2.Environment:
    """Returns the templates' environment, which escapes what goes into HTML."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"rows": rows, "label": label}
    found.globals["named"] = _NAMED
    return found


def rows(table: pd.DataFrame) -> list[list]:
    """Returns the rows of a table; the first column is empty where it repeats the one above."""
    found, before = [], None
    for row in table.astype(str).to_numpy().tolist():
        found.append([("" if row[0] == before else row[0]), *row[1:]])
        before = row[0]
    return found


def write(name: str, path: Path, **content) -> None:
    """Writes a file from a template and its content."""
    path.write_text(environment().get_template(name).render(**content))
