"""Checkpoints from a Hub: a server on this machine with the Hub's answers, the cache, and what can be missing."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from catwalk.formats.contract import ConfigError, WorkError
from catwalk.hub import download_checkpoint
from hub_server import Hub, serve_hub

Build = Callable[[str], Path]


@pytest.fixture
def hub(build_checkpoint: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with the model `lab/olmo` at revision `step1`."""
    files = {path.name: path.read_bytes() for path in build_checkpoint("olmo").iterdir()}
    files["pytorch_model.bin"] = b"a pickle"
    repositories = {("models/lab/olmo", "step1"): files}
    with serve_hub(Hub(files=repositories), tmp_path / "cache", monkeypatch) as server:
        yield server


def test_checkpoint_is_downloaded_once_and_equal(hub: Hub, build_checkpoint: Build) -> None:
    found = download_checkpoint("lab/olmo", "step1", offline=False)
    assert not (found / "pytorch_model.bin").exists()
    for path in build_checkpoint("olmo").iterdir():
        assert (found / path.name).read_bytes() == path.read_bytes()
    hub.asked.clear()
    assert download_checkpoint("lab/olmo", "step1", offline=True) == found
    assert hub.asked == []


def test_model_of_the_hub_scores_like_its_directory(hub: Hub, build_checkpoint: Build) -> None:
    from catwalk.backends.opening import open_model
    from catwalk.backends.specs import parse_spec
    from catwalk.types import Pair

    pairs = [Pair(context="The hen", continuation=" lays eggs")]
    found = open_model("hub:lab/olmo@step1").score(pairs)
    assert found == open_model(str(build_checkpoint("olmo"))).score(pairs)
    assert parse_spec("hub:lab/olmo@step1").name == "olmo-step1"


def test_what_is_missing_is_named(hub: Hub) -> None:
    with pytest.raises(ConfigError, match="model: hub:lab/olmo@step9: not found on the Hub"):
        download_checkpoint("lab/olmo", "step9", offline=False)
    with pytest.raises(ConfigError, match="model: hub:lab/none@main: not found on the Hub"):
        download_checkpoint("lab/none", "main", offline=False)
    with pytest.raises(ConfigError, match="model: hub:lab/olmo@main: not in the cache"):
        download_checkpoint("lab/olmo", "main", offline=True)


def test_no_network_is_an_error_that_names_the_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WorkError, match="model: hub:lab/olmo@main: "):
        download_checkpoint("lab/olmo", "main", offline=False)
