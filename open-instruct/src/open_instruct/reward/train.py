"""`open-instruct reward`: from a checkpoint and files of pairs to a reward model.

The scenes are those of `train.py`: read, check, load, encode, train, save. TRL trains; the rows, the evaluation and the
files are ours.
"""

import logging
import time
from functools import partial

from ..chat.encode import ConversationEncoder
from ..chat.render import choose_template
from ..data import encode_pairs, read_pairs, split_rows, warn_of_overlap
from ..formats.chat import Pair
from ..formats.contract import WorkError
from ..model.load import check_ids, check_model_directory, fitting_length, load_tokenizer, set_up_torch
from ..model.save import describe_model, save_adapter, save_model, write_json
from ..output import Output, result_config, result_inputs
from ..processes import require_one_process
from ..settings import as_yaml
from .config import RewardConfig

__all__ = ["train_reward"]

log = logging.getLogger(__name__)


def train_reward(config: RewardConfig) -> None:
    """Train and write `config.output_dir`; return at once if it already contains this result.

    Raises:
        ConfigError: a path that does not exist, a template that does not fit, an output directory in use.
        BadRows, FormatError: files that break their format.
        WorkError: nothing to train on, or a number that is not finite.
    """
    began = time.monotonic()
    require_one_process("reward")

    # ---- read: every row is checked before any work starts
    drop = config.data.identical_answers == "drop"
    rows = read_pairs(config.data.train, "data.train", drop_identical=drop, uses_margin=config.loss.use_margins)
    held_out = read_pairs(config.data.eval, "data.eval", drop_identical=drop, uses_margin=True)
    if config.data.eval_fraction:
        rows, held_out = split_rows(rows, config.data.eval_fraction)
    warn_of_overlap(rows, held_out)
    margins = _margins(rows) if config.loss.use_margins else None

    # ---- check the checkpoint and the output directory
    inspection = check_model_directory(config.model)
    output = Output(
        config.output_dir,
        format_name="checkpoint",
        stage="reward",
        config=result_config(config),
        inputs=result_inputs(config, "preference"),
    )
    if output.is_done():
        log.info("reward: already done: %s", output.directory)
        return

    # ---- load
    device, num_threads = set_up_torch(config.runtime)
    output.resolve(device=device, num_threads=num_threads)
    tokenizer = load_tokenizer(inspection)
    template = choose_template(config.template, tokenizer.chat_template)
    encoder = ConversationEncoder(tokenizer, template)
    from .model import make_reward_model  # torch and TRL take seconds to import, so they wait until here

    model = make_reward_model(inspection, tokenizer, encoder.stop_id, config.seed)

    # ---- encode: rows to token ids
    max_length = fitting_length(config.sequence.max_length_tokens, inspection)
    examples = encode_pairs(rows, encoder, max_length, config.sequence.too_long)
    examples.report("training pairs")
    evaluation = encode_pairs(held_out, encoder, max_length, config.sequence.too_long)
    evaluation.report("held-out pairs")
    if not examples.rows:
        raise WorkError("data.train: no pair is left to train on; expected at least one")
    check_ids(model, tokenizer, max(examples.highest_id, evaluation.highest_id))

    with output.begin(keep_trainer=config.training.save_every_steps is not None) as resume_from:
        # ---- train: held-out pairs are scored before the first step, every eval_every_steps, and after the last step
        from ..metrics import MetricsCallback
        from .calibration import calibrate
        from .trainer import pair_margins, reward_trainer, score_held_out

        row_margins = [margins[row.place] for row in examples.rows] if margins else None
        trainer = reward_trainer(config, device, output.trainer, model, tokenizer, examples.rows, row_margins)
        metrics = MetricsCallback(
            "reward",
            output.metrics,
            partial(score_held_out, trainer, evaluation.rows) if evaluation.rows else None,
            config.training.eval_every_steps,
            int(resume_from.name.removeprefix("checkpoint-")) if resume_from else 0,
        )
        trainer.add_callback(metrics)
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)

        # ---- save: the model, and how sure it may be
        if evaluation.rows:
            chosen, rejected = pair_margins(trainer, evaluation.rows)
            found = calibrate((chosen - rejected).tolist())
            output.result.mkdir(parents=True, exist_ok=True)
            write_json(output.result / "calibration.json", found.as_json())
            for one in found.bins:
                log.info(
                    "reward  confidence %.2f-%.2f: %d pairs, %.3f expected, %.3f right",
                    one.low,
                    one.high,
                    one.pairs,
                    one.confidence,
                    one.accuracy,
                )
        trained = trainer.model
        if config.lora:
            if config.lora.keep_adapter:
                save_adapter(trained, output.result / "adapter")
            trained = trained.merge_and_unload()
        dtype = config.runtime.save_dtype
        save_model(trained, tokenizer, inspection, template.text, encoder.stop_id, output.result, dtype)
        (output.result / "run.yaml").write_text(as_yaml(config), encoding="utf-8")
        counts, details = describe_model(
            output.result, step=trainer.state.global_step, tokens_seen=trainer.state.num_input_tokens_seen
        )
        output.publish(counts=counts, details=details)
    metrics.report_end(time.monotonic() - began, output.directory)


def _margins(rows: list[Pair]) -> dict[str, float] | None:
    """Return the margin of each row by its place, 0 where it has none; None if no row has one."""
    given = sum(row.margin is not None for row in rows)
    if not given:
        return None
    log.info("reward: %d of %d training pairs have a margin", given, len(rows))
    return {row.place: row.margin or 0.0 for row in rows}
