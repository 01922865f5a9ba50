"""Supervised fine-tuning, from a checkpoint directory and chat files to a checkpoint directory. Read top to bottom.

Called by `open-instruct sft` (__main__.py). The training loop is TRL's; the rows, the masks and the files are ours.
"""

import logging
import time
from typing import Any

from .config import SftConfig
from .config_file import write_config
from .data.read import read_conversations, split_rows, warn_of_overlap
from .errors import RequestError, WorkError
from .model.load import check_model_directory
from .output import Output
from .training.identity import result_config, result_inputs

__all__ = ["run"]

log = logging.getLogger(__name__)


def run(config: SftConfig) -> None:
    """Train on chats and write `config.output_dir`; return at once where that is done already.

    Raises:
        RequestError: a path that is missing, a template that does not fit, an output directory in use.
        BadRows, FormatError: files that break their format.
        WorkError: nothing to train on, or a loss that is not finite.
    """
    began = time.monotonic()

    # 1. Every row is read and checked before anything else happens.
    rows = read_conversations(config.data.train, "data.train")
    held_out = read_conversations(config.data.eval, "data.eval")
    if config.data.eval_fraction:
        rows, held_out = split_rows(rows, config.data.eval_fraction)
    warn_of_overlap(rows, held_out)

    # 2. The checkpoint is checked too; then the output: done already, or ours to make?
    inspection = check_model_directory(config.model)
    inputs = result_inputs(config, "chat")
    output = Output(
        config.output_dir, format_name="checkpoint", stage="sft", config=result_config(config), inputs=inputs
    )
    if output.is_done():
        log.info("sft: already done: %s", output.directory)
        return

    # 3. torch and its relatives take seconds to import, so they wait until they are needed.
    from .chat.encode import ConversationEncoder
    from .chat.render import choose_template
    from .data.tokenize import encode_conversations
    from .model.load import add_special_tokens, cover_ids, fitting_length, load_model, load_tokenizer
    from .model.save import describe_model, save_adapter, save_model
    from .training.process import set_up_torch

    device, num_threads = set_up_torch(config.runtime)
    output.resolve(device=device, num_threads=num_threads)
    tokenizer = load_tokenizer(inspection)
    template = choose_template(config.template, tokenizer.chat_template)
    model = load_model(inspection.directory)
    new_tokens = add_special_tokens(model, tokenizer, template.special_tokens)
    if new_tokens and config.lora:
        raise RequestError(
            f"template.name: {template.name} template needs {len(new_tokens)} new tokens; expected none with lora",
            "use a template that needs none, such as tulu",
        )

    # 4. Rows become ids, and a mask of what is trained.
    encoder = ConversationEncoder(tokenizer, template)
    limit = fitting_length(config.sequence.max_length_tokens, inspection)
    train = encode_conversations(rows, encoder, limit, config.sequence.too_long)
    train.report("training rows")
    evaluation = encode_conversations(held_out, encoder, limit, config.sequence.too_long)
    evaluation.report("held-out rows")
    if not train.rows:
        raise WorkError("data.train: no row is left to train on; expected at least one")

    new_tokens = cover_ids(model, tokenizer, max(train.highest_id, evaluation.highest_id, encoder.stop_id))
    if new_tokens and config.lora:
        raise RequestError(
            f"model: {len(new_tokens)} tokens have no row in the embedding; expected none with lora",
            "train all weights, or resize the embedding first",
        )

    # 5. TRL trains. Held-out rows are scored before the first step, now and then, and after the last.
    with output.begin(keep_trainer=config.training.save_every_steps is not None) as resume_from:
        trainer, progress = _build_trainer(
            config, device, output, model, tokenizer, train.rows, evaluation.rows, resume_from, limit
        )
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)

        # 6. The result is made aside and renamed into place, its manifest written last.
        trained = trainer.model
        if config.lora:
            if config.lora.keep_adapter:
                save_adapter(trained, output.result / "adapter")
            trained = trained.merge_and_unload()
        dtype = config.runtime.save_dtype
        save_model(trained, tokenizer, inspection, template.text, encoder.stop_id, output.result, dtype)
        write_config(config, output.result / "run.yaml")
        counts, details = describe_model(
            output.result, step=trainer.state.global_step, tokens_seen=trainer.state.num_input_tokens_seen
        )
        output.publish(counts=counts, details=details)
    progress.report_end(time.monotonic() - began, output.directory)


def _build_trainer(
    config: SftConfig,
    device: str,
    output: Output,
    model: Any,
    tokenizer: Any,
    train: list[Any],
    evaluation: list[Any],
    resume_from: Any,
    max_length: int,
) -> tuple[Any, Any]:
    from trl import SFTConfig as TrlConfig

    from .training.arguments import lora_config, trainer_arguments
    from .training.progress import Progress
    from .training.score import score_conversations
    from .training.trainers import SftTrainer, sft_dataset

    packing = config.sequence.packing
    arguments = TrlConfig(
        **trainer_arguments(config, device, output.trainer),
        dataset_kwargs={"skip_prepare_dataset": True},
        padding_free=packing,
    )
    trainer = SftTrainer(
        model=model,
        args=arguments,
        examples=train,
        train_dataset=sft_dataset(train, max_length if packing else None),
        processing_class=tokenizer,
        peft_config=lora_config(config.lora, model),
    )
    progress = Progress(
        "sft",
        output.metrics,
        evaluate=(lambda: score_conversations(trainer, evaluation)) if evaluation else None,
        every=config.training.eval_every_steps,
        resumed_step=int(resume_from.name.rpartition("-")[2]) if resume_from else 0,
    )
    trainer.add_callback(progress)
    return trainer, progress


if __name__ == "__main__":  # python -m of this module is the command, not nothing
    import sys

    from .__main__ import main

    sys.exit(main(["sft", *sys.argv[1:]]))
