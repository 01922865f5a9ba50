"""The cache of encoded rows is never stale, and any number of processes encodes the same."""

import json
from pathlib import Path

import pytest
from conftest import chat_rows, pair_rows, write_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from open_instruct.chat.encode import ConversationEncoder
from open_instruct.chat.render import ChatTemplate, read_shipped
from open_instruct.config import EncodingSettings, SequenceSettings
from open_instruct.data import BadRows, read_conversations, read_pairs
from open_instruct.encoded import encode_rows, entry_name
from open_instruct.formats.contract import sha256_file
from transformers import AutoTokenizer


def _encoder(checkpoint, template: str = "tulu", text: str | None = None) -> ConversationEncoder:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint())
    return ConversationEncoder(tokenizer, ChatTemplate(template, text or read_shipped(template)))


def _entry(path: Path, encoder: ConversationEncoder, max_length: int = 64, **sequence: object) -> str:
    rows = read_conversations([str(path)], "data.train")
    return entry_name(rows, encoder, max_length, SequenceSettings(**sequence), pairs=False)


@settings(max_examples=30)
@given(place=st.integers(0, 10_000), character=st.sampled_from("abcxyz019"))
def test_any_edit_of_a_text_of_the_same_length_misses(checkpoint, tmp_path_factory, place, character):
    path = write_rows(tmp_path_factory.mktemp("c") / "chats.jsonl", chat_rows(3))
    encoder = _encoder(checkpoint)
    before = _entry(path, encoder)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    message = rows[place % 3]["messages"][-1]
    text = message["content"]
    at = place % len(text)
    message["content"] = text[:at] + character + text[at + 1 :]
    write_rows(path, rows)
    assert (_entry(path, encoder) == before) == (message["content"] == text)


def test_template_tokenizer_settings_code_and_version_miss(checkpoint, chats, monkeypatch):
    names = [_entry(chats, _encoder(checkpoint))]
    assert names[0] == _entry(chats, _encoder(checkpoint))
    names.append(_entry(chats, _encoder(checkpoint, "zephyr")))
    names.append(_entry(chats, _encoder(checkpoint, text=read_shipped("tulu") + "{# #}")))
    names.append(_entry(chats, _encoder(checkpoint), max_length=65))
    names.append(_entry(chats, _encoder(checkpoint), too_long="drop"))
    grown = _encoder(checkpoint)
    grown.tokenizer.add_tokens(["<|new|>"], special_tokens=True)
    names.append(_entry(chats, grown))
    for target in ("open_instruct.encoded._CODE", "open_instruct.encoded._LIBRARIES"):
        with monkeypatch.context() as patch:
            patch.setattr(target, ("encoded.py",) if "CODE" in target else ("torch",))
            names.append(_entry(chats, _encoder(checkpoint)))
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("pairs", [False, True])
def test_a_hit_and_several_processes_give_the_same_rows(checkpoint, tmp_path, pairs):
    rows = [*(pair_rows(7) if pairs else chat_rows(7))]
    path = write_rows(tmp_path / "d.jsonl", rows)
    read = (read_pairs if pairs else read_conversations)([str(path)], "data.train")
    encoder, sequence = _encoder(checkpoint), SequenceSettings(too_long="truncate")

    def encode(**options: object):
        return encode_rows(
            read, encoder, 30 if pairs else 60, sequence, EncodingSettings(**options), pairs=pairs, least_rows=1
        )

    plain = encode()
    assert plain.truncated > 0
    assert encode(num_processes=2) == plain
    cache = str(tmp_path / "cache")
    assert encode(cache=cache) == plain
    encoder.encode = encoder.encode_prompt = None  # a hit does not encode
    assert encode(cache=cache) == plain
    damaged = next((tmp_path / "cache").glob("*.arrow"))
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"123456789")
    with pytest.raises(TypeError):  # it is encoded again
        encode(cache=cache)


def test_bad_rows_are_named_in_order_by_any_number_of_processes(checkpoint, tmp_path):
    rows = chat_rows(6)
    for index in (1, 4):
        rows[index]["messages"].insert(0, {"role": "system", "content": "x"})
    path = write_rows(tmp_path / "d.jsonl", rows)
    read = read_conversations([str(path)], "data.train")
    refusing = read_shipped("tulu") + "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    errors = []
    for count in (1, 2):
        with pytest.raises(BadRows) as caught:
            encode_rows(
                read,
                _encoder(checkpoint, text=refusing),
                64,
                SequenceSettings(),
                EncodingSettings(num_processes=count),
                pairs=False,
                least_rows=1,
            )
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    assert f"{path}:2" in errors[0]
    assert f"{path}:5" in errors[0]


def test_a_run_with_a_cache_gives_the_same_bytes(run, chats, tmp_path):
    cached = f"encoding.cache={tmp_path / 'cache'}"
    plain, first, second = (run("sft", chats, "training.max_steps=1", *more) for more in ([], [cached], [cached]))
    assert len(list((tmp_path / "cache").glob("*.arrow"))) == 1
    for output in (first, second):
        for name in ("model.safetensors", "manifest.json"):
            assert sha256_file(output / name) == sha256_file(plain / name)
