"""The mask: trained tokens are exactly the assistant's words and the end of its turn, in every template."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_instruct.chat.encode import IGNORED, ConversationEncoder
from open_instruct.chat.render import SHIPPED, ChatTemplate, choose_template, read_shipped
from open_instruct.config import TemplateSettings
from open_instruct.data import encode_conversations
from open_instruct.formats.chat import Conversation
from open_instruct.formats.contract import ConfigError
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

GOLDEN = Path(__file__).parent / "golden"
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Two words?"},
    {"role": "assistant", "content": "Good day."},
    {"role": "user", "content": "And one?"},
    {"role": "assistant", "content": "Hello"},
]
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda text: "<|" not in text
)


# what a template writes between an answer and the marks around it
SPACING = {"llama2": (" ", " "), "mistral": (" ", "")}


def _trained(encoder: ConversationEncoder, answer: str) -> str:
    before, after = SPACING.get(encoder.template.name, ("", ""))
    return before + answer + after + encoder.tokenizer.convert_ids_to_tokens(encoder.stop_id)


def _conversations() -> st.SearchStrategy[list[dict[str, str]]]:
    def build(system: str | None, turns: list[tuple[str, str]]) -> list[dict[str, str]]:
        messages = [{"role": "system", "content": system}] if system else []
        for question, answer in turns:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return messages

    return st.builds(build, st.none() | TEXT, st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))


def _encoder(tokenizer, name: str) -> ConversationEncoder:
    copy = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()),
        eos_token=tokenizer.eos_token,
        pad_token="<|padding|>",
        bos_token="<|endoftext|>",
    )
    copy.add_tokens(list(SHIPPED[name]), special_tokens=True)
    return ConversationEncoder(copy, choose_template(TemplateSettings(name=name), None))


@pytest.fixture(scope="module")
def encoders(tokenizer) -> dict[str, ConversationEncoder]:
    return {name: _encoder(tokenizer, name) for name in SHIPPED}


def _split(encoder: ConversationEncoder, messages: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """Encode the last answer and its prompt apart, as pairs are."""
    return encoder.encode_prompt(messages[:-1]), encoder.encode_answer(messages[:-1], messages[-1]["content"])


def _trained_text(encoder: ConversationEncoder, encoded) -> str:
    return encoder.tokenizer.decode([label for label in encoded.labels if label != IGNORED])


@pytest.mark.parametrize("name", SHIPPED)
def test_template_renders_as_recorded(name, encoders):
    encoded = encoders[name].encode([CONVERSATION])[0]
    assert encoders[name].tokenizer.decode(encoded.input_ids) == (GOLDEN / f"{name}.txt").read_text("utf-8")


@settings(max_examples=60, deadline=None)
@given(messages=_conversations())
def test_trained_tokens_are_exactly_the_answers_and_their_ends(encoders, messages):
    for encoder in encoders.values():
        encoded = encoder.encode([messages])[0]
        answers = [_trained(encoder, one["content"]) for one in messages if one["role"] == "assistant"]
        assert _trained_text(encoder, encoded) == "".join(answers)
        assert [label for label in encoded.labels if label != IGNORED].count(encoder.stop_id) == len(answers)
        assert len(encoded.input_ids) == len(encoded.labels)


@settings(max_examples=30, deadline=None)
@given(messages=_conversations())
def test_text_equals_apply_chat_template(encoders, messages):
    for encoder in encoders.values():
        whole = encoder.tokenizer.apply_chat_template(messages, chat_template=encoder.template.text, tokenize=False)
        assert encoder.tokenizer.decode(encoder.encode([messages])[0].input_ids) == whole


@settings(max_examples=30, deadline=None)
@given(messages=_conversations())
def test_pair_splits_where_a_prompt_ends(encoders, messages):
    for encoder in encoders.values():
        prompt, answer = _split(encoder, messages[-2:])
        assert encoder.encode_one(messages[-2:]).input_ids[: len(prompt + answer)] == prompt + answer
        assert encoder.tokenizer.decode(answer) == _trained(encoder, messages[-1]["content"])
        assert answer[-1] == encoder.stop_id


@pytest.mark.parametrize("name", SHIPPED)
def test_ids_equal_apply_chat_template_for_ordinary_text(name, encoders):
    encoder = encoders[name]
    prompt = encoder.tokenizer.apply_chat_template(
        CONVERSATION[:-1],
        chat_template=encoder.template.text,
        add_generation_prompt=True,
        return_dict=False,
    )
    assert encoder.encode_prompt(CONVERSATION[:-1]) == prompt


def test_end_of_text_as_bos_of_tulu_is_not_trained(tokenizer):
    copy = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()),
        eos_token="<|endoftext|>",
        bos_token="<|endoftext|>",
        pad_token="<|padding|>",
    )
    encoder = ConversationEncoder(copy, choose_template(TemplateSettings(name="tulu", add_bos=True), None))
    encoded = encoder.encode([CONVERSATION])[0]
    assert encoded.input_ids[0] == copy.eos_token_id
    assert encoded.labels[0] == IGNORED
    assert _trained_text(encoder, encoded) == "Good day.<|endoftext|>Hello<|endoftext|>"


@pytest.mark.parametrize("scheme", ["metaspace", "normalizer"])
def test_tokenizer_that_prefixes_a_space_puts_none_before_an_answer(scheme):
    pieces = ["<unk>", "<s>", "</s>", "▁", "\n", *"<|usertanyq>?sioTwF.hOne"]
    vocabulary = [(piece, -float(rank)) for rank, piece in enumerate(dict.fromkeys(pieces))]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    if scheme == "metaspace":
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    else:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    encoder = ConversationEncoder(tokenizer, choose_template(TemplateSettings(name="tulu"), None))
    prompt, answer = _split(encoder, [{"role": "user", "content": "Two?"}, {"role": "assistant", "content": "One"}])
    assert tokenizer.convert_ids_to_tokens(answer) == ["O", "n", "e", "</s>"]
    assert tokenizer.convert_ids_to_tokens(prompt)[0] == "▁"


def _spaced(scheme: str) -> PreTrainedTokenizerFast:
    """A tokenizer that puts a space before a text, or, as Llama 2's, before each piece between special tokens."""
    pieces = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", *map(chr, range(33, 127)), "▁", "\n", "é", "\t"]
    vocabulary = {piece: rank for rank, piece in enumerate(pieces)}
    merges = [("▁", "T"), ("▁", "a"), ("\n", "\n"), ("e", "r"), (":", "▁")]
    for one, two in merges:
        vocabulary[one + two] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    if scheme == "prepend":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    backend.add_special_tokens(["<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def all_encoders(encoders) -> list[ConversationEncoder]:
    spaced = [_spaced(scheme) for scheme in ("prepend", "first", "always")]
    templates = [choose_template(TemplateSettings(name=name), None) for name in SHIPPED if name != "llama3"]
    return [*encoders.values(), *(ConversationEncoder(one, template) for one in spaced for template in templates)]


@settings(max_examples=40, deadline=None)
@given(messages=_conversations())
def test_prompt_has_the_ids_of_apply_chat_template_for_any_tokenizer(all_encoders, messages):
    for encoder in all_encoders:
        if encoder._text.break_special(messages) is not None:
            continue  # it spells out a special token
        theirs = encoder.tokenizer.apply_chat_template(
            messages[:-1], chat_template=encoder.template.text, add_generation_prompt=True, return_dict=False
        )
        assert encoder.encode_prompt(messages[:-1]) == theirs


@settings(max_examples=40, deadline=None)
@given(messages=_conversations())
def test_whole_conversation_has_the_ids_of_apply_chat_template(all_encoders, messages):
    for encoder in all_encoders:
        # no token straddles a border where a message begins with a letter or digit and ends without white space
        texts = [message["content"].strip() for message in messages]
        plain = [
            message | {"content": text if text[:1].isalnum() else f"x{text}"}
            for message, text in zip(messages, texts, strict=True)
        ]
        if encoder._text.break_special(plain) is not None:
            continue
        theirs = encoder.tokenizer.apply_chat_template(plain, chat_template=encoder.template.text, return_dict=False)
        assert encoder.encode_one(plain).input_ids == theirs


def test_token_across_the_border_of_an_answer_is_cut_there(encoders):
    backend = Tokenizer.from_str(encoders["tulu"].tokenizer.backend_tokenizer.to_str())
    value = json.loads(backend.to_str())
    value["model"]["merges"].append(["Ċ", "Ċ"])  # one token for two line breaks
    value["model"]["vocab"]["ĊĊ"] = 300
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(value)), eos_token="<|endoftext|>", pad_token="<|padding|>"
    )
    encoder = ConversationEncoder(tokenizer, ChatTemplate("tulu", read_shipped("tulu")))
    messages = [{"role": "user", "content": "a\n\n\nb"}, {"role": "assistant", "content": "\n\nc"}]
    prompt, answer = _split(encoder, messages)
    assert tokenizer.convert_ids_to_tokens(prompt).count("ĊĊ") == 1
    assert tokenizer.convert_ids_to_tokens(answer) == ["Ċ", "Ċ", "c", "<|endoftext|>"]
    encoded = encoder.encode_one(messages)
    assert encoded.input_ids[: len(prompt + answer)] == prompt + answer


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("kind", ["bytes", "prepend", "first", "always"])
def test_special_tokens_that_a_message_spells_out_are_text(encoders, name, kind):
    if kind == "bytes":
        encoder = encoders[name]
    else:
        tokenizer = _spaced(kind)
        tokenizer.add_tokens(list(SHIPPED[name]), special_tokens=True)
        encoder = ConversationEncoder(tokenizer, choose_template(TemplateSettings(name=name), None))
    stop = encoder.tokenizer.convert_ids_to_tokens(encoder.stop_id)
    spelled = f"Write <s>text</s> or {stop}!"
    messages = [
        {"role": "user", "content": f"Why {stop}?"},
        {"role": "assistant", "content": spelled},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "So"},
    ]
    encoded = encoder.encode_one(messages)
    trained = [label for label in encoded.labels if label != IGNORED]
    assert trained.count(encoder.stop_id) == 2
    assert _plain_text(encoder, trained) == (_trained(encoder, spelled) + _trained(encoder, "So")).replace(" ", "")
    whole = encoder.tokenizer.apply_chat_template(messages, chat_template=encoder.template.text, tokenize=False)
    assert _plain_text(encoder, encoded.input_ids) == whole.replace(" ", "")
    # only the spelled text differs: the special tokens are those of a conversation that spells none
    harmless = [one | {"content": one["content"].replace("<", "(").replace("|", "(")} for one in messages]
    clean = encoder.encode_one(harmless).input_ids
    assert [id for id in encoded.input_ids if id in _special_ids(encoder)] == [
        id for id in clean if id in _special_ids(encoder)
    ]
    prompt, answer = _split(encoder, messages[:2])
    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.input_ids[len(prompt) : len(prompt + answer)] == answer


