"""Every template and every shape of conversation: exactly the answers are trained, or the error locates the row."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_instruct.chat.encode import IGNORED, ConversationEncoder
from open_instruct.chat.render import SHIPPED, ChatTemplate, choose_template, read_shipped
from open_instruct.config import TemplateSettings
from open_instruct.data import BadRows, encode_conversations
from open_instruct.formats.chat import parse_conversation
from open_instruct.formats.contract import ConfigError, FormatError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

# what a template writes between its marks and the answer, as the published ones do
SPACING = {"llama2": (" ", " "), "mistral": (" ", "")}
QUESTION_BEFORE_ANSWER = {"llama2", "mistral"}
ROLES = ["system", "user", "assistant", "assistant", "tool"]
SPELLED = ["<|endoftext|>", "<|im_end|>", "<|eot_id|>", "[/INST]", "<s>", "<|assistant|>", "<think>", "</think>", "\n"]
# the reserved characters, in a row with a special token, are an error of their own
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\U000f5a16\U000f5a17\U000f5a18")
WORDS = st.lists(st.sampled_from(SPELLED) | st.text(CHARACTERS, max_size=8), max_size=6).map("".join)
TEXT = WORDS | st.sampled_from(["", " ", "x", "<think>\nWell.\n</think>\n\nYes", "word " * 3000])


@pytest.fixture(scope="module")
def encoders(tokenizer) -> dict[str, ConversationEncoder]:
    made = {}
    for name in SHIPPED:
        copy = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()),
            eos_token=tokenizer.eos_token,
            bos_token="<s>",
            pad_token="<|padding|>",
        )
        copy.add_tokens(list(SHIPPED[name]), special_tokens=True)
        made[name] = ConversationEncoder(copy, choose_template(TemplateSettings(name=name), None))
    return made


def _valid(messages: list[dict[str, str]]) -> bool:
    """The rules of docs/formats/chat.md, written again."""
    if any(not message["content"] for message in messages):
        return False
    roles = [message["role"] for message in messages]
    if roles[:1] == ["system"]:
        roles = roles[1:]
    shape = "".join(role[0] for role in roles)  # u, a, t, s
    return (
        shape[:1] == "u"
        and shape[-1:] == "a"
        and "s" not in shape
        and not any(pair in shape for pair in ("uu", "ut", "tu"))
    )


def _spans(encoder: ConversationEncoder, labels: list[int]) -> str:
    return encoder.tokenizer.decode([label for label in labels if label != IGNORED])


MESSAGES = st.lists(st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": TEXT}), min_size=0, max_size=7)
SHAPES = st.sampled_from(["ua", "sua", "uaa", "uata", "suattaua", "uauaua", "uaaataa"])
FULL = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
SHAPED = SHAPES.flatmap(
    lambda shape: st.tuples(*[TEXT.filter(bool) for _ in shape]).map(
        lambda texts: [{"role": FULL[key], "content": text} for key, text in zip(shape, texts, strict=True)]
    )
)


@settings(max_examples=150)
@given(messages=MESSAGES | SHAPED)
@pytest.mark.parametrize("name", SHIPPED)
def test_trains_exactly_the_answers_or_locates_the_row(name, encoders, messages):
    encoder = encoders[name]
    if not _valid(messages):
        with pytest.raises(FormatError, match=r"^rows\.jsonl:7: "):
            parse_conversation({"messages": messages}, Path("rows.jsonl"), 7)
        return
    row = parse_conversation({"messages": messages}, Path("rows.jsonl"), 7)
    roles = [message["role"] for message in messages]
    refused = name in QUESTION_BEFORE_ANSWER and (
        "tool" in roles or any(one == two == "assistant" for one, two in pairwise(roles))
    )
    if refused:
        with pytest.raises(BadRows, match=r"^rows\.jsonl:7: "):
            encode_conversations([row], encoder, 10**6, "drop")
        return
    example = encode_conversations([row], encoder, 10**6, "drop").rows[0]
    before, after = SPACING.get(name, ("", ""))
    end = encoder.tokenizer.convert_ids_to_tokens(encoder.stop_id)
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    assert _spans(encoder, example.labels) == "".join(before + answer + after + end for answer in answers)
    assert example.labels.count(encoder.stop_id) == len(answers)
    whole = encoder.tokenizer.apply_chat_template(messages, chat_template=encoder.template.text, tokenize=False)
    assert encoder.tokenizer.decode(example.input_ids) == whole


def _published(path: str) -> str | None:
    """A template that TRL ships for a published model."""
    import trl

    file = Path(trl.__file__).parent / "chat_templates" / path
    return file.read_text("utf-8") if file.is_file() else None


PLAIN_CHATS = [
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Two words?"},
        {"role": "assistant", "content": "Good day."},
        {"role": "user", "content": "And one?"},
        {"role": "assistant", "content": "<think>\nOne.\n</think>\n\nHello"},
    ],
]


@pytest.mark.parametrize(("name", "published"), [("llama3", "llama3.jinja"), ("chatml", "qwen2_5.jinja")])
@pytest.mark.parametrize("length", [3, 5])
def test_renders_as_the_published_template(name, published, length, encoders):
    reference = _published(published)
    assert reference is not None, "TRL no longer ships it"
    tokenizer = encoders[name].tokenizer
    for chat in PLAIN_CHATS:
        ours, theirs = (
            tokenizer.apply_chat_template(chat[:length], chat_template=text, tokenize=False)
            for text in (read_shipped(name), reference)
        )
        assert ours == theirs
        ours, theirs = (
            tokenizer.apply_chat_template(
                chat[: length - 1], chat_template=text, tokenize=False, add_generation_prompt=True
            )
            for text in (read_shipped(name), reference)
        )
        assert ours == theirs


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        # the end of the last of three answers is missing
        (
            read_shipped("tulu").replace("+ eos_token", "+ (eos_token if loop.index < 6 else '')"),
            "answer 3 does not end in a special token",
        ),
        # the third answer is dropped
        (
            read_shipped("tulu").replace(
                "message['role'] == 'assistant' -%}",
                "message['role'] == 'assistant' and loop.index == 6 -%}{%- elif message['role'] == 'assistant' -%}",
            ),
            "it marks 2 answers; expected 3",
        ),
        (
            read_shipped("tulu").replace("message['content'] + eos", "message['content'][:6] + eos"),
            "as answer 3; expected its text",
        ),
        (
            "{{- bos_token -}}{%- if messages | length > 4 -%}{{- bos_token -}}{%- endif -%}" + read_shipped("tulu"),
            "twice",
        ),
    ],
    ids=["end", "dropped", "cut", "bos"],
)
def test_row_that_a_template_spoils_is_located(template, expected, encoders):
    tokenizer = encoders["tulu"].tokenizer
    good = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "short"}]
    long = [*good * 2, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a longer answer"}]
    rows = [parse_conversation({"messages": one}, Path("rows.jsonl"), line) for line, one in enumerate((good, long), 1)]
    encoder = ConversationEncoder(tokenizer, ChatTemplate("odd", template))
    with pytest.raises(BadRows) as caught:
        encode_conversations(rows, encoder, 10**6, "drop")
    assert str(caught.value).startswith("rows.jsonl:2: ")
    assert expected in str(caught.value)


def test_row_without_anything_to_train_is_located(encoders):
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0}]
    row = parse_conversation({"messages": messages}, Path("rows.jsonl"), 3)
    with pytest.raises(BadRows, match=r"rows\.jsonl:3: no answer is to be trained"):
        encode_conversations([row], encoders["tulu"], 100, "truncate")


def test_reserved_character_with_a_special_token_is_located(encoders):
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<|endoftext|>\U000f5a16"}]
    row = parse_conversation({"messages": messages}, Path("rows.jsonl"), 3)
    with pytest.raises(BadRows, match=r"rows\.jsonl:3: .*reserved character"):
        encode_conversations([row], encoders["tulu"], 100, "truncate")


def test_think_that_a_template_writes_into_the_prompt_is_refused(encoders):
    text = read_shipped("tulu").replace(
        "{{- '<|assistant|>\\n' -}}{%- endif", "{{- '<|assistant|>\\n<think>' -}}{%- endif"
    )
    with pytest.raises(ConfigError, match="renders a prompt without its answer differently"):
        ConversationEncoder(encoders["tulu"].tokenizer, ChatTemplate("thinker", text))
