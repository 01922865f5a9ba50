"""Every shipped settings file is read by its package, for which unknown keys and wrong types are errors."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from repository import ROOT, tracked

Loader = Callable[[Path], Any]


def _dolma(command: str) -> Loader:
    def load(path: Path) -> Any:
        config = importlib.import_module("dolma.config")
        return config.load(importlib.import_module(f"dolma.commands.{command}").Config, config.read_file(str(path)), {})

    return load


def _preset(path: Path) -> Any:
    settings = list(yaml.safe_load_all(path.read_text("utf-8")))
    commands = ["mix" if "streams" in part else "dedupe" if "dedupe" in part else "tag" for part in settings]
    config = importlib.import_module("dolma.config")
    kinds = [importlib.import_module(f"dolma.commands.{command}").Config for command in commands]
    return [config.load(kind, part, {}) for kind, part in zip(kinds, settings, strict=True)]


def _paloma(module: str, kind: str) -> Loader:
    def load(path: Path) -> Any:
        config = getattr(importlib.import_module(module), kind)
        return importlib.import_module("paloma.settings").load(config, path)

    return load


def _trainer(path: Path) -> Any:
    return importlib.import_module("olmo_trainer.config.load").load_config(path, [])


def _catwalk(path: Path) -> Any:
    return importlib.import_module("catwalk.config").load_config(path, {}, [])


def _benchmark(path: Path) -> Any:
    if path.name in ("sets.yaml", "olmes.yaml"):
        return yaml.safe_load(path.read_text("utf-8"))
    from catwalk.declarations import read_declaration

    return read_declaration(path)


def _instruct(kind: str, module: str = "open_instruct.config") -> Loader:
    def load(path: Path) -> Any:
        config = importlib.import_module("open_instruct.config")
        return config.load_config(getattr(importlib.import_module(module), kind), path, [])

    return load


def _mixture(path: Path) -> Any:
    mixing = importlib.import_module("open_instruct.mix")
    return [mixing._parse_source(source) for source in mixing._expand([str(path)])]


LOADERS: list[tuple[str, Loader]] = [
    (r"(demo|dolma-toolkit)/configs/(.*-)?tag\.yaml", _dolma("tag")),
    (r"(demo|dolma-toolkit)/configs/(.*-)?mix\.yaml", _dolma("mix")),
    (r"(demo|dolma-toolkit)/configs/(.*-)?tokens\.yaml", _dolma("tokens")),
    (r"demo/configs/curate\.yaml", _dolma("run")),
    (r"(demo|dolma-toolkit)/configs/(.*-)?(dedupe|remember-.*|recognize-.*)\.yaml", _dolma("dedupe")),
    (r"dolma-toolkit/src/dolma/presets/.*\.yaml", _preset),
    (r"(trainer/configs/.*|demo/configs/train)\.yaml", _trainer),
    (r"catwalk-eval/configs/.*\.yaml", _catwalk),
    (r"catwalk-eval/src/catwalk/benchmarks/.*\.yaml", _benchmark),
    (r"paloma/configs/(build|suite)\.yaml", _paloma("paloma.build", "BuildConfig")),
    (r"paloma/configs/controls\.yaml", _paloma("paloma.controls", "Controls")),
    (r"(open-instruct|demo)/configs/(.*-)?sft\.yaml", _instruct("SftConfig")),
    (r"(open-instruct|demo)/configs/(.*-)?dpo\.yaml", _instruct("DpoConfig")),
    (r"open-instruct/configs/reward\.yaml", _instruct("RewardConfig", "open_instruct.reward.config")),
    (r"open-instruct/configs/grpo\.yaml", _instruct("GrpoConfig", "open_instruct.grpo.config")),
    (r"open-instruct/configs/mixtures/.*\.yaml", _mixture),
]
SHIPPED = [name for name in tracked() if name.endswith((".yaml", ".yml"))]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_settings_are_read_by_their_package(name: str) -> None:
    loaders = [load for pattern, load in LOADERS if re.fullmatch(pattern, name)]
    assert len(loaders) == 1, f"{name}: no loader is known; add one to LOADERS"
    assert loaders[0](ROOT / name) is not None
