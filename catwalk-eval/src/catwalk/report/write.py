"""`catwalk report`: the tables as text, and where asked for as files."""

from collections.abc import Sequence
from pathlib import Path

from catwalk import DISTRIBUTION, __version__
from catwalk.errors import ConfigError
from catwalk.formats.json_lines import atomic_file, canonical_json
from catwalk.formats.manifest import MANIFEST, describe_input, read_manifest, write_manifest
from catwalk.formats.results import PER_DOCUMENT, PREDICTIONS, RESULTS
from catwalk.report.compare import comparison_tables
from catwalk.report.lm_eval import lm_eval_results
from catwalk.report.loaded import LoadedResults, load_all
from catwalk.report.markdown import render_markdown
from catwalk.report.page import render_page
from catwalk.report.tables import Table, domain_table, metric_tables, model_table, source_table, task_table

__all__ = ["build_tables", "report"]


def build_tables(models: Sequence[LoadedResults]) -> list[Table]:
    """Every table of the report, headline first."""
    tables = [task_table(models)] if any(model.tasks for model in models) else []
    if any(model.domains for model in models):
        tables.append(source_table(models))
    if len(models) > 1:
        tables += comparison_tables(models)
    if any(model.domains for model in models):
        tables.append(domain_table(models))
    return [*tables, *metric_tables(models), model_table(models)]


def report(directories: Sequence[Path], output: Path | None, lm_eval_json: Path | None) -> str:
    """The Markdown; also writes `report.md`, `report.html` and a manifest to `output`, and the lm-eval JSON.

    Raises:
        ConfigError: when a path is absent, or the JSON is asked for of several results.
    """
    models = load_all(directories)
    if lm_eval_json is not None and len(models) > 1:
        problem = f"lm-eval-json: {len(models)} results are named; expected one"
        raise ConfigError(problem, hint="call catwalk report once for each")
    if output is not None and (output / MANIFEST).is_file() and read_manifest(output)["format"] != "report":
        problem = f"output: {output} holds another artifact; expected a report or an empty directory"
        raise ConfigError(problem, hint="name another --output")
    tables = build_tables(models)
    text = render_markdown(tables)
    if lm_eval_json is not None:
        with atomic_file(lm_eval_json) as stream:
            stream.write(canonical_json(lm_eval_results(models[0])).encode())
    if output is not None:
        _write(output, models, tables, text)
    return text


def _write(output: Path, models: Sequence[LoadedResults], tables: Sequence[Table], text: str) -> None:
    title = "Evaluation of " + ", ".join(model.results["model"]["name"] for model in models)
    (output / MANIFEST).unlink(missing_ok=True)  # unfinished until written again
    contents = {"report.md": f"# {title}\n\n{text}", "report.html": render_page(title, tables)}
    for name, content in contents.items():
        with atomic_file(output / name) as stream:
            stream.write(content.encode())
    inputs = []
    for model in models:
        whole = (model.directory / MANIFEST).is_file()
        names = (RESULTS, PREDICTIONS, PER_DOCUMENT)
        parts = [model.directory] if whole else [model.directory / name for name in names]
        inputs += [entry for part in parts if part.exists() for entry in describe_input("results", part, output)]
    write_manifest(
        output,
        format="report",
        writer=(DISTRIBUTION, __version__),
        files=[output / name for name in contents],
        config={},
        counts={"models": len(models), "tables": len(tables)},
        details={},
        inputs=inputs,
    )
