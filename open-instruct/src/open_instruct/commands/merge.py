"""`open-instruct merge`: a base checkpoint and a peft adapter to one checkpoint."""

import logging
from pathlib import Path

from ..errors import RequestError, WorkError
from ..formats.manifest import input_entries
from ..model.load import check_model_directory
from ..output import Output

__all__ = ["merge"]

log = logging.getLogger(__name__)


def merge(base: str, adapter: str, output_dir: str, dtype: str) -> None:
    """Add an adapter's weights to the base's and save the sum, with the tokenizer beside the adapter or the base's.

    Raises:
        RequestError: a path that is not there, or an output directory that holds something else.
        FormatError: a damaged base checkpoint.
        WorkError: an adapter that does not fit the base.
    """
    directory = check_model_directory(base)
    parts = Path(adapter)
    if not (parts / "adapter_config.json").is_file():
        raise RequestError(f"{adapter}: has no adapter_config.json; expected a directory of a peft adapter")
    inputs = [
        entry
        for name, path in (("adapter", parts), ("checkpoint", directory))
        for entry in input_entries(name, path, Path(output_dir))
    ]
    output = Output(output_dir, format_name="checkpoint", stage="merge", config={"save_dtype": dtype}, inputs=inputs)
    if output.is_done():
        log.info("merge: already done: %s", output.directory)
        return

    import peft

    from ..chat.encode import ConversationEncoder
    from ..chat.render import choose_template
    from ..config import TemplateSettings
    from ..model.load import load_model, load_tokenizer
    from ..model.save import describe_model, save_model

    # an adapter that sft left in its result has that result's tokenizer and template one level up
    homes = [home for home in (parts, parts.parent, directory) if (home / "tokenizer.json").is_file()]
    home = next((home for home in homes if (home / "chat_template.jinja").is_file()), directory)
    tokenizer = load_tokenizer(home)
    template = choose_template(TemplateSettings(), tokenizer.chat_template)
    stop_id = ConversationEncoder(tokenizer, template).stop_id
    try:
        model = peft.PeftModel.from_pretrained(load_model(directory), str(parts)).merge_and_unload()
    except (RuntimeError, ValueError, KeyError) as error:
        raise WorkError(
            f"{adapter}: does not fit {base} ({str(error).splitlines()[0]}); expected its adapter"
        ) from error
    with output.begin(keep_trainer=False):
        save_model(model, tokenizer, template.text, stop_id, output.result, dtype)
        counts, details = describe_model(output.result, dtype, step=0, tokens_seen=0)
        output.publish(counts=counts, details=details)
    log.info("merge: %s", output.directory)
