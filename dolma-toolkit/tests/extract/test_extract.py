"""``dolma extract``: what becomes of a page, and what a bad record costs."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import os
from base64 import b32encode
from pathlib import Path
from typing import Any

import pytest
from dolma_corpus import Dolma, artifact_hashes, find_shared_data
from web_archives import page, pages, record, response, texts, write_gzip, write_zstd

pytest.importorskip("resiliparse")

OWN = "own_extractors:plain"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "crawl").mkdir()
    return tmp_path


@pytest.fixture
def extract(dolma: Dolma) -> Any:
    """Runs the command over ``crawl``; gives documents and counts of the destination."""

    def run(*arguments: object, code: int = 0) -> tuple[list[dict[str, Any]], dict[str, int], list[dict[str, Any]]]:
        given = ["--documents", "crawl/*", "--destination", "out/documents", "--source_name", "web"]
        dolma("extract", *given, *arguments, code=code)
        out = Path("out/documents")
        rows = [row for path in sorted(out.glob("*.jsonl.gz")) for row in texts(path)]
        counts = json.loads((out / "manifest.json").read_text())["counts"] if code == 0 else {}
        listed = out / ".dolma" / "skipped.ndjson"
        found = [json.loads(line) for line in listed.read_text().splitlines()] if listed.exists() else []
        return rows, {name: count for name, count in counts.items() if name != "text_bytes"}, found

    return run


def test_a_page_becomes_a_document_with_the_fields_of_dolma(extract: Any) -> None:
    content = page(7)
    digest = b32encode(hashlib.sha1(content.encode()).digest()).decode()
    info = record(b"software: x\r\n", 1, kind="warcinfo")
    write_gzip(Path("crawl/a.warc.gz"), [info, *pages(1, 7), record(b"GET /\r\n", 3, kind="request")])
    [row], counts, listed = extract("--source_version", "v9")
    text = row.pop("text")
    assert "This is page 7." in text
    assert row == {
        "id": digest.lower(),
        "source": "web",
        "created": "2014-02-16T05:02:20.000Z",
        "version": "v9",
        "metadata": {
            "warc_url": "http://www.example.com/7/",
            "url": "example.com/7",
            "warc_date": "2014-02-16T05:02:21.000Z",
            "warc_filename": f"<urn:uuid:{1:032d}>",
            "content_type": "text/html",
            "charset": "UTF-8",
            "uncompressed_offset": len(gzip.compress(info, mtime=0)),
            "warc_record_id": f"<urn:uuid:{7:032d}>",
            "warc_record_date": "2014-02-16T05:02:21Z",
            "warc_payload_digest": f"sha1:{digest}",
        },
    }
    assert (counts, listed) == ({"documents": 1, "skipped_record_type": 1}, [])


def test_the_bytes_do_not_depend_on_processes(extract: Any, folder: Path) -> None:
    write_gzip(Path("crawl/a.warc.gz"), pages(70))
    write_gzip(Path("crawl/b.warc.gz"), pages(3, 70))
    hashes = []
    for processes in (1, 2, 8):
        rows, _, _ = extract("--processes", processes, "--ignore_existing")
        assert [row["text"].rsplit(" ", 1)[1] for row in rows] == [f"{number}." for number in range(73)]
        hashes.append(artifact_hashes(folder / "out/documents"))
    assert hashes[0] == hashes[1] == hashes[2]


def test_the_documents_do_not_depend_on_the_packing(extract: Any) -> None:
    records = pages(30)
    whole = b"".join(records)
    write_gzip(Path("crawl/records.warc.gz"), records)
    Path("crawl/plain.warc").write_bytes(whole)
    Path("crawl/whole.warc.gz").write_bytes(gzip.compress(whole))
    # blocks that begin anywhere
    blocks = [gzip.compress(whole[start : start + 5000]) for start in range(0, len(whole), 5000)]
    Path("crawl/blocks.warc.gz").write_bytes(b"".join(blocks))
    write_zstd(Path("crawl/zstd.warc.zst"), records, packed_dictionary=False)
    write_zstd(Path("crawl/packed.warc.zst"), records, packed_dictionary=True)
    Path("crawl/bzip2.warc.bz2").write_bytes(bz2.compress(whole))
    _, counts, _ = extract("--linearizer", OWN)
    assert counts == {"documents": 30 * 7}
    expected = [row["text"] for row in texts(Path("out/documents/records.jsonl.gz"))]
    assert expected[7].endswith("This is page 7.")
    for path in Path("out/documents").glob("*.gz"):
        assert [row["text"] for row in texts(path)] == expected, path


def test_every_kind_of_input_is_read(extract: Any) -> None:
    content = response(page(1))
    arc = f"http://example.com/1 127.0.0.1 20140216050221 text/html {len(content)}\n".encode() + content + b"\n"
    head = b"1 0 Crawl\nURL IP-address Archive-date Content-type Archive-length\n\n"
    start = f"filedesc://a.arc 127.0.0.1 20140216050221 text/plain {len(head)}\n".encode() + head
    Path("crawl/a.arc").write_bytes(start + arc)
    wet = record(b"Text of a page.\nIts second line.", 2, kind="conversion", Content_Type="text/plain")
    write_gzip(Path("crawl/b.warc.wet.gz"), [wet])
    Path("crawl/c.html").write_text(page(3), "utf-8")
    Path("crawl/d.html.gz").write_bytes(gzip.compress(page(4).encode("utf-16")))
    rows = [{"id": "five", "url": "https://www.example.com/5?b=1&a=2", "html": page(5), "lang": "en"}, {"html": 6}]
    Path("crawl/e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, "seven"]))
    found, counts, listed = extract()
    assert [row["text"][-7:] for row in found] == ["page 1.", "d line.", "page 3.", "page 4.", "page 5."]
    assert [row["metadata"].get("url") for row in found] == [
        "example.com/1",
        "example.com/2",
        None,
        None,
        "example.com/5?a=2&b=1",
    ]
    assert found[0]["metadata"]["warc_record_date"] == "2014-02-16T05:02:21Z"
    assert found[3]["metadata"]["charset"] == "UTF-16LE"
    assert (found[4]["id"], found[4]["metadata"]["lang"]) == ("five", "en")
    assert counts == {"documents": 5, "skipped_bad_row": 2}
    assert [(one["offset"], one["reason"]) for one in listed] == [(2, "bad_row"), (3, "bad_row")]
    assert sorted(path.name for path in Path("out/documents").glob("*.gz")) == [
        "a.arc.jsonl.gz",
        "b.wet.jsonl.gz",
        "c.html.jsonl.gz",
        "d.html.jsonl.gz",
        "e.jsonl.gz",
    ]


def test_what_is_no_page_is_counted_by_its_reason(extract: Any) -> None:
    records = [
        record(response(page(1), status="404 Not Found"), 1),
        record(response("%PDF", mime_type="application/pdf"), 2),
        record(response("<html><body></body></html>"), 3),
        record(response(page(4), mime_type="application/octet-stream"), 4),
        record(response("some words", mime_type="text/plain; charset=utf-8"), 5),
        record(response('{"a": "words"}', mime_type="application/json"), 6),
    ]
    write_gzip(Path("crawl/a.warc.gz"), records)
    rows, counts, listed = extract()
    assert [row["text"][-7:] for row in rows] == ["page 4.", "e words"]
    skipped = {"skipped_http_status": 1, "skipped_mime_type": 2, "skipped_no_text": 1}
    assert (counts, listed) == ({"documents": 2, **skipped}, [])
    Path("run.yaml").write_text("mime_types: {application/json: plain, text/plain: null}\nany_status: true\n")
    rows, counts, _ = extract("-c", "run.yaml", "--ignore_existing")
    assert [row["text"][-7:] for row in rows] == ["page 1.", "page 4.", 'words"}']
    assert counts == {"documents": 3, "skipped_mime_type": 2, "skipped_no_text": 1}


def test_charsets_may_be_mixed(extract: Any) -> None:
    russian = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 5
    html = "<html><head>{}</head><body><p>{}</p></body></html>"
    bodies = [
        (html.format("", russian).encode("utf-8"), "text/html; charset=utf-8"),
        (html.format('<meta charset="koi8-r">', russian).encode("koi8-r"), "text/html"),
        (html.format("", russian).encode("windows-1251"), "text/html"),
        (html.format("", russian).encode("windows-1251"), "text/html; charset=UTF-8"),
        (html.format("", russian).encode("utf-16"), "text/html; charset=windows-1251"),
        (html.format("", russian).encode("utf-8")[:-40] + b"\xd0", "text/html; charset=utf-8"),
    ]
    records = [record(response(body, mime_type=kind), number) for number, (body, kind) in enumerate(bodies)]
    write_gzip(Path("crawl/a.warc.gz"), records)
    rows, counts, _ = extract()
    assert [row["metadata"]["charset"] for row in rows] == [
        "UTF-8",
        "KOI8-R",
        "windows-1251",
        "windows-1251",
        "UTF-16LE",
        "UTF-8",
    ]
    assert all("мягких французских булок" in row["text"] for row in rows)
    assert counts == {"documents": 6, "documents_replaced": 1}


BAD: dict[str, tuple[bytes, str]] = {
    "length too short": (record(response(page(99)), 99, length=300), "wrong_length"),
    "length too long": (record(response(page(99)), 99, length=5000), "wrong_length"),
    "length far too long": (record(response(page(99)), 99, length=2 << 30), "wrong_length"),
    "no length": (record(response(page(99)), 99).replace(b"Content-Length", b"Length"), "wrong_length"),
    "length no number": (
        record(response(page(99)), 99).replace(b"Content-Length: ", b"Content-Length: x"),
        "wrong_length",
    ),
    "no header": (b"these are no header lines\r\n\r\n", "bad_header"),
    "large": (record(response("<p>" + "x" * 200_000), 99), "too_large"),
    "bomb": (
        record(response(gzip.compress(b"<p>" + bytes(1 << 26)), "Content-Encoding: gzip"), 99),
        "too_large",
    ),
    "damaged content": (record(response(b"\x1f\x8b\x08abcdef", "Content-Encoding: gzip"), 99), "damaged"),
}


@pytest.mark.parametrize("packing", ["records", "whole", "plain"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_costs_no_other(extract: Any, name: str, packing: str) -> None:
    bad, reason = BAD[name]
    records = [*pages(2), bad, *pages(2, 2)]
    if packing == "records":
        write_gzip(Path("crawl/a.warc.gz"), records)
    else:
        whole = b"".join(records)
        Path("crawl/a.warc.gz").write_bytes(gzip.compress(whole) if packing == "whole" else whole)
    rows, counts, [listed] = extract("--max_record_bytes", 100_000, "--linearizer", OWN)
    assert [row["text"].rsplit(" ", 1)[1] for row in rows] == ["0.", "1.", "2.", "3."]
    assert counts == {"documents": 4, f"skipped_{reason}": 1}
    assert (listed["file"], listed["reason"]) == ("crawl/a.warc.gz", reason)
    assert "; expected " in listed["message"]


@pytest.mark.parametrize("packing", ["records", "plain"])
def test_a_truncated_archive_keeps_what_it_has(extract: Any, packing: str) -> None:
    path = write_gzip(Path("crawl/a.warc.gz"), pages(4))
    if packing == "plain":
        path.write_bytes(b"".join(pages(4)))
    path.write_bytes(path.read_bytes()[:-150])
    write_gzip(Path("crawl/b.warc.gz"), pages(1, 9))
    Path("crawl/c.warc.gz").touch()
    rows, counts, listed = extract("--linearizer", OWN)
    assert [row["text"].rsplit(" ", 1)[1] for row in rows] == ["0.", "1.", "2.", "9."]
    assert counts == {"documents": 4, "skipped_truncated": 2}
    assert [(one["file"], one["reason"]) for one in listed] == [
        ("crawl/a.warc.gz", "truncated"),
        ("crawl/c.warc.gz", "truncated"),
    ]


def test_damage_in_a_packed_archive_costs_its_record(extract: Any) -> None:
    members = [gzip.compress(record, mtime=0) for record in pages(5)]
    damaged = bytearray(members[2])
    damaged[len(damaged) // 2 : len(damaged) // 2 + 9] = b"\xff" * 9
    Path("crawl/a.warc.gz").write_bytes(b"".join([*members[:2], bytes(damaged), *members[3:]]))
    rows, counts, [listed] = extract("--linearizer", OWN)
    assert [row["text"].rsplit(" ", 1)[1] for row in rows] == ["0.", "1.", "3.", "4."]
    assert counts == {"documents": 4, "skipped_damaged": 1}
    assert listed["offset"] == sum(map(len, members[:2]))


def test_a_page_that_hangs_or_crashes_the_extractor_costs_itself(extract: Any) -> None:
    words = ["HANG", "CRASH", "MEMORY", "RAISE", "ONCE", "SLEEP"]
    bad = [record(response(page(50 + number, extra=word)), 50 + number) for number, word in enumerate(words)]
    good = pages(len(bad) + 1)
    records = [one for pair in zip(good, bad, strict=False) for one in pair] + good[-1:]
    write_gzip(Path("crawl/a.warc.gz"), records)
    rows, counts, listed = extract("--linearizer", OWN, "--time_limit_s", 0.2, "--memory_limit_bytes", 1 << 28)
    expected = ["0.", "1.", "2.", "3.", "4.", "ONCE", "5.", "6."]
    assert [row["text"].rsplit(" ", 1)[1] for row in rows] == expected
    reasons = {one["reason"]: one["message"] for one in listed}
    assert set(reasons) == {"timeout", "crashed", "out_of_memory", "extractor_error"}
    assert "SIGABRT" in reasons["crashed"]
    assert "ValueError: no such page" in reasons["extractor_error"]
    skipped = {"timeout": 2, "crashed": 1, "out_of_memory": 1, "extractor_error": 1}
    assert counts == {"documents": 8, **{f"skipped_{name}": count for name, count in skipped.items()}}


def test_trafilatura_is_stopped_at_a_page_that_is_too_much_for_it(extract: Any) -> None:
    pytest.importorskip("trafilatura")
    long = "".join(f"<p>some words and more of them, in paragraph {number}</p>" for number in range(40_000))
    records = [*pages(1), record(response(f"<html><body><article>{long}</article></body></html>"), 77), *pages(1, 1)]
    write_gzip(Path("crawl/a.warc.gz"), records)
    rows, _, [listed] = extract("--linearizer", "trafilatura", "--time_limit_s", 0.3)
    assert [row["text"].rsplit(" ", 1)[1] for row in rows] == ["0.", "1."]
    assert listed["reason"] == "timeout"


def test_taggers_see_html_before_and_text_after(extract: Any) -> None:
    licence = '<a rel="license" href="https://creativecommons.org/licenses/by-sa/4.0/">CC</a>'
    records = [*pages(1), record(response(page(1, extra=licence)), 1)]
    write_gzip(Path("crawl/a.warc.gz"), records)
    given = ("--pre.taggers", "cc_re", "--post.taggers", "char_length_v1", "cc_re_fast")
    rows, counts, _ = extract(*given, "--store_html_in_metadata")
    assert [row["attributes"] for row in rows] == [
        {"char_length_v1__char_length_v1__length": [[0, len(rows[0]["text"]), len(rows[0]["text"])]]},
        {
            "cc_re__cc_re__cc_by_sa_4_0": [[0, 0, 1.0]],
            "char_length_v1__char_length_v1__length": [[0, len(rows[1]["text"]), len(rows[1]["text"])]],
            "cc_re_fast__cc_re_fast__cc_by_sa": [[0, len(rows[1]["text"]), 1.0]],
        },
    ]
    assert licence in rows[1]["metadata"]["html"]
    rows, counts, _ = extract("--pre.taggers", "cc_re", "--pre.skip", "--ignore_existing")
    assert ["html" in row["metadata"] for row in rows] == [False]
    assert counts == {"documents": 1, "skipped_no_pre_tagger": 1}


def test_requests_that_are_wrong_are_refused_before_work_starts(dolma: Dolma, extract: Any) -> None:
    write_gzip(Path("crawl/a.warc.gz"), pages(2))
    given = ["--documents", "crawl/*", "--destination", "out/documents", "--source_name", "web"]
    assert "expected resiliparse, trafilatura, plain or" in dolma("extract", *given, "--linearizer", "lynx", code=2).err
    assert "which cannot be imported" in dolma("extract", *given, "--linearizer", "nowhere:text", code=2).err
    assert "pre.taggers.0" in dolma("extract", *given, "--pre.taggers", "cc_ree", code=2).err
    assert not Path("out").exists()
    rows, _, _ = extract()
    # finished: other settings would overwrite it
    assert "extracted with other settings" in dolma("warc", *given, "--added", "2026", code=2).err
    before = artifact_hashes(Path("out/documents"))
    assert "1 were finished before" in dolma("extract", *given).err
    assert artifact_hashes(Path("out/documents")) == before
    # another archive joins
    write_gzip(Path("crawl/b.warc"), pages(1, 5))
    assert len(extract()[0]) == len(rows) + 1
    Path("crawl/c.warc.paths").write_text("crawl-data/CC-MAIN.warc.gz\n")
    _, counts, [listed] = extract()
    assert counts == {"documents": 3, "skipped_unknown_format": 1}
    assert "expected WARC, ARC, HTML or JSON lines" in listed["message"]


def test_real_captures_give_their_pages(extract: Any) -> None:
    root = find_shared_data() / "web" / "warc"
    for name in ("whirlwind.warc.gz", "whirlwind.warc.wet.gz", "example.arc.gz", "example-iana.org-chunked.warc"):
        os.symlink(root / name, f"crawl/{name}")
    rows = {(row["metadata"]["uncompressed_offset"], row["metadata"]["warc_url"]): row for row in extract()[0]}
    # the offsets are those of fastwarc, which dolma 1.2.1 reads with
    page = rows[1023, "https://an.wikipedia.org/wiki/Escopete"]
    [wet] = [row for row in rows.values() if row["metadata"]["content_type"] == "text/plain"]
    assert page["id"] == "ry7plbufqni2ffv5ftuqk72w6snpxlqu"
    assert "Escopete" in page["text"]
    assert "Escopete" in wet["text"]
    assert "Internet Assigned Numbers Authority" in rows[405, "http://www.iana.org/"]["text"]
    assert any("Example Domain" in row["text"] for row in rows.values())
