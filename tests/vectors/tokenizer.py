"""A real byte-level BPE tokenizer of 64 tokens, small enough for a vector."""

from typing import Any

from .cases import pretty

__all__ = ["CONFIG", "END", "TOKENIZER", "VOCABULARY", "encode"]

_SPECIAL = ["<|endoftext|>", "<|padding|>", "<|system|>", "<|user|>", "<|assistant|>"]
_CHARACTERS = [*"ĠĊ", *"abcdefghijklmnopqrstuvwxyz", *"0123456789", *".,?!'-:()"]
_MERGES = ["t h", "th e", "Ġ the", "i n", "e r", "a n", "Ġ a", "o n", "r e", "Ġ in", "an d", "Ġ and"]
VOCABULARY: list[str] = [*_SPECIAL, *_CHARACTERS, *(merge.replace(" ", "") for merge in _MERGES)]
END = 0

_SPECIAL_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [{"id": i, "content": token} | _SPECIAL_FLAGS for i, token in enumerate(_SPECIAL)],
    "normalizer": None,
    "pre_tokenizer": _BYTE_LEVEL,
    "post_processor": None,
    "decoder": _BYTE_LEVEL,
    "model": {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: i for i, token in enumerate(VOCABULARY)},
        "merges": [merge.split(" ") for merge in _MERGES],
    },
}
TOKENIZER: bytes = pretty(_TOKENIZER)
CONFIG: bytes = pretty(
    {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|padding|>",
        "bos_token": None,
        "unk_token": None,
        "model_max_length": 64,
        "clean_up_tokenization_spaces": False,
    }
)


def encode(text: str) -> list[int]:
    """Ids of the stripped text by the `tokenizers` library, without an end token."""
    from tokenizers import Tokenizer

    ids: list[int] = Tokenizer.from_str(TOKENIZER.decode()).encode(text.strip(), add_special_tokens=False).ids
    return ids
