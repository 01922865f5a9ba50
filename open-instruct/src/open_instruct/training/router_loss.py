"""The loss that balances the experts of a mixture, over the whole batch of a step, whatever its micro-batches.

It is E · Σ_e f_e · P_e with the share f_e of routed tokens and the mean probability P_e of each expert over all layers
and tokens (Fedus et al. 2021, arXiv:2101.03961, equations 4 to 6). It is not a sum over tokens, so the mean over
micro-batches is a different number. Therefore the shares, which carry no gradient, are counted over the whole batch
first; then each micro-batch adds its part of the probabilities, and the parts sum to the loss of the batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

__all__ = ["RouterLoss"]

_NOT_FOR_THE_MODEL = ("labels", "completion_mask", "ref_chosen_logps", "ref_rejected_logps")


class RouterLoss:
    """Records what the routers of a model say; `coefficient` is 0 without routers, or where this loss is off.

    The configuration's `output_router_logits` switches it on; `router_aux_loss_coef` is its weight.
    """

    def __init__(self, model: Any) -> None:
        """Read the settings and hook the routers; the libraries' own router loss is off (training/arguments.py)."""
        config = model.config.get_text_config()
        wanted = getattr(config, "output_router_logits", False)
        self.coefficient = float(getattr(config, "router_aux_loss_coef", 0.0) or 0.0) if wanted else 0.0
        self._top_k = int(getattr(config, "num_experts_per_tok", 0) or 0)
        self._seen: list[torch.Tensor] | None = None
        self._shares = torch.zeros(0)
        self._rows = 0.0
        if self.coefficient:
            self._hook(model)

    def _hook(self, model: Any) -> None:
        recorders = [
            recorder
            for module in model.modules()
            for name, recorder in (getattr(module, "_can_record_outputs", None) or {}).items()
            if name == "router_logits"
        ]
        found = set()
        for recorder in recorders:
            kind, index = getattr(recorder, "target_class", recorder), getattr(recorder, "index", 0)
            for module in model.modules():
                if isinstance(module, kind) and module not in found:
                    found.add(module)
                    module.register_forward_hook(self._keep(index))
        if not found:
            self.coefficient = 0.0

    def _keep(self, index: int) -> Any:
        def keep(module: Any, inputs: Any, output: Any) -> None:
            if self._seen is not None:
                self._seen.append(output if isinstance(output, torch.Tensor) else output[index])

        return keep

    def begin_batch(self, model: Any, batches: Sequence[Mapping[str, Any]], device: torch.device) -> None:
        """Count each expert's share of the tokens over the micro-batches of a step."""
        was_training = model.training
        model.eval()  # no dropout: the shares should not depend on a draw
        counts: torch.Tensor | float = 0.0
        rows = 0.0
        for batch in batches:
            inputs = {
                name: value.to(device) if isinstance(value, torch.Tensor) else value
                for name, value in batch.items()
                if name not in _NOT_FOR_THE_MODEL
            }
            self._seen = []
            with torch.no_grad():
                model(**inputs, use_cache=False, logits_to_keep=1)
            for probabilities, mask in self._probabilities(inputs):
                chosen = probabilities.topk(self._top_k, dim=-1).indices
                routed = torch.zeros_like(probabilities).scatter_(1, chosen, 1.0)
                counts = counts + (routed * mask).sum(dim=0)
                rows += float(mask.sum())
        model.train(was_training)
        self._shares, self._rows = counts / rows, rows  # type: ignore[assignment]

    def watch(self) -> None:
        """Record the routers during the next forward pass."""
        self._seen = []

    def part(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Give the micro-batch's part of the weighted loss, with its gradient."""
        total: torch.Tensor | float = 0.0
        for probabilities, mask in self._probabilities(inputs):
            total = total + (probabilities * mask).sum(dim=0)
        part = self._shares.numel() * (self._shares * total / self._rows).sum()
        return self.coefficient * part

    def _probabilities(self, inputs: Mapping[str, Any]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        # shapes (tokens, experts) and (tokens, 1), one pair per layer
        seen, self._seen = self._seen or [], None
        attended = inputs.get("attention_mask")
        result = []
        for logits in seen:
            flat = logits.reshape(-1, logits.shape[-1]).float()
            mask = torch.ones(len(flat), 1, device=flat.device)
            if attended is not None:
                mask = attended.reshape(-1, 1).to(mask)
            result.append((flat.softmax(dim=-1), mask))
        return result
