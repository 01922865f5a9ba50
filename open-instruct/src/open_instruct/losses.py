"""The losses as functions of log-probabilities: tensors in, tensors out. Training and evaluation share them."""

from collections.abc import Callable

import torch
from torch.nn.functional import logsigmoid

from .chat.encode import IGNORED
from .config import PreferenceLoss

__all__ = ["pair_losses", "pair_rewards", "token_weights"]

# ---- sft


def token_weights(labels: torch.Tensor, starts: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each token weighs if all conversations weigh the same, and the number of conversations.

    `labels` has shape (rows, tokens); the weights have shape (rows, tokens - 1), and those of a conversation sum to 1.
    A row is a conversation, unless `starts`, of the same shape, is true where one begins in a packed row.
    """
    trained = labels[:, 1:] != IGNORED
    if starts is None:
        lengths = trained.sum(dim=1, keepdim=True)
        return trained / lengths.clamp(min=1), (lengths > 0).sum()
    number = starts.flatten().long().cumsum(0).reshape(starts.shape)[:, 1:]
    lengths = torch.bincount(number[trained], minlength=int(number.max()) + 1)
    return trained / lengths.clamp(min=1)[number], (lengths > 0).sum()


# ---- dpo
#
# Below, c and r are the gains ln(policy / reference) of the chosen and the rejected answer, and β is the strength of
# the constraint. All values have shape (pairs,).

Loss = Callable[[torch.Tensor, torch.Tensor, PreferenceLoss], torch.Tensor]


def _smoothed(logits: torch.Tensor, loss: PreferenceLoss) -> torch.Tensor:
    """−ln σ(x) with a share of swapped labels (conservative DPO, Mitchell 2023)."""
    share = loss.label_smoothing
    return -(1 - share) * logsigmoid(logits) - share * logsigmoid(-logits)


def _sigmoid(c: torch.Tensor, r: torch.Tensor, loss: PreferenceLoss) -> torch.Tensor:
    return _smoothed(loss.beta * (c - r), loss)


def _simpo(c: torch.Tensor, r: torch.Tensor, loss: PreferenceLoss) -> torch.Tensor:
    return _smoothed(loss.beta * (c - r - loss.gamma_beta_ratio), loss)


def _robust(c: torch.Tensor, r: torch.Tensor, loss: PreferenceLoss) -> torch.Tensor:
    share, logits = loss.label_smoothing, loss.beta * (c - r)
    return (share * logsigmoid(-logits) - (1 - share) * logsigmoid(logits)) / (1 - 2 * share)


def _hinge(c: torch.Tensor, r: torch.Tensor, loss: PreferenceLoss) -> torch.Tensor:
    return torch.relu(1 - loss.beta * (c - r))


def _ipo(c: torch.Tensor, r: torch.Tensor, loss: PreferenceLoss) -> torch.Tensor:
    return (c - r - 1 / (2 * loss.beta)) ** 2


def _apo_zero(c: torch.Tensor, r: torch.Tensor, loss: PreferenceLoss) -> torch.Tensor:
    return 1 - torch.sigmoid(loss.beta * c) + torch.sigmoid(loss.beta * r)


def _apo_down(c: torch.Tensor, r: torch.Tensor, loss: PreferenceLoss) -> torch.Tensor:
    return torch.sigmoid(loss.beta * c) + 1 - torch.sigmoid(loss.beta * (c - r))


def _sppo_hard(c: torch.Tensor, r: torch.Tensor, loss: PreferenceLoss) -> torch.Tensor:
    return (c - 0.5 / loss.beta) ** 2 + (r + 0.5 / loss.beta) ** 2


def _nca_pair(c: torch.Tensor, r: torch.Tensor, loss: PreferenceLoss) -> torch.Tensor:
    chosen, rejected = loss.beta * c, loss.beta * r
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


_LOSSES: dict[str, Loss] = {
    "sigmoid": _sigmoid,  # Rafailov et al. 2023, arXiv:2305.18290, equation 7
    "sigmoid_norm": _sigmoid,  # Lambert et al. 2024 (Tulu 3), arXiv:2411.15124, section 5
    "simpo": _simpo,  # Meng et al. 2024, arXiv:2405.14734, equation 6
    "robust": _robust,  # Chowdhury et al. 2024, arXiv:2403.00409, equation 10
    "hinge": _hinge,  # Zhao et al. 2023 (SLiC), arXiv:2305.10425, with DPO's rewards
    "ipo": _ipo,  # Azar et al. 2023, arXiv:2310.12036, equation 17; per token, as its authors compute it
    "apo_zero": _apo_zero,  # D'Oosterlinck et al. 2024, arXiv:2408.06266, equation 7
    "apo_down": _apo_down,  # the same, equation 8
    "sppo_hard": _sppo_hard,  # Wu et al. 2024, arXiv:2405.00675, equation 4.7 with probability 1
    "nca_pair": _nca_pair,  # Chen et al. 2024, arXiv:2402.05369, with two answers
}
_PER_TOKEN = {"sigmoid_norm", "ipo", "simpo"}


def pair_losses(
    loss: PreferenceLoss, gains: tuple[torch.Tensor, torch.Tensor], lengths: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Return the loss of each pair: shape (pairs,).

    `gains` are the sums over tokens of ln(policy / reference) of the chosen and the rejected answers, or of ln(policy)
    with kind `simpo`, which has no reference; `lengths` are their numbers of tokens.
    """
    chosen, rejected = gains
    if loss.kind in _PER_TOKEN:
        chosen, rejected = chosen / lengths[0].clamp(min=1), rejected / lengths[1].clamp(min=1)
    return _LOSSES[loss.kind](chosen, rejected, loss)


def pair_rewards(
    loss: PreferenceLoss, gains: tuple[torch.Tensor, torch.Tensor], lengths: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the implicit rewards of the chosen and the rejected answers: β times the gain, per token with `simpo`."""
    if loss.kind == "simpo":
        return loss.beta * gains[0] / lengths[0].clamp(min=1), loss.beta * gains[1] / lengths[1].clamp(min=1)
    return loss.beta * gains[0], loss.beta * gains[1]