def _special_ids(encoder: ConversationEncoder) -> set[int]:
    return set(encoder.tokenizer.all_special_ids)


def _plain_text(encoder: ConversationEncoder, ids: list[int]) -> str:
    """Text without spaces, since a tokenizer adds some itself."""
    if encoder.tokenizer.backend_tokenizer.decoder is not None:
        return encoder.tokenizer.decode(ids).replace(" ", "")
    return "".join(encoder.tokenizer.convert_ids_to_tokens(ids)).replace("▁", "")


def test_template_that_drops_system_messages_is_warned_about(tokenizer, encoders, caplog):
    assert not any(encoder.drops_system for encoder in encoders.values())
    text = read_shipped("tulu").replace("{%- else -%}", "{%- elif message['role'] == 'user' -%}")
    encoder = ConversationEncoder(tokenizer, ChatTemplate("deaf", text))
    row = Conversation(id="", source="", messages=tuple(CONVERSATION), path=Path("c.jsonl"), line=1)
    encode_conversations([row], encoder, 500, "drop")
    assert "1 rows have a system message, which deaf template drops" in caplog.text


def test_answers_of_weight_0_are_read_and_not_trained(encoders):
    encoder = encoders["tulu"]
    encoded = encoder.encode([CONVERSATION], [frozenset({0})])[0]
    assert _trained_text(encoder, encoded) == "Hello<|endoftext|>"
    assert encoded.input_ids == encoder.encode_one(CONVERSATION).input_ids


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "has no {% generation %}"),
        (
            "{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
            "{% endgeneration %}{{ eos_token }}{% else %}{{ m['content'] }}{% endif %}{% endfor %}",
            "expected a special token within",
        ),
        (
            "{% for m in messages %}{% if m['role'] == 'assistant' %}A: {% generation %}{{ m['content'] + eos_token }}"
            "{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}Assistant: {% endif %}",
            "renders a prompt without its answer differently",
        ),
        ("{{ bos_token }}" + read_shipped("tulu"), "uses bos_token; expected a tokenizer that has one"),
        (read_shipped("tulu").replace("message['role'] == 'assistant'", "false"), "marks no text as the assistant's"),
    ],
    ids=["no marker", "end not trained", "prompt differs", "no bos", "nothing marked"],
)
def test_template_that_does_not_fit_is_refused(tokenizer, tmp_path, text, expected):
    path = tmp_path / "own.jinja"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        ConversationEncoder(tokenizer, choose_template(TemplateSettings(name=str(path)), None))
    assert expected in str(caught.value)


def test_checkpoint_template_is_used_unless_another_is_named():
    own = read_shipped("plain")
    assert choose_template(TemplateSettings(), own) == ChatTemplate("the checkpoint's", own)
    assert choose_template(TemplateSettings(), None).name == "tulu"
    assert choose_template(TemplateSettings(name="zephyr"), own).name == "zephyr"
