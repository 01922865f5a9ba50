"""The chat page in a browser: what users click becomes rows that `open-instruct dpo` trains on."""

import json

import pytest
from browser import CHROMIUM, browser
from conftest import read_metrics
from open_instruct.__main__ import main
from open_instruct.formats.__main__ import main as formats
from open_instruct.serve.feedback import Feedback
from open_instruct.serve.requests import Refused
from serving import hosted

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
ENTER, TAB, ESCAPE = ("Enter", 13, "\r"), ("Tab", 9), ("Escape", 27)
ASKED = [{"role": "user", "content": "Why?"}]


def _rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _click(tab, text, nth=0):
    wanted = (
        f"[...document.querySelectorAll('button')].filter(b => b.offsetParent && b.textContent === {text!r})[{nth}]"
    )
    tab.until(f"!!({wanted})")
    tab.run(f"{wanted}.click()")


@needs_chromium
def test_thumb_edit_and_choice_become_rows_that_dpo_trains_on(checkpoint, run, tmp_path):
    model = checkpoint("llama")
    store = Feedback(tmp_path / "feedback", model.name)
    rows = tmp_path / "feedback" / "preferences.jsonl"
    with hosted(model, feedback=store) as address, browser(tmp_path / "profile") as tab:
        tab.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
        tab.call("Page.navigate", url=address)
        tab.until(f"document.title === {model.name!r}")
        tab.run("document.getElementById('tokens').value = 12")
        tab.run("document.getElementById('message').focus()")
        tab.type("Why?")
        tab.key(*ENTER)
        tab.until("document.querySelectorAll('.actions').length === 1")

        # nothing is stored before the text of the consent was shown and accepted
        _click(tab, "Bad")
        tab.until("document.getElementById('consent').open")
        assert "used to train" in tab.run("document.getElementById('consent-text').innerText")
        _click(tab, "No, store nothing")
        tab.until("document.getElementById('status').textContent === 'Nothing was stored.'")
        assert (tmp_path / "feedback" / "thumbs.jsonl").read_text() == ""
        _click(tab, "Bad")
        _click(tab, "I agree")
        tab.until("document.getElementById('status').textContent.startsWith('Stored. A pair')")

        # the other thumb for another answer makes a pair, by keyboard
        _click(tab, "Another answer")
        tab.until("document.querySelectorAll('.actions').length === 2")
        tab.run("[...document.querySelectorAll('[aria-label=\"Good answer\"]')].at(-1).focus()")
        tab.key(*ENTER)
        tab.until("document.getElementById('status').textContent.startsWith('Stored as a pair')")

        # the user's own version is better than the model's
        _click(tab, "Edit", 1)
        tab.run("document.activeElement.select()")
        tab.type("Because it is so.")
        tab.key(*TAB)
        tab.key(*ENTER)
        tab.until("document.getElementById('status').textContent.includes('your version')")

        # two answers side by side, in the second turn
        tab.run("document.getElementById('message').focus()")
        tab.type("How are you?")
        _click(tab, "Compare two")
        tab.until("document.querySelectorAll('.better').length === 4")
        _click(tab, "This one is better", 3)
        tab.until("document.querySelectorAll('.better[aria-pressed=true]').length === 1")
        assert tab.run("document.documentElement.scrollWidth") == 360  # nothing is wider than a phone
        for scheme in ("light", "dark"):
            tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            tab.screenshot(tmp_path / f"{scheme}.png")
        assert tab.errors == []
    stored = _rows(rows)
    assert [row["source"] for row in stored] == ["feedback/thumb", "feedback/edit", "feedback/choice"]
    assert stored[1]["chosen"] == "Because it is so."
    assert stored[1]["rejected"] == stored[0]["chosen"]
    assert stored[2]["prompt"][1] == {"role": "assistant", "content": "Because it is so."}
    assert {row["metadata"]["consent"] for row in stored} == {store.version}
    assert formats(["validate", "preference", str(rows)]) == 0
    tuned = run("dpo", rows, "training.max_steps=15", "training.batch_sequences=3", "training.micro_batch_sequences=3")
    logged = [row["train/rewards/margins"] for row in read_metrics(tuned) if "train/rewards/margins" in row]
    assert logged[-1] > logged[0]


@needs_chromium
def test_page_asks_for_the_token_and_stops_an_answer(checkpoint, tmp_path):
    token = "a-token-of-this-test"
    with hosted(checkpoint("llama"), tokens=[token]) as address, browser(tmp_path / "profile") as tab:
        tab.call("Page.navigate", url=address)
        tab.until("document.readyState === 'complete' && document.getElementById('login').open")
        tab.type(token)
        tab.key(*ENTER)
        tab.until("document.title !== 'Chat' && !document.getElementById('login').open")
        tab.run("document.getElementById('message').focus()")
        tab.run("document.getElementById('tokens').value = 999")
        tab.type("Why?")
        tab.key(*ENTER)
        tab.until("document.getElementById('status').textContent.includes('at most 256')")
        assert tab.run("document.getElementById('message').value") == "Why?"  # to be changed and sent again
        tab.run("document.getElementById('tokens').value = 200")
        tab.key(*ENTER)
        tab.until(
            "document.querySelector('.answer .text')?.textContent.length > 2 || !!document.querySelector('.actions')"
        )
        tab.key(*ESCAPE)
        tab.until("document.getElementById('stop').hidden && document.querySelectorAll('.actions').length === 1")
        assert tab.run("[...document.querySelectorAll('.actions button')].map(b => b.textContent)") == [
            "Another answer"
        ]


def test_feedback_is_checked_before_it_is_stored(tmp_path):
    store = Feedback(tmp_path, "m")
    good = {"consent": store.version, "kind": "edit", "messages": ASKED, "chosen": "Because.", "rejected": "No."}
    wrong = [
        ([], 400, "object"),
        (good | {"consent": "other"}, 403, "consent"),
        (good | {"kind": "star"}, 400, "kind"),
        (good | {"chosen": "No."}, 400, "equal"),
        (good | {"chosen": ""}, 400, "empty"),
        (good | {"messages": [*ASKED, {"role": "assistant", "content": "x"}]}, 400, "role"),
        (good | {"messages": "Why?"}, 400, "messages"),
        (good | {"kind": "thumb", "answer": "No.", "up": 1}, 400, "up"),
    ]
    for body, status, words in wrong:
        with pytest.raises(Refused, match=words) as refused:
            store.add(body)
        assert refused.value.status == status
    assert _rows(tmp_path / "preferences.jsonl") == []
    assert store.add(good)["pairs"] == 1
    assert store.add(good)["pairs"] == 0  # the same again
    assert len(_rows(tmp_path / "preferences.jsonl")) == 1


def test_thumbs_are_joined_also_after_a_restart(tmp_path):
    def thumb(answer, up):
        store = Feedback(tmp_path, "m")
        body = {"consent": store.version, "kind": "thumb", "messages": ASKED, "answer": answer, "up": up}
        return store.add(body)["pairs"]

    assert [thumb("A", True), thumb("B", True), thumb("C", False), thumb("C", False)] == [0, 0, 2, 0]
    pairs = [(row["chosen"], row["rejected"]) for row in _rows(tmp_path / "preferences.jsonl")]
    assert pairs == [("A", "C"), ("B", "C")]


def test_feedback_directory_must_be_one(tmp_path, checkpoint, capsys):
    (tmp_path / "preferences.jsonl").write_text('{"no": "pair"}\n')
    assert main(["serve", str(checkpoint("llama")), "--feedback", str(tmp_path), "--port", "0"]) == 2
    assert "--feedback" in capsys.readouterr().err
