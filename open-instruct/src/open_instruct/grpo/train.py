"""`open-instruct grpo`: from a checkpoint and prompts with verifiers to a checkpoint whose answers score higher.

The scenes are those of `train.py`: read, check, load, encode, train, save. TRL draws the answers and trains; the
prompts, the rewards, the evaluation and the files are ours.
"""

import importlib.util
import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ..chat.encode import ConversationEncoder
from ..chat.render import Refusal, choose_template
from ..data import BadRows, row_hash
from ..formats.contract import ConfigError, FormatError, WorkError
from ..model.load import (
    check_ids,
    check_model_directory,
    fitting_length,
    load_model,
    load_tokenizer,
    set_up_torch,
)
from ..model.save import describe_model, save_adapter, save_model
from ..output import Output, result_config, result_inputs
from ..processes import require_one_process
from ..settings import as_yaml
from ..verifiers.prompts import Prompt, read_prompts
from .config import GrpoConfig

if TYPE_CHECKING:
    from .trainer import Task

__all__ = ["train_grpo"]

log = logging.getLogger(__name__)


def train_grpo(config: GrpoConfig) -> None:
    """Train and write `config.output_dir`; return at once if it already contains this result.

    Raises:
        ConfigError: a path that does not exist, a template that does not fit, an output directory in use, no vLLM.
        BadRows, FormatError: files that break their format.
        WorkError: too few prompts for a batch, or a number that is not finite.
    """
    began = time.monotonic()
    require_one_process("grpo")
    if config.answers.use_vllm and importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "answers.use_vllm: is true, but vllm is not installed; expected the package", hint="pip install 'trl[vllm]'"
        )

    # ---- read: every row is checked before any work starts
    rows = read_prompts(config.data.train, "data.train", judged=True)
    held_out = read_prompts(config.data.eval, "data.eval", judged=True)
    if config.data.eval_fraction:
        rows, held_out = _split(rows, config.data.eval_fraction)

    # ---- check the checkpoint and the output directory
    inspection = check_model_directory(config.model)
    output = Output(
        config.output_dir,
        format_name="checkpoint",
        stage="grpo",
        config=result_config(config),
        inputs=result_inputs(config, "prompts"),
    )
    if output.is_done():
        log.info("grpo: already done: %s", output.directory)
        return

    # ---- load
    device, num_threads = set_up_torch(config.runtime)
    output.resolve(device=device, num_threads=num_threads)
    tokenizer = load_tokenizer(inspection)
    template = choose_template(config.template, tokenizer.chat_template)
    encoder = ConversationEncoder(tokenizer, template)
    model = load_model(inspection.directory)

    # ---- encode: prompts to token ids
    room = fitting_length(config.sequence.max_length_tokens, inspection) - config.answers.max_new_tokens
    tasks = _encode(rows, encoder, room, "training prompts")
    evaluation = _encode(held_out, encoder, room, "held-out prompts")
    needed = config.training.batch_sequences // config.answers.per_prompt
    if len(tasks) < needed:
        raise WorkError(
            f"data.train: {len(tasks)} prompts are left; expected at least {needed}, which a batch has",
            hint="lower training.batch_sequences, or raise answers.per_prompt",
        )
    check_ids(model, tokenizer, max(max(task.prompt_ids) for task in [*tasks, *evaluation]))

    with output.begin(keep_trainer=config.training.save_every_steps is not None) as resume_from:
        # ---- train: held-out prompts are answered before the first step, every eval_every_steps, and after the last
        from ..metrics import MetricsCallback
        from .trainer import grpo_trainer, score_held_out

        stops = sorted({encoder.stop_id, tokenizer.eos_token_id, *inspection.stop_token_ids})
        trainer = grpo_trainer(config, device, output.trainer, model, tokenizer, stops, tasks)
        metrics = MetricsCallback(
            "grpo",
            output.metrics,
            partial(score_held_out, trainer, evaluation, config.seed) if evaluation else None,
            config.training.eval_every_steps,
            int(resume_from.name.removeprefix("checkpoint-")) if resume_from else 0,
        )
        trainer.add_callback(metrics)
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)

        # ---- save
        trained = trainer.model
        if config.lora:
            if config.lora.keep_adapter:
                save_adapter(trained, output.result / "adapter")
            trained = trained.merge_and_unload()
        dtype = config.runtime.save_dtype
        save_model(trained, tokenizer, inspection, template.text, encoder.stop_id, output.result, dtype)
        (output.result / "run.yaml").write_text(as_yaml(config), encoding="utf-8")
        seen = int(trainer.state.num_input_tokens_seen)
        counts, details = describe_model(output.result, step=trainer.state.global_step, tokens_seen=seen)
        output.publish(counts=counts, details=details)
    metrics.report_end(time.monotonic() - began, output.directory)


def _split(prompts: Sequence[Prompt], fraction: float) -> tuple[list[Prompt], list[Prompt]]:
    """Split into (kept, held out) by the hash of each row, so that equal rows are on the same side."""
    limit = int(fraction * 2**64)
    sides: tuple[list[Prompt], list[Prompt]] = [], []
    for prompt in prompts:
        sides[int.from_bytes(row_hash(prompt.row)[:8]) < limit].append(prompt)
    return sides


def _encode(prompts: Sequence[Prompt], encoder: ConversationEncoder, room: int, name: str) -> list["Task"]:
    """Encode the prompts that have at most `room` tokens; the others are counted. Raises BadRows."""
    from .trainer import Task

    tasks: list[Task] = []
    refused: list[FormatError] = []
    for prompt in prompts:
        try:
            ids = encoder.encode_prompt(prompt.messages)
        except Refusal as refusal:
            sentence = f"{encoder.template.name} template refuses the row ({refusal}); expected messages it can render"
            refused.append(FormatError("invalid_value", prompt.row.path, sentence, line=prompt.row.line))
            continue
        if len(ids) <= room and prompt.score is not None:
            tasks.append(Task(ids, prompt.score))
    if refused:
        raise BadRows(refused)
    log.info("%s: %d rows", name, len(tasks))
    if len(tasks) < len(prompts):
        log.warning(
            "%s: %d rows were left out: longer than sequence.max_length_tokens without the longest answer",
            name,
            len(prompts) - len(tasks),
        )
    return tasks
