"""`catwalk report`: the tables as text and, if requested, as files."""

from collections.abc import Sequence
from pathlib import Path

from catwalk import WRITER
from catwalk.errors import ConfigError
from catwalk.formats.json_lines import atomic_file, canonical_json
from catwalk.formats.manifest import MANIFEST, describe_input, read_manifest, write_manifest
from catwalk.formats.results import PER_DOCUMENT, PREDICTIONS, RESULTS
from catwalk.lm_eval import lm_eval_results
from catwalk.page import render_markdown, render_page
from catwalk.results import LoadedResults, load_all
from catwalk.tables import Table, build_tables

__all__ = ["report"]


def report(directories: Sequence[Path], output: Path | None, lm_eval_json: Path | None) -> str:
    """The Markdown; also writes `report.md`, `report.html` and a manifest to `output`, and the lm-eval JSON.

    Raises:
        ConfigError: a path is not a directory, or the JSON is requested for several results.
    """
    models = load_all(directories)
    if lm_eval_json is not None and len(models) > 1:
        problem = f"lm-eval-json: got {len(models)} results; expected one"
        raise ConfigError(problem, hint="call catwalk report once for each")
    if output is not None and (output / MANIFEST).is_file() and read_manifest(output).format != "report":
        problem = f"output: {output} contains another artifact; expected a report or an empty directory"
        raise ConfigError(problem, hint="choose another --output")
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
        complete = (model.directory / MANIFEST).is_file()
        names = (RESULTS, PREDICTIONS, PER_DOCUMENT)
        parts = [model.directory] if complete else [model.directory / name for name in names]
        inputs += [entry for part in parts if part.exists() for entry in describe_input("results", part, output)]
    write_manifest(
        output,
        format="report",
        writer=WRITER,
        files=[output / name for name in contents],
        config={},
        counts={"models": len(models), "tables": len(tables)},
        details={},
        inputs=inputs,
    )
