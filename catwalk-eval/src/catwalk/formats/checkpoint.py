"""A model directory in Hugging Face layout, read without torch: its facts, its tensors, its faults.

Implements docs/formats/checkpoint.md, version 1. `inspect_checkpoint` is the only place that knows under which of its
many names a model keeps a fact. Every package that reads checkpoints carries this file, byte for byte.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from .contract import Fields, FormatError, Reader, first_line, read_object, sha256_file
from .manifest import Manifest, check_files, find_manifest

__all__ = [
    "DTYPES",
    "PROBE_TEXTS",
    "READERS",
    "Checkpoint",
    "Inspection",
    "Tensor",
    "dump",
    "inspect_checkpoint",
    "open_tokenizer",
    "read_checkpoint",
    "read_tensors",
    "required_shapes",
    "tokenizer_difference",
]

# ---- what the files state


_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")
_EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
)
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # that the contract allows
_DTYPES = DTYPES | {"F64": "float64"}
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth", "model.bin")

# Words, digits, runs of spaces, line ends, contractions, other scripts, and marks that normalizers change.
PROBE_TEXTS = (
    "In 2023 don't\n\n\ndef f(x):\n    return 12345\n",
    " leading,  two  spaces\tand a tab \r\n",
    "The café’s naïve façade: ½ ﬁne — “quoted” … 1,234.5e-6",
    "cafe\u0301 ＦＵＬＬ width ① \u00a0\u200b\ufeff end",
    "日本語の文章と한국어 그리고 русский, العربية, हिन्दी, ไทย",
    "emoji 👩‍👩‍👧 and 🇩🇪 flags",
    "https://example.org/a_b?c=d#e <tag attr='v'>&amp;</tag> /* x += 1; */ HTMLParser snake_case",
)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The facts of one model directory. Each is read on first use.

    `config`, `generation_config` and `tokenizer_config` are the files' objects, empty where a file is missing.
    """

    directory: Path
    config: dict[str, Any]
    generation_config: dict[str, Any]
    tokenizer_config: dict[str, Any]

    # ---- the model

    @property
    def text_config(self) -> dict[str, Any]:
        """The configuration of the language model: `config`, or a multimodal model's part for text."""
        inner = self.config.get("text_config")
        return inner if isinstance(inner, dict) else self.config

    @property
    def architecture(self) -> str:
        """The first of `architectures`, or an empty string."""
        names = self.config.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else ""

    @property
    def max_positions(self) -> int | None:
        """Tokens that fit into the model at once; None if its configuration sets no limit."""
        found = (self.text_config.get(name) for name in _POSITIONS)
        return next((value for value in found if type(value) is int and value > 0), None)

    @property
    def special_attention(self) -> str | None:
        """How this attention differs from looking at all earlier tokens, by its settings; None if it does not."""
        config = self.text_config
        inner = config.get("attn_config")
        position: dict[str, Any] = inner if isinstance(inner, dict) else {}
        if config.get("alibi") or position.get("alibi") or config.get("model_type") in ("bloom", "mpt"):
            return "ALiBi: its bias depends on the distance in the row"
        window = config.get("sliding_window") or position.get("sliding_window_size") or config.get("window_size")
        if type(window) is int and window > 0 and config.get("use_sliding_window", True):
            return f"a sliding window of {window} tokens"
        kinds = {str(kind) for kind in config.get("layer_types") or ()} - {"full_attention"}
        if kinds:
            return f"layers of the kind {', '.join(sorted(kinds))}"
        if config.get("attention_chunk_size"):
            return f"attention within chunks of {config['attention_chunk_size']} tokens"
        if "local" in json.dumps(config.get("attention_types") or config.get("attention_layers") or ""):
            return "layers of local attention"
        for name in ("state_size", "ssm_state_size", "mamba_d_state", "attention_hidden_size", "lru_width"):
            if config.get(name):
                return f"a recurrent state ({name})"
        return None

    @property
    def plain_length(self) -> int | None:
        """Tokens up to which a row is seen whole by every layer, whatever the layers do to longer ones.

        None where any row is, 0 where none is: rows of at most so many tokens can share a context under a mask of
        their own. A window or a chunk of n tokens changes nothing for n tokens; ALiBi, local layers that count places
        of the row and recurrent states change all.
        """
        if self.special_attention is None:
            return None
        config = self.text_config
        windows, chunk = (config.get("sliding_window"), config.get("attention_chunk_size"))
        lengths = [length for length in (windows, chunk) if type(length) is int and length > 0]
        kinds = {str(kind) for kind in config.get("layer_types") or ()}
        kinds -= {"full_attention", "sliding_attention", "chunked_attention"}
        others = dict(config) | dict.fromkeys(("sliding_window", "attention_chunk_size", "layer_types"))
        rest = Inspection(directory=self.directory, config=others, generation_config={}, tokenizer_config={})
        return 0 if kinds or rest.special_attention or not lengths else min(lengths)

    @property
    def rotary_switch(self) -> int | None:
        """Length beyond which a model rotates all tokens of a batch by other angles (longrope); None if it does not.

        transformers decides by the longest row: a short row in a batch with a long one gets the angles of long ones.
        """
        config = self.text_config
        given = config.get("rope_parameters") or config.get("rope_scaling") or {}
        for rope in (given, *given.values()) if isinstance(given, dict) else ():
            if isinstance(rope, dict) and rope.get("rope_type", rope.get("type")) in ("longrope", "su"):
                found = rope.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
                return found if type(found) is int else self.max_positions
        return None

    # ---- the weights

    @cached_property
    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The dtype, as safetensors writes it, and the shape of each stored tensor; sorted by name.

        Raises:
            FormatError: `missing_file` where there are no safetensors, with a way to make them of a pickle.
        """
        index = self.directory / "model.safetensors.index.json"
        names = ["model.safetensors"]
        if index.is_file():
            weight_map = read_object(index).get("weight_map")
            if not isinstance(weight_map, dict):
                raise FormatError("missing_field", index, '"weight_map" not found; expected an object')
            names = sorted({str(name) for name in weight_map.values()})
        found = {}
        for name in names:
            path = self.directory / name
            if not path.is_file():
                raise self._missing_weights(path)
            try:
                with safe_open(path, framework="np") as file:
                    for key in file.keys():
                        entry = file.get_slice(key)
                        found[key] = (str(entry.get_dtype()), tuple(entry.get_shape()))
            except SafetensorError as error:
                raise FormatError("truncated", path, f"is not a whole safetensors file ({error})") from error
        return dict(sorted(found.items()))

    def _missing_weights(self, path: Path) -> FormatError:
        for name in _PICKLES:
            if (self.directory / name).is_file():
                sentence = f"not found, but {name} exists; expected safetensors weights, since a pickle can run code"
                load = f"AutoModelForCausalLM.from_pretrained('{self.directory}', dtype='auto')"
                script = f"from transformers import AutoModelForCausalLM; {load}.save_pretrained('{self.directory}')"
                return FormatError("missing_file", path, sentence, hint=f'python -c "{script}"')
        return FormatError("missing_file", path, "not found; expected the weights")

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes of the stored weights, that of most parameters first: `("bfloat16", "float32")`."""
        counts: dict[str, int] = {}
        for dtype, shape in self.tensors.values():
            size = 1
            for extent in shape:
                size *= extent
            name = _DTYPES.get(dtype, dtype)
            counts[name] = counts.get(name, 0) + size
        return tuple(sorted(counts, key=lambda name: (-counts[name], name)))

    @property
    def embedding_rows(self) -> int:
        """Rows of the input embedding: ids are below it. From the weights, else `vocab_size`."""
        for name, (_, shape) in self.tensors.items():
            if name.endswith(_EMBEDDINGS) and len(shape) == 2:
                return shape[0]
        size = self.text_config.get("vocab_size")
        if type(size) is not int:
            path = self.directory / "config.json"
            raise FormatError("missing_field", path, '"vocab_size" not found; expected an integer')
        return size

    # ---- the tokenizer

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """tokenizer.json unchanged, whatever class tokenizer_config.json names. See `open_tokenizer`."""
        return open_tokenizer(self.directory / "tokenizer.json")

    def special_token_id(self, kind: str) -> int | None:
        """Id of the `bos`, `eos`, `pad` or `unk` token: the tokenizer's, else the configuration's.

        None if there is none, or if the tokenizer or the embedding does not have it.
        """
        value = self.tokenizer_config.get(f"{kind}_token")
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found = self.tokenizer.token_to_id(text)
            return found if found is not None and found < self.embedding_rows else None
        for config in (self.text_config, self.config, self.generation_config):
            ids = _ids(config.get(f"{kind}_token_id"))
            if ids:
                return ids[0] if ids[0] < self.embedding_rows else None
        return None

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Ids that end a generated text: those of generation_config.json, else of config.json, else EOS."""
        for config in (self.generation_config, self.config, self.text_config):
            ids = _ids(config.get("eos_token_id"))
            if ids:
                return ids
        end = self.special_token_id("eos")
        return () if end is None else (end,)

    @cached_property
    def starts_with_bos(self) -> bool:
        """Whether the tokenizer puts BOS before each text: `add_bos_token`, else tokenizer.json's post-processor."""
        bos = self.special_token_id("bos")
        if bos is None:
            return False
        wanted = self.tokenizer_config.get("add_bos_token")
        if isinstance(wanted, bool):
            return wanted
        plain = self.tokenizer.encode("a", add_special_tokens=False).ids
        ids = self.tokenizer.encode("a").ids
        return len(ids) > len(plain) and ids[0] == bos

    @property
    def document_prefix(self) -> str | None:
        """The token before a document's first one, `bos` or `eos`: docs/formats/checkpoint.md, *Before a document*."""
        if self.starts_with_bos:
            return "bos"
        return next((kind for kind in ("eos", "bos") if self.special_token_id(kind) is not None), None)

    @cached_property
    def chat_template(self) -> str | None:
        """The chat template, wherever it is kept; of several the one named `default`."""
        path = self.directory / "chat_template.jinja"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        value = self.tokenizer_config.get("chat_template")
        if value is None:
            value = _optional_object(self.directory / "chat_template.json").get("chat_template")
        if isinstance(value, list):
            named = {str(row.get("name")): row.get("template") for row in value if isinstance(row, dict)}
            value = named.get("default", next(iter(named.values()), None))
        return value if isinstance(value, str) else None


