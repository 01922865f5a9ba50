"""`open-instruct sft` and `open-instruct dpo`: from a checkpoint and files of rows to a checkpoint.

Both are the same run; they differ in the rows (chats or pairs) and in TRL's trainer. TRL trains; the rows, the masks,
the evaluation and the files are ours. Read this file first, top to bottom.
"""

import importlib.util
import json
import logging
import os
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

from .chat.encode import ConversationEncoder
from .chat.render import choose_template
from .config import DpoConfig, SftConfig, TrainingSettings
from .data import Examples, read_conversations, read_pairs, split_rows, warn_of_overlap
from .encoded import encode_rows
from .formats.contract import ConfigError, WorkError
from .model.load import (
    add_special_tokens,
    check_ids,
    check_model_directory,
    cover_ids,
    fitting_length,
    load_model,
    load_tokenizer,
    set_up_torch,
)
from .model.save import describe_model, save_adapter, save_model
from .output import Output, result_config, result_inputs
from .plan import describe_run, empty_model
from .processes import count_processes, end_together, first_goes_ahead, is_first, join_processes
from .report import write_report
from .settings import as_yaml

__all__ = ["train"]

log = logging.getLogger(__name__)


def check_batch(training: TrainingSettings) -> None:
    """Raise ConfigError unless the processes of this run can share a batch evenly."""
    processes, micro_batch = count_processes(), training.micro_batch_sequences
    if training.batch_sequences % (processes * micro_batch):
        raise ConfigError(
            f"training.batch_sequences: {training.batch_sequences} with {processes} processes and micro-batches of "
            f"{micro_batch}; expected a multiple of {processes * micro_batch}",
            hint="set training.micro_batch_sequences to 1, or change the batch",
        )


