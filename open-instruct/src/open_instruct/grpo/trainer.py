"""TRL's GRPOTrainer with our prompts and verifiers, and the scores of answers to held-out prompts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig as Arguments
from trl import GRPOTrainer

from ..evaluation.statistics import estimate
from ..metrics import require_finite
from ..trainers import _trainer_arguments, lora_config
from ..verifiers.table import Score
from .config import GrpoConfig

__all__ = ["Task", "grpo_trainer", "score_held_out"]


@dataclass(frozen=True)
class Task:
    """A prompt as token ids, and the function that scores an answer."""

    prompt_ids: list[int]
    score: Score


class _GrpoTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPOTrainer; a prompt is the number of a task, whose ids our template has made."""

    def __init__(self, *args: Any, tasks: Sequence[Task], **keywords: Any) -> None:
        self.tasks = tasks
        super().__init__(*args, reward_funcs=self._judge, **keywords)
        self.remove_callback(PrinterCallback)

    def _judge(self, prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [self.tasks[int(prompt)].score(answer) for prompt, answer in zip(prompts, completions, strict=True)]

    def _tokenize_prompts(self, prompts: list[str]) -> Any:
        return [list(self.tasks[int(prompt)].prompt_ids) for prompt in prompts], None, {}

    def _send_telemetry(self) -> None:
        """Send nothing."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no model card."""

    def training_step(self, *args: Any, **keywords: Any) -> Any:
        """Run a micro-batch. Raises WorkError if its loss is not finite."""
        loss = super().training_step(*args, **keywords)
        require_finite(self.state.global_step + 1, "the loss", float(loss))
        return loss

    def _get_grad_norm(self, *args: Any, **keywords: Any) -> Any:
        norm = super()._get_grad_norm(*args, **keywords)
        require_finite(self.state.global_step + 1, "the gradient's norm", float(norm))
        return norm


def grpo_trainer(
    config: GrpoConfig, device: str, directory: Path, model: Any, tokenizer: Any, stops: list[int], tasks: list[Task]
) -> Any:
    """Build the trainer; `directory` gets its checkpoints, an answer ends at one of the ids `stops`.

    Raises:
        ConfigError: `lora.target_modules` names a matrix that the model does not have.
    """
    answers, loss = config.answers, config.loss
    arguments = _trainer_arguments(config, device, directory)
    del arguments["max_length"]
    arguments |= {
        "include_num_input_tokens_seen": "no",  # TRL counts prompts and answers itself
        "num_generations": answers.per_prompt,
        "max_completion_length": answers.max_new_tokens,
        "temperature": answers.temperature,
        "top_p": answers.top_p,
        "loss_type": loss.kind,
        "beta": loss.beta,
        "epsilon": loss.epsilon,
        "epsilon_high": loss.epsilon_high,
        "scale_rewards": loss.scale_rewards,
        "num_iterations": loss.num_iterations,
        "mask_truncated_completions": loss.mask_truncated,
    }
    if answers.use_vllm:
        arguments |= {
            "use_vllm": True,
            "vllm_mode": answers.vllm_mode,
            "vllm_server_base_url": answers.vllm_server_base_url,
            "vllm_gpu_memory_utilization": answers.vllm_gpu_memory_utilization,
        }
    else:  # rows that pad the embedding are no tokens
        unknown = list(range(len(tokenizer), model.get_input_embeddings().num_embeddings))
        arguments["generation_kwargs"] = {"suppress_tokens": unknown} if unknown else None
    model.generation_config.eos_token_id = stops
    return _GrpoTrainer(
        model=model,
        args=Arguments(**arguments),
        tasks=tasks,
        train_dataset=Dataset.from_dict({"prompt": [str(number) for number in range(len(tasks))]}),
        processing_class=tokenizer,
        peft_config=lora_config(config.lora, model),
    )


def score_held_out(trainer: Any, tasks: Sequence[Task], seed: int) -> dict[str, float]:
    """Return the mean score of one answer to each prompt, drawn as in training, with its 95 % interval.

    The random numbers are those of `seed` in each evaluation, and training's own are left as they are.
    """
    size = trainer.args.per_device_eval_batch_size
    answers: list[list[int]] = []
    was_training = trainer.model.training
    trainer.model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(tasks), size):
            prompts = [list(task.prompt_ids) for task in tasks[start : start + size]]
            answers += trainer._generate_single_turn(prompts, None, {}, 1)[0]
    trainer.model.train(was_training)
    texts = trainer.processing_class.batch_decode(answers, skip_special_tokens=True)
    scores = [task.score(text) for task, text in zip(tasks, texts, strict=True)]
    found = estimate(scores)
    low, high = found.interval or (found.value, found.value)
    return {
        "eval/rows": len(tasks),
        "eval/score": found.value,
        "eval/score_low": low,
        "eval/score_high": high,
        "eval/answer_tokens": math.fsum(map(len, answers)) / len(answers),
        "eval/answers_cut": sum(ids[-1] not in trainer.eos_token_ids for ids in answers) / len(answers),
    }
