"""How a model is named, and opening it: a directory, `hub:OWNER/NAME[@REVISION]`, or the address of an API."""

from dataclasses import dataclass, field
from pathlib import Path

from ..config import RuntimeSettings, TemplateSettings
from ..formats.contract import ConfigError, first_line
from .api import ApiModel, is_address
from .items import Model

__all__ = ["Opening", "check_model", "open_model"]

_HUB = "hub:"
_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]  # no pickled weights


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How checkpoints are loaded, and how many answers are generated or requested at a time."""

    template: str | None = None
    dtype: str = "float32"
    batch: int = 16
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)


def check_model(option: str, name: str) -> None:
    """Check that a name may be a model, before any work. Raises ConfigError."""
    if not (is_address(name) or name.startswith(_HUB) or Path(name).expanduser().is_dir()):
        raise ConfigError(
            f"{option}: {name} is not a directory; expected a checkpoint, hub:OWNER/NAME, or the address of an API"
        )


def open_model(name: str, opening: Opening, *, title: str | None = None, served: str | None = None) -> Model:
    """Open a model; `title` is its name in the results, `served` the name that an API knows it by.

    Raises:
        ConfigError: there is no such model. FormatError: its files break their format.
    """
    if is_address(name):
        return ApiModel(name, served, at_once=opening.batch)
    from .local import LocalModel

    directory = _download(name.removeprefix(_HUB)) if name.startswith(_HUB) else Path(name).expanduser()
    title = title or (name.partition("@")[0] if name.startswith(_HUB) else directory.resolve().name).rpartition("/")[2]
    template = TemplateSettings(name=opening.template)
    return LocalModel(directory, title, opening.runtime, template, opening.dtype, opening.batch)


def _download(name: str) -> Path:
    """The files of a model of the Hub, in its cache."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    repository, _, revision = name.partition("@")
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision or None, allow_patterns=_FILES))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        message = f"model: {_HUB}{name} could not be fetched ({first_line(error)}); expected a model on the Hub"
        raise ConfigError(message, hint="check the name and the network, or give a directory") from error