def train(config: SftConfig | DpoConfig, *, dry_run: bool = False, tokens_per_s: float | None = None) -> list[str]:
    """Train and write `config.output_dir`; return at once if it already contains this result.

    With `dry_run`, return lines that describe the run instead, with its time at `tokens_per_s`; nothing is written.

    Raises:
        ConfigError: a path that does not exist, a template that does not fit, an output directory in use.
        BadRows, FormatError: files that break their format.
        WorkError: nothing to train on, or a number that is not finite.
    """
    began = time.monotonic()
    is_dpo = isinstance(config, DpoConfig)
    stage, row_format, noun = ("dpo", "preference", "pair") if is_dpo else ("sft", "chat", "row")

    check_batch(config.training)
    # ---- read: every row is checked before any work starts
    read: Any = read_conversations
    if isinstance(config, DpoConfig):
        read = partial(read_pairs, drop_identical=config.data.identical_answers == "drop")
    rows, held_out = read(config.data.train, "data.train"), read(config.data.eval, "data.eval")
    if config.data.eval_fraction:
        rows, held_out = split_rows(rows, config.data.eval_fraction)
    warn_of_overlap(rows, held_out)

    # ---- check the checkpoint and the output directory
    inspection = check_model_directory(config.model)
    inputs = result_inputs(config, row_format)
    output = Output(
        config.output_dir, format_name="checkpoint", stage=stage, config=result_config(config), inputs=inputs
    )
    check_reporters(config)
    if not dry_run and output.is_done():
        log.info("%s: already done: %s", stage, output.directory)
        return []

    # ---- load
    device, num_threads = set_up_torch(config.runtime)
    join_processes(device)
    processes = {"num_processes": count_processes()} if count_processes() > 1 else {}
    output.resolve(device=device, num_threads=num_threads, **processes)
    tokenizer = load_tokenizer(inspection)
    template = choose_template(config.template, tokenizer.chat_template)
    model = empty_model(inspection.directory) if dry_run else load_model(inspection.directory)
    new_tokens = add_special_tokens(model, tokenizer, template.special_tokens)
    if new_tokens and is_dpo:
        needs = f"{template.name} template needs {len(new_tokens)} new tokens"
        raise ConfigError(
            f"template.name: {needs}; expected none before dpo",
            hint="train with this template by open-instruct sft first",
        )

    # ---- encode: rows to token ids, with a mask of what is trained
    encoder = ConversationEncoder(tokenizer, template)
    max_length = fitting_length(config.sequence.max_length_tokens, inspection)
    encode = partial(
        encode_rows,
        encoder=encoder,
        max_length=max_length,
        sequence=config.sequence,
        settings=config.encoding,
        pairs=is_dpo,
    )
    examples: Examples[Any] = encode(rows)
    examples.report(f"training {noun}s")
    evaluation: Examples[Any] = encode(held_out)
    evaluation.report(f"held-out {noun}s")
    if not examples.rows:
        raise WorkError(f"data.train: no {noun} is left to train on; expected at least one")
    highest_id = max(examples.highest_id, evaluation.highest_id)
    if is_dpo:
        check_ids(model, tokenizer, highest_id)
    else:
        new_tokens += cover_ids(model, tokenizer, max(highest_id, encoder.stop_id))

    if dry_run:
        return describe_run(config, model, examples, evaluation, max_length, tokens_per_s)

    with ExitStack() as stack:
        with first_goes_ahead():
            begun = output.begin(keep_trainer=config.training.save_every_steps is not None)
            resume_from = stack.enter_context(begun)
        # ---- train: held-out rows are scored before the first step, every eval_every_steps, and after the last step
        from .metrics import MetricsCallback, pair_log_probs, score_conversations, score_pairs
        from .trainers import dpo_trainer, sft_trainer  # TRL takes seconds to import, so it waits until here

        common = (device, output.trainer, model, tokenizer, examples.rows)
        if isinstance(config, DpoConfig):
            trainer = dpo_trainer(config, *common)
            reference = pair_log_probs(trainer, evaluation.rows)  # the model before its first step
            evaluate = partial(score_pairs, trainer, evaluation.rows, reference, config.loss)
        else:
            trainer = sft_trainer(config, *common, max_length, new_tokens)
            evaluate = partial(score_conversations, trainer, evaluation.rows)
        resumed_step = int(resume_from.name.removeprefix("checkpoint-")) if resume_from else 0
        with first_goes_ahead():
            metrics = MetricsCallback(
                stage,
                output.metrics,
                evaluate if evaluation.rows else None,
                config.training.eval_every_steps,
                resumed_step,
            )
        trainer.add_callback(metrics)
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)

        # ---- save: adapters are merged into the weights
        trained = trainer.whole_model()
        end_together()
        if not is_first():
            return []
        if config.lora:
            if config.lora.keep_adapter:
                save_adapter(trained, output.result / "adapter")
            trained = trained.merge_and_unload()
        dtype = config.runtime.save_dtype
        save_model(trained, tokenizer, inspection, template.text, encoder.stop_id, output.result, dtype)
        (output.result / "run.yaml").write_text(as_yaml(config), encoding="utf-8")
        title = f"{stage} of {output.directory.name}"
        rows = [json.loads(line) for line in output.metrics.read_text(encoding="utf-8").splitlines()]
        write_report(output.result / "report.html", title, as_yaml(config), rows, examples, evaluation)
        counts, details = describe_model(
            output.result, step=trainer.state.global_step, tokens_seen=trainer.state.num_input_tokens_seen
        )
        output.publish(counts=counts, details=details)
    metrics.report_end(time.monotonic() - began, output.directory)
    return []


def check_reporters(config: SftConfig | DpoConfig) -> None:
    """Raise ConfigError if a package of `training.report_to` is missing; choose TensorBoard's directory."""
    for name in config.training.report_to:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"training.report_to: the package {name} is not installed; expected it", hint=f"pip install {name}"
            )
    os.environ["TENSORBOARD_LOGGING_DIR"] = f"{config.output_dir}.tensorboard"
