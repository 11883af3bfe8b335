"""Stage `page`: one page that needs no other file: which claims hold, then each domain's report."""

import argparse
import base64
import csv
import html
import re
from pathlib import Path

from markupsafe import Markup

from pipelines import params as parameters
from pipelines.report import claims, templates
from pipelines.report.domains import DOMAINS

# What a tracked run keeps of each domain.
_TRACKED = ("table.md", "table.csv", "differences.csv", "summary.json", "plots")
_PICTURE = re.compile(r'<img src="([^"]*)"')
_HEADING = re.compile(r'<article id="([^"]+)">\n<h2>(.*?)</h2>|<h3 id="([^"]+)">(.*?)</h3>')


def main() -> None:
    """Writes the page of the scale that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", required=True, choices=parameters.SCALES)
    directory = Path("results", parser.parse_args().scale)
    page = assemble(directory)
    (directory / "report.html").write_text(page)
    _track(directory)
    print(directory / "report.html")


def assemble(directory: Path) -> str:
    """Returns the page that joins the sections under `results/<scale>`.

    Raises:
        SystemExit: when there is no section, or a picture is missing or not a local file.
    """
    domains, contents = [], []
    for domain in DOMAINS.values():
        path = directory / domain.name / "section.html"
        if not path.is_file():
            continue
        rows = claims.judge(domain, path.parent)
        section = _embed_pictures(path)
        for match in _HEADING.finditer(section):
            anchor, title = match[1] or match[3], html.unescape(match[2] or match[4])
            contents.append({"anchor": anchor, "title": title, "top": bool(match[1])})
        domains.append(
            {
                "domain": domain,
                "rows": rows,
                "conclusion": claims.conclusion(domain, rows),
                "section": Markup(section),
                "record": not any((path.parent / "scores").glob("*.npz")),
            }
        )
    if not domains:
        raise SystemExit(f"report: no {directory}/<domain>/section.html; run a domain's report.")
    template = templates.environment().get_template("page.html.j2")
    return template.render(scale=directory.name, domains=domains, contents=contents)


def _embed_pictures(path):
    def embed(match):
        source = html.unescape(match[1])
        picture = path.parent / source
        if ":" in source or source.startswith("/") or not picture.is_file():
            raise SystemExit(
                f"report: {path} shows {source!r}, which is no file beside it; run the domain's "
                "report again."
            )
        data = base64.b64encode(picture.read_bytes()).decode()
        return f'<img src="data:image/png;base64,{data}"'

    return _PICTURE.sub(embed, path.read_text())


def _track(directory):
    """Keeps the page and its tables, pictures and paired differences in one tracked run."""
    from mmaml_tf.tracking import Tracker

    experiment = f"report-{directory.name}"
    with Tracker(experiment, run_name="report", key="report") as tracker:
        tracker.log_artifact(directory / "report.html")
        for domain in DOMAINS.values():
            folder = directory / domain.name
            for name in _TRACKED:
                if (folder / name).exists():
                    tracker.log_artifact(folder / name, domain.name)
            tracker.log_summary({domain.name: _differences(domain, folder / "differences.csv")})


def _differences(domain, path):
    """Returns mean and interval of each paired difference over all modes."""
    found = {}
    if path.exists():
        with open(path, newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["mode"] == "all"]
        for row in rows:
            where = "-".join(row[name] for name in domain.columns)
            name = f"{row['method']} minus {row['reference']} {where} seed {row['seed']}"
            found[name] = {key: float(row[key]) for key in ("mean", "ci95") if row[key]}
    return found


if __name__ == "__main__":
    main()
