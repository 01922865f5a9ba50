"""Scores of answers by a reward model, with its own tokenizer and template."""

from collections.abc import Sequence
from pathlib import Path

from ..chat.encode import ConversationEncoder
from ..chat.render import Refusal, choose_template
from ..config import RuntimeSettings, TemplateSettings
from ..formats.chat import Message
from ..model.load import check_ids, check_model_directory, load_tokenizer, set_up_torch

__all__ = ["RewardScorer"]


class RewardScorer:
    """A loaded reward model."""

    def __init__(self, directory: Path, runtime: RuntimeSettings, dtype: str, batch: int) -> None:
        """Check and load. Raises what `check_model_directory` and `load_reward_model` raise."""
        from .model import load_reward_model

        inspection = check_model_directory(str(directory), reward=True)
        device, _ = set_up_torch(runtime)
        tokenizer = load_tokenizer(inspection)
        self._encoder = ConversationEncoder(tokenizer, choose_template(TemplateSettings(), tokenizer.chat_template))
        self._model = load_reward_model(directory, dtype).to(device)
        self._room = inspection.max_positions or 2**31
        self._batch = batch

    def score(self, rows: Sequence[tuple[Sequence[Message], str]]) -> list[float | None]:
        """Score each answer to its messages.

        The score is None where both together are longer than the model's positions, or the template refuses them.

        Raises:
            WorkError: the model has no row for a token.
        """
        from .model import score_ids

        fitting: dict[int, list[int]] = {}
        for index, (messages, answer) in enumerate(rows):
            try:
                ids = self._encoder.encode_prompt(messages) + self._encoder.encode_answer(messages, answer)
            except Refusal:
                continue
            if len(ids) <= self._room:
                fitting[index] = ids
        check_ids(self._model, self._encoder.tokenizer, max((max(ids) for ids in fitting.values()), default=-1))
        scores = score_ids(self._model, list(fitting.values()), self._batch).tolist()
        found = dict(zip(fitting, scores, strict=True))
        return [found.get(index) for index in range(len(rows))]