def inspect_checkpoint(directory: Path) -> Inspection:
    """Read the configurations of a model directory; the rest is read on first use.

    Raises:
        FormatError: `missing_file` without config.json, `not_json`, `not_object`.
    """
    return Inspection(
        directory=directory,
        config=read_object(directory / "config.json"),
        generation_config=_optional_object(directory / "generation_config.json"),
        tokenizer_config=_optional_object(directory / "tokenizer_config.json"),
    )


def open_tokenizer(path: Path) -> Tokenizer:
    """Open a tokenizer.json as all five tools use it.

    Neither truncates nor pads, and a text that spells a special token (`</s>`) is text: pass `add_special_tokens=False`
    to `encode` for no others.

    Raises:
        FormatError: `missing_file`, naming what is there instead; `not_json` or `invalid_value`.
    """
    if not path.is_file():
        other = [name for name in _foreign_tokenizers(path.parent)]
        found = f"not found, but {other[0]} exists" if other else "not found"
        hint = None
        if other:
            script = f"from transformers import AutoTokenizer; AutoTokenizer.from_pretrained('{path.parent}')"
            hint = f"python -c \"{script}.save_pretrained('{path.parent}')\""
        raise FormatError("missing_file", path, f"{found}; expected the tokenizer", hint=hint)
    read_object(path)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises nothing narrower
        sentence = first_line(error)
        raise FormatError("invalid_value", path, f"is not a tokenizer that can be read ({sentence})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def tokenizer_difference(first: Tokenizer, second: Tokenizer) -> str | None:
    """Say where two tokenizers differ, by their tokens and then on `PROBE_TEXTS`; None if they do not."""
    one, two = (tokenizer.get_vocab(with_added_tokens=True) for tokenizer in (first, second))
    if one != two:
        both = {**{id: text for text, id in two.items()}, **{id: text for text, id in one.items()}}
        for id, text in sorted(both.items()):
            if one.get(text) != id or two.get(text) != id:
                other = {number: name for name, number in two.items()}.get(id)
                return f"id {id} is {text!r} in one and {'no token' if other is None else repr(other)} in the other"
    for text in PROBE_TEXTS:
        ids = [tokenizer.encode(text, add_special_tokens=False).ids for tokenizer in (first, second)]
        if ids[0] != ids[1]:
            return f"{text!r} is {len(ids[0])} tokens {ids[0][:8]}… in one and {len(ids[1])} {ids[1][:8]}… in the other"
    return None


def _foreign_tokenizers(directory: Path) -> Iterator[str]:
    for pattern in ("tokenizer.model", "*.tiktoken", "tekken.json", "spiece.model", "*.spm", "vocab.json", "vocab.txt"):
        yield from sorted(path.name for path in directory.glob(pattern))


def _ids(value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(id for id in values if type(id) is int and id >= 0))


def _optional_object(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}


# ---- the tensors


_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_FAMILIES = ("Olmo", "Olmo2", "Olmo3", "Olmoe", "Llama", "Mistral", "Mixtral")
_EXPERTS = {"Olmoe": "num_experts", "Mixtral": "num_local_experts"}
_OTHER_FILES = (
    *("config.json", "generation_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt"),
)
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A stored tensor: `dtype` as safetensors writes it, `start` and `end` are byte offsets within the file."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    def sha256(self) -> str:
        """Of its little-endian bytes."""
        digest, rest = hashlib.sha256(), self.end - self.start
        with self.path.open("rb") as stream:
            stream.seek(self.start)
            while block := stream.read(min(rest, _BLOCK_BYTES)):
                digest.update(block)
                rest -= len(block)
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checked checkpoint; `tensors` by name, in sorted order."""

    directory: Path
    config: dict[str, Any]
    manifest: Manifest | None
    tensors: dict[str, Tensor]

    @property
    def architecture(self) -> str:
        """The one name of `architectures`."""
        return str(self.config["architectures"][0])

    @property
    def parameters(self) -> int:
        """Stored numbers."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())

    @cached_property
    def sha256(self) -> dict[str, str]:
        """By file name: of the manifest's files, or of the weights, configurations and tokenizer."""
        if self.manifest is not None:
            return {row["path"]: row["sha256"] for row in self.manifest.files}
        weights = {tensor.path for tensor in self.tensors.values()}
        files = sorted(weights | {self.directory / name for name in _OTHER_FILES})
        return {file.name: sha256_file(file) for file in files if file.is_file()}


def read_checkpoint(directory: Path, *, checksums: bool = True) -> Checkpoint:
    """Check a checkpoint: manifest, every sha256, and that the tensors are those that config.json requires.

    Raises:
        FormatError: `missing_file`, `wrong_size`, `checksum_mismatch`, `truncated`, `missing_tensor`, `wrong_shape`, …
    """
    manifest = find_manifest(directory, "checkpoint")
    if manifest is not None:
        for error in check_files(manifest, checksums=checksums):
            raise error
    config = Fields(read_object(directory / "config.json"), directory / "config.json")
    names = config.array("architectures")
    if len(names) != 1 or not isinstance(names[0], str):
        raise config.error("invalid_value", "architectures", f"is {json.dumps(names)}; expected one name")
    tensors = read_tensors(directory)
    _check_tensors(config, tensors, directory)
    if manifest is not None:
        _check_details(manifest, tensors)
    return Checkpoint(directory=directory, config=config.value, manifest=manifest, tensors=tensors)


def _check_details(manifest: Manifest, tensors: dict[str, Tensor]) -> None:
    details, tokenizer = manifest.fields("details"), manifest.directory / "tokenizer.json"
    for name in ("architecture", "stage"):
        details.string(name)
    for name in ("step", "tokens_seen"):
        details.integer(name)
    dtype = details.string("dtype")
    stored = sorted({DTYPES.get(tensor.dtype, tensor.dtype) for tensor in tensors.values()})
    if dtype not in stored:  # dtypes may be mixed: this is that of most parameters
        raise details.error("wrong_dtype", "dtype", f'is "{dtype}"; expected {" or ".join(stored)}, as the weights are')
    if not tokenizer.is_file():
        raise FormatError("missing_file", tokenizer, "not found; expected the checkpoint's tokenizer")
    if details.hash("tokenizer_sha256") != sha256_file(tokenizer):
        message = 'has another sha256; expected "details.tokenizer_sha256" of the manifest'
        raise FormatError("checksum_mismatch", tokenizer, message)


# ---- tensors


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """The tensors of the weight files, by name, from the files' headers.

    Raises:
        FormatError: `missing_file`, `truncated`, `missing_tensor` for one that the index names and its file lacks.
    """
    index = directory / _INDEX
    if not index.is_file():
        if not (directory / _SINGLE).is_file():
            _ = inspect_checkpoint(directory).tensors  # raises, naming weights of another kind
        return dict(sorted(_header(directory / _SINGLE).items()))
    weight_map = Fields(read_object(index), index).object("weight_map")
    names = {name: weight_map.string(name) for name in sorted(weight_map.value)}
    for name, file in names.items():
        if "/" in file or "\\" in file:
            raise weight_map.error("unsafe_path", name, f'is "{file}"; expected a plain file name')
    headers = {file: _header(directory / file) for file in sorted(set(names.values()))}
    for name, file in names.items():
        if name not in headers[file]:
            message = f'"{name}" not found; expected it, since {_INDEX} lists it'
            raise FormatError("missing_tensor", directory / file, message, field=name)
    return {name: headers[file][name] for name, file in names.items()}


def _header(path: Path) -> dict[str, Tensor]:
    """Check a file with the safetensors library; offsets, which it does not tell, are in the header's JSON."""
    if not path.is_file():
        raise FormatError("missing_file", path, "not found; expected a safetensors file")
    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        wrong = _wrong_dtype(path)
        message = f"is not a complete safetensors file ({error})"
        raise wrong or FormatError("truncated", path, message, hint="copy or create the file again") from error
    return _entries(path)


def _entries(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as stream:
        data = 8 + int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(data - 8))
    return {
        name: Tensor(
            name=name,
            path=path,
            dtype=row["dtype"],
            shape=tuple(row["shape"]),
            start=data + row["data_offsets"][0],
            end=data + row["data_offsets"][1],
        )
        for name, row in header.items()
        if name != "__metadata__"
    }


def _wrong_dtype(path: Path) -> FormatError | None:
    """The error of a tensor whose bytes do not fit its dtype and shape: the library does not name it."""
    try:
        for tensor in _entries(path).values():
            item_bytes = int((re.search(r"\d+", tensor.dtype) or ["8"])[0]) // 8
            found, expected = tensor.end - tensor.start, math.prod(tensor.shape) * item_bytes
            if found != expected:
                message = f'"{tensor.name}" has {found} bytes; expected {expected} of {tensor.dtype}'
                return FormatError("wrong_dtype", path, message, field=tensor.name)
    except (ValueError, KeyError, TypeError, AttributeError):  # the header itself is damaged
        return None
    return None


# ---- what a configuration requires


def _check_tensors(config: Fields, tensors: dict[str, Tensor], directory: Path) -> None:
    listing = directory / (_INDEX if (directory / _INDEX).is_file() else _SINGLE)
    for name, shape in required_shapes(config, len(tensors)).items():
        tensor = tensors.get(name)
        if tensor is None:
            message = f'"{name}" not found; expected it with shape {list(shape)}, as config.json implies'
            raise FormatError("missing_tensor", listing, message, field=name, hint="export the checkpoint again")
        if tensor.shape != shape:
            message = f'"{name}" has shape {list(tensor.shape)}; expected {list(shape)}, as config.json implies'
            raise FormatError("wrong_shape", tensor.path, message, field=name, hint="export the checkpoint again")


def required_shapes(config: Fields, most: int | None = None) -> dict[str, tuple[int, ...]]:
    """The tensors that config.json requires, in transformers' names; empty if the specification lacks the architecture.

    With `most` tensors in the file, no more layers or experts are listed.
    Raises:
        FormatError: a size that is missing, not a number or below 1.
    """
    family = str((config.value.get("architectures") or [""])[0]).removesuffix("ForCausalLM")
    if family not in _FAMILIES:
        return {}
    width, inner, vocabulary, layers, heads = (
        config.integer(name, minimum=1)
        for name in ("hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers", "num_attention_heads")
    )
    experts = config.integer(_EXPERTS[family], minimum=1) if family in _EXPERTS else 0
    for name, count in (("num_hidden_layers", layers), (_EXPERTS.get(family, ""), experts)):
        if most is not None and count > most:
            raise config.error("invalid_value", name, f"is {count}; expected at most {most}, the number of tensors")
    head_width = config.optional_integer("head_dim", minimum=1)
    if head_width is None and width % heads:
        raise config.error("invalid_value", "num_attention_heads", f"is {heads}; expected a divisor of {width}")
    head_width = head_width or width // heads
    query, key = heads * head_width, (config.optional_integer("num_key_value_heads", minimum=1) or heads) * head_width
    room, gate, up, down = "mlp", "gate_proj", "up_proj", "down_proj"
    if family == "Mixtral":
        room, gate, up, down = "block_sparse_moe", "w1", "w3", "w2"
    attention = {"q_proj": (query, width), "k_proj": (key, width), "v_proj": (key, width), "o_proj": (width, query)}
    matrices = {f"self_attn.{name}": shape for name, shape in attention.items()}
    for part in [f"{room}.experts.{number}" for number in range(experts)] or [room]:
        matrices |= {f"{part}.{gate}": (inner, width), f"{part}.{up}": (inner, width), f"{part}.{down}": (width, inner)}
    biased = {
        "self_attn": bool(config.value.get("attention_bias")) and family not in ("Mistral", "Mixtral"),
        "mlp": bool(config.value.get("mlp_bias")) and family == "Llama",
    }
    block: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in matrices.items()}
    block |= {f"{name}.bias": shape[:1] for name, shape in matrices.items() if biased.get(name.partition(".")[0])}
    if experts:
        block[f"{room}.gate.weight"] = (experts, width)
    if family in ("Olmo2", "Olmo3", "Olmoe"):
        block |= {"self_attn.q_norm.weight": (query,), "self_attn.k_norm.weight": (key,)}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    if family != "Olmo":  # its layer norms have no parameters
        other = "post_feedforward_layernorm" if family in ("Olmo2", "Olmo3") else "input_layernorm"
        block |= {"post_attention_layernorm.weight": (width,), f"{other}.weight": (width,)}
        shapes["model.norm.weight"] = (width,)
    if not config.value.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (vocabulary, width)
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def dump(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each tensor."""
    for name, tensor in read_checkpoint(path).tensors.items():
        yield {"tensor": name, "dtype": tensor.dtype, "shape": list(tensor.shape), "sha256": tensor.sha256()}


READERS = {"checkpoint": Reader(dump, ("parameters", "tensors"), lambda row: (math.prod(row["shape"]), 1))}
