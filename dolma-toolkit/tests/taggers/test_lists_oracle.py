"""List, licence, copyright and tokenizer taggers against dolma 1.2.1, both given the same files."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
from oracle import corpus, read_rows
from taggers.peer import compare

pytestmark = pytest.mark.oracle

HOSTS = """# remark
0.0.0.0 ads.example.net
127.0.0.1 tracker.example.org
bad.example
||filtered.example^
http://full.example/some/path
10.9.8.7
not a host at all !
"""
ADDRESSES = "bad.example/login\nhost.example:8080/a\nplain.example\n"
FILTERS = """[Adblock Plus 2.0]
! remark
||bad.example^
||third.example^$third-party
||first.example^$~third-party
||script.example^$script
||mixed.example^$image,other
||named.example^$domain=a.com
||not.example^$domain=~a.com
/banner/*/ad_
-tracker-
||path.example/ads/
@@||bad.example/fine/
|http://start
end.html|
^sep^
||wild*.example^
/ex[0-9]+pr/
page.example##.banner
"""
URLS = [
    "https://bad.example/", "http://www.bad.example/login/", "https://BAD.example/fine/x", "https://sub.bad.example/a?b=c",
    "http://ads.example.net:80/x", "https://filtered.example", "full.example/some/path", "http://full.example/other",
    "http://10.9.8.7/", "http://host.example:8080/a#f", "plain.example", "http://u:p@plain.example/", "https://third.example/",
    "https://first.example/", "https://script.example/", "https://mixed.example/", "https://named.example/",
    "https://not.example/", "http://a.com/banner/7/ad_1", "http://a.com/x-tracker-y", "http://path.example/ads/1",
    "http://path.example/b/ads/1", "https://started.org/", "http://a.com/end.html", "http://a.com/sep/", "http://a.com/sep",
    "http://wilder.example/", "http://a.com/ex12pr", "http://page.example/", "tracker.example.org/", "", "http://A.com/%7Eé/../b",
]  # fmt: skip
HTML = """<p><a rel="license" href="https://creativecommons.org/licenses/by-nc/4.0/deed.de">x</a></p>
<a href="http://creativecommons.org/publicdomain/zero/1.0/">y</a> <meta content="https://creativecommons.org/licenses/by/3.0/">
see http://creativecommons.org/licenses/by-sa/2.0 or http://creativecommons.org/licenses/by/ too"""


def sample(count: int, chars: int) -> list[str]:
    files = corpus("c4", "docs", "ubuntu_irc")
    texts = []
    for file in files:
        texts += [row["text"][:chars] for row, _ in zip(read_rows(file.parent), range(count), strict=False)]
    return texts


def test_addresses_are_found_as_1_2_1_finds_them(tmp_path: Path) -> None:
    rows = [{"id": str(at), "text": "x" * at, "source": "s", "metadata": {"url": url}} for at, url in enumerate(URLS)]
    lists = {"hosts": HOSTS, "addresses": ADDRESSES, "filters": FILTERS}
    paths = {}
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        paths[name] = str(tmp_path / name)
    taggers = {
        "blocklist_hosts_porn_v1": [paths["hosts"]],
        "blocklist_firebog_ads_v1": [paths["hosts"], paths["hosts"]],
        "link_blocklist_phishing_v1": [paths["addresses"]],
        "oisd_small_abp_v1": [paths["filters"]],
        "brave_core_abp_v1": [paths["filters"]],
    }
    assert compare(tmp_path, rows, taggers) > 15


def test_licences_and_comments_are_found_as_1_2_1_finds_them(tmp_path: Path) -> None:
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = [path.read_text("utf-8") for path in sorted(library.glob("*.py"))[:40]]
    sources += ["/* Copyright é */ x", "/* none */", "// a\n\nb", "-- x\n# y\n", "x", HTML]
    pages = [HTML, "", HTML.replace("https", "http").replace("a rel", "A rel"), *sample(5, 3000)]
    rows = [
        {"id": str(at), "text": text, "source": "s", "metadata": {"html": pages[at % len(pages)]}}
        for at, text in enumerate(sources)
    ]
    assert compare(tmp_path, rows, {"cc_re": [], "cc_re_fast": [], "code_copyright_comments_v1": []}) == len(rows)


@pytest.mark.parametrize("file", ["allenai_gpt-neox-olmo-dolma-v1_5.json", "allenai_dolma2.json"])
def test_tokens_are_counted_and_repeat_as_in_1_2_1(tmp_path: Path, shared_data: Path, file: str) -> None:
    # a repetition at the very beginning is a difference of its own: 1.2.1 lets it begin at -1
    texts = [
        *sample(20, 3000),
        "It went\nha ha ha ha ha\n\n=====\nab ab ab ab\n- - - - -",
        " \n",
        "He said no no no no",
        "x\n" + "é" * 50,
    ]
    rows = [{"id": str(at), "text": text, "source": "s", "metadata": {}} for at, text in enumerate(texts)]
    names = ["dolma_v1_tokenizer", "tokenizers_AI2_OLMo_v1", "tokenizer_repetitions_v1", "tokenizer_repetitions_v2r2"]
    names.append("paragraph_tokenizer_repetitions_v1")
    tokenizer = str(shared_data / "tokenizers" / file)
    assert compare(tmp_path, rows, {name: [] for name in names}, tokenizer) == len(rows)
