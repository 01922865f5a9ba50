"""Direct preference optimization, from an SFT checkpoint and preference files to a checkpoint. Same sections as sft.py.

Called by `open-instruct dpo` (__main__.py). The loop and the losses are TRL's; the rows and the files are ours.
"""

import copy
import logging
import time
from typing import Any

from .config import DpoConfig
from .config_file import write_config
from .data.read import read_pairs, split_rows, warn_of_overlap
from .errors import RequestError, WorkError
from .model.load import check_model_directory
from .output import Output
from .training.identity import result_config, result_inputs

__all__ = ["run"]

log = logging.getLogger(__name__)


def run(config: DpoConfig) -> None:
    """Train on pairs and write `config.output_dir`; return at once where that is done already.

    Raises:
        RequestError: a path that is missing, a template that does not fit, an output directory in use.
        BadRows, FormatError: files that break their format.
        WorkError: nothing to train on, or a loss that is not finite.
    """
    began = time.monotonic()

    # 1. Every row is read and checked before anything else happens.
    drop = config.data.identical_answers == "drop"
    rows = read_pairs(config.data.train, "data.train", drop_identical=drop)
    held_out = read_pairs(config.data.eval, "data.eval", drop_identical=drop)
    if config.data.eval_fraction:
        rows, held_out = split_rows(rows, config.data.eval_fraction)
    warn_of_overlap(rows, held_out)

    # 2. The checkpoint is checked too; then the output: done already, or ours to make?
    inspection = check_model_directory(config.model)
    inputs = result_inputs(config, "preference")
    output = Output(
        config.output_dir, format_name="checkpoint", stage="dpo", config=result_config(config), inputs=inputs
    )
    if output.is_done():
        log.info("dpo: already done: %s", output.directory)
        return

    # 3. torch and its relatives take seconds to import, so they wait until they are needed.
    from .chat.encode import ConversationEncoder
    from .chat.render import choose_template
    from .data.tokenize import encode_pairs
    from .model.load import add_special_tokens, check_ids, fitting_length, load_model, load_tokenizer
    from .model.save import describe_model, save_adapter, save_model
    from .training.process import set_up_torch

    device, num_threads = set_up_torch(config.runtime)
    output.resolve(device=device, num_threads=num_threads)
    tokenizer = load_tokenizer(inspection)
    template = choose_template(config.template, tokenizer.chat_template)
    model = load_model(inspection.directory)
    new_tokens = add_special_tokens(model, tokenizer, template.special_tokens)
    if new_tokens:
        raise RequestError(
            f"template.name: {template.name} template needs {len(new_tokens)} new tokens; expected none before dpo",
            "train with this template by open-instruct sft first",
        )

    # 4. Pairs become a prompt's ids and two answers' ids, split where the template splits them.
    encoder = ConversationEncoder(tokenizer, template)
    limit = fitting_length(config.sequence.max_length_tokens, inspection)
    train = encode_pairs(rows, encoder, limit, config.sequence.too_long)
    train.report("training pairs")
    evaluation = encode_pairs(held_out, encoder, limit, config.sequence.too_long)
    evaluation.report("held-out pairs")
    if not train.rows:
        raise WorkError("data.train: no pair is left to train on; expected at least one")

    check_ids(model, tokenizer, max(train.highest_id, evaluation.highest_id))

    # 5. TRL trains. Held-out pairs are scored before the first step, now and then, and after the last.
    with output.begin(keep_trainer=config.training.save_every_steps is not None) as resume_from:
        trainer, progress = _build_trainer(
            config, device, output, model, tokenizer, train.rows, evaluation.rows, resume_from
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
    config: DpoConfig,
    device: str,
    output: Output,
    model: Any,
    tokenizer: Any,
    train: list[Any],
    evaluation: list[Any],
    resume_from: Any,
) -> tuple[Any, Any]:
    from trl import DPOConfig as TrlConfig

    from .training.arguments import lora_config, loss_arguments, trainer_arguments
    from .training.progress import Progress
    from .training.score import pair_log_probs, score_pairs
    from .training.trainers import PairTrainer, pair_dataset

    loss = config.loss
    # with adapters, TRL switches them off to get the reference
    second_model = None if loss.precompute_reference or config.lora else copy.deepcopy(model)
    arguments = TrlConfig(**trainer_arguments(config, device, output.trainer), **loss_arguments(loss))
    trainer = PairTrainer(
        model=model,
        ref_model=second_model,
        args=arguments,
        train_dataset=pair_dataset(train),
        examples=train,
        processing_class=tokenizer,
        peft_config=lora_config(config.lora, model),
    )
    # before the first step the policy is the reference
    reference = pair_log_probs(trainer, evaluation)
    progress = Progress(
        "dpo",
        output.metrics,
        evaluate=(
            lambda: score_pairs(
                trainer, evaluation, reference, kind=loss.kind, beta=loss.beta, label_smoothing=loss.label_smoothing
            )
        )
        if evaluation
        else None,
        every=config.training.eval_every_steps,
        resumed_step=int(resume_from.name.rpartition("-")[2]) if resume_from else 0,
    )
    trainer.add_callback(progress)
    return trainer, progress


if __name__ == "__main__":  # python -m of this module is the command, not nothing
    import sys

    from .__main__ import main

    sys.exit(main(["dpo", *sys.argv[1:]]))
