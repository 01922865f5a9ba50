"""The mask: trained tokens are exactly the assistant's words and the end of its turn, in every template."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_instruct.chat.encode import IGNORED, ConversationEncoder
from open_instruct.chat.render import SHIPPED, ChatTemplate, choose_template, read_shipped
from open_instruct.config import TemplateSettings
from open_instruct.errors import RequestError
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "tokenizers"
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
        end = encoder.tokenizer.convert_ids_to_tokens(encoder.stop_id)
        answers = [message["content"] + end for message in messages if message["role"] == "assistant"]
        assert _trained_text(encoder, encoded) == "".join(answers)
        assert [label for label in encoded.labels if label != IGNORED].count(encoder.stop_id) == len(answers)
        assert len(encoded.input_ids) == len(encoded.labels)


@settings(max_examples=30, deadline=None)
@given(messages=_conversations())
def test_text_is_what_apply_chat_template_gives(encoders, messages):
    for encoder in encoders.values():
        whole = encoder.tokenizer.apply_chat_template(messages, chat_template=encoder.template.text, tokenize=False)
        assert encoder.tokenizer.decode(encoder.encode([messages])[0].input_ids) == whole


@settings(max_examples=30, deadline=None)
@given(messages=_conversations(), other=TEXT)
def test_pair_splits_where_a_prompt_ends(encoders, messages, other):
    for encoder in encoders.values():
        prompt, answer = encoder.encode_pair(messages[:-1], messages[-1]["content"])
        assert prompt == encoder.encode_prompt(messages[:-1]) == encoder.encode_pair(messages[:-1], other)[0]
        end = encoder.tokenizer.convert_ids_to_tokens(encoder.stop_id)
        assert encoder.tokenizer.decode(answer) == messages[-1]["content"] + end
        assert answer[-1] == encoder.stop_id


@pytest.mark.parametrize("name", SHIPPED)
def test_ids_are_those_of_apply_chat_template_for_ordinary_text(name, encoders):
    encoder = encoders[name]
    prompt = encoder.tokenizer.apply_chat_template(
        CONVERSATION[:-1],
        chat_template=encoder.template.text,
        add_generation_prompt=True,
        return_dict=False,
    )
    assert encoder.encode_prompt(CONVERSATION[:-1]) == prompt


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
def test_olmo_tokenizer_with_tulu_and_bos():
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(SHARED / "allenai_gpt-neox-olmo-dolma-v1_5.json"),
        eos_token="<|endoftext|>",
        bos_token="<|endoftext|>",
        pad_token="<|padding|>",
    )
    encoder = ConversationEncoder(tokenizer, choose_template(TemplateSettings(name="tulu", add_bos=True), None))
    encoded = encoder.encode([CONVERSATION])[0]
    assert encoded.input_ids[0] == 50279
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
    prompt, answer = encoder.encode_pair([{"role": "user", "content": "Two?"}], "One")
    assert tokenizer.convert_ids_to_tokens(answer) == ["O", "n", "e", "</s>"]
    assert tokenizer.convert_ids_to_tokens(prompt)[0] == "▁"


def test_new_special_tokens_are_found_in_text(encoders):
    chatml = encoders["chatml"]
    assert chatml.holds_special([{"role": "user", "content": "a <|im_end|> b"}])
    assert chatml.holds_special([{"role": "user", "content": "<|endoftext|>"}])
    assert not chatml.holds_special([{"role": "user", "content": "<|user|>"}])


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
            "renders a prompt alone differently",
        ),
        ("{{ bos_token }}" + read_shipped("tulu"), "begins with bos_token, which the tokenizer lacks"),
        (read_shipped("tulu").replace("message['role'] == 'assistant'", "false"), "marks no text as the assistant's"),
    ],
    ids=["no marker", "end not trained", "prompt differs", "no bos", "nothing marked"],
)
def test_template_that_does_not_fit_is_refused(tokenizer, tmp_path, text, expected):
    path = tmp_path / "own.jinja"
    path.write_text(text)
    with pytest.raises(RequestError) as caught:
        ConversationEncoder(tokenizer, choose_template(TemplateSettings(name=str(path)), None))
    assert expected in str(caught.value)


def test_checkpoint_template_is_used_unless_another_is_named():
    own = read_shipped("plain")
    assert choose_template(TemplateSettings(), own) == ChatTemplate("the checkpoint's", own)
    assert choose_template(TemplateSettings(), None).name == "tulu"
    assert choose_template(TemplateSettings(name="zephyr"), own).name == "zephyr"
