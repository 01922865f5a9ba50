"""Our settings in the words of transformers' TrainingArguments, which TRL's SFTConfig and DPOConfig extend."""

from pathlib import Path
from typing import Any

from ..config import DpoConfig, LoraSettings, PreferenceLoss, SftConfig
from ..errors import RequestError

__all__ = ["lora_config", "loss_arguments", "trainer_arguments"]

# the trainers' own defaults that would train something else than the settings say
_FIXED: dict[str, Any] = {
    "report_to": "none",
    "disable_tqdm": True,
    "logging_first_step": True,
    "logging_nan_inf_filter": False,  # it would show the last finite loss instead of nan
    "dataloader_pin_memory": False,
    "remove_unused_columns": False,  # the rows have none, and the sampler by length needs theirs
    "max_length": None,  # rows come with their final length
    "optim": "adamw_torch_fused",
    "save_total_limit": 1,
    "router_aux_loss_coef": 0.0,  # theirs depends on the micro-batches; ours is training/router_loss.py
}


def trainer_arguments(config: SftConfig | DpoConfig, device: str, directory: Path) -> dict[str, Any]:
    """Give the keyword arguments that SFTConfig and DPOConfig share."""
    training, optimizer, runtime = config.training, config.optimizer, config.runtime
    return _FIXED | {
        "output_dir": str(directory),
        "seed": config.seed,
        "data_seed": config.seed,
        "learning_rate": optimizer.lr,
        "lr_scheduler_type": optimizer.schedule if optimizer.schedule != "constant" else "constant_with_warmup",
        "warmup_steps": optimizer.warmup_fraction,  # below 1: a share of the steps
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "adam_epsilon": optimizer.epsilon,
        "max_grad_norm": optimizer.max_grad_norm,
        "num_train_epochs": training.num_epochs,
        "max_steps": training.max_steps or -1,
        "per_device_train_batch_size": training.micro_batch_size,
        "per_device_eval_batch_size": training.eval_batch_size,
        "gradient_accumulation_steps": training.batch_size // training.micro_batch_size,
        "train_sampling_strategy": "group_by_length" if training.group_by_length else "random",
        "logging_steps": training.log_every_steps,
        "save_strategy": "steps" if training.save_every_steps else "no",
        "save_steps": training.save_every_steps or 500,
        "use_cpu": device == "cpu",
        "bf16": runtime.precision == "bfloat16",
        "gradient_checkpointing": runtime.activation_checkpointing,
        # a packed row has no attention mask and no padding
        "include_num_input_tokens_seen": "all" if config.sequence.packing else "non_padding",
    }


def loss_arguments(loss: PreferenceLoss) -> dict[str, Any]:
    """Give DPOConfig's keyword arguments for a loss.

    TRL 1.16 has no conservative DPO (label smoothing e: (1 − e)·L(x) + e·L(−x) with L(x) = −ln σ(x)), but it has
    sigmoid = L(x) and robust = ((1 − e)·L(x) − e·L(−x)) / (1 − 2e), of which it is (2 − 2e)·sigmoid − (1 − 2e)·robust.
    """
    arguments: dict[str, Any] = {
        "beta": loss.beta,
        "loss_type": [loss.kind],
        "precompute_ref_log_probs": loss.precompute_reference,
    }
    if loss.label_smoothing:
        smoothing = loss.label_smoothing
        arguments["loss_type"] = ["sigmoid", "robust"]
        arguments["loss_weights"] = [2 - 2 * smoothing, -(1 - 2 * smoothing)]
        arguments["label_smoothing"] = smoothing
    return arguments


def lora_config(settings: LoraSettings | None, model: Any) -> Any:
    """Give peft's configuration of the adapters, or None.

    Raises:
        RequestError: `target_modules` names a matrix that the model does not have.
    """
    if settings is None:
        return None
    from peft import LoraConfig

    if settings.target_modules is not None:
        _check_names(settings.target_modules, model)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear" if settings.target_modules is None else list(settings.target_modules),
    )


def _check_names(wanted: list[str], model: Any) -> None:
    import torch
    from transformers.pytorch_utils import Conv1D

    kinds = (torch.nn.Linear, torch.nn.Embedding, Conv1D)
    names = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    unknown = [one for one in wanted if not any(name == one or name.endswith("." + one) for name in names)]
    if unknown:
        known = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in names))
        raise RequestError(
            f"lora.target_modules: the model has no {', '.join(unknown)}; expected some of {known}",
            "null means all linear layers",
        )
