"""The sample compared with its definition on the whole corpus: sort by hash, take until the target is reached."""

from hypothesis import given
from hypothesis import strategies as st
from paloma.build import Bytes, DomainSample, order_key, split_of, text_key
from paloma.formats.document import Document

Pairs = list[tuple[str, str]]
PAIRS = st.lists(
    st.tuples(st.text("abc", min_size=1, max_size=3), st.text("xyzé", min_size=1, max_size=8)), max_size=40
)


def sample(pairs: Pairs, target: int, whole: bool = True) -> list[Document]:
    found = DomainSample(target, Bytes())
    for id, text in pairs:
        found.offer(Document(id=id, text=text), order_key(7, id), text_key(7, text))
    return found.documents(whole=whole)


def by_definition(pairs: Pairs, target: int) -> Pairs:
    ordered = sorted((order_key(7, id), text_key(7, text), id, text) for id, text in pairs)
    ordered.sort(key=lambda row: (row[0], bytes(255 - b for b in row[1])))
    chosen: Pairs = []
    seen: set[str] = set()
    for _, _, id, text in ordered:
        if sum(len(t.encode()) for _, t in chosen) >= target:
            break
        if text not in seen:
            seen.add(text)
            chosen.append((id, text))
    return chosen


@given(PAIRS, st.integers(1, 60))
def test_sample_is_the_first_in_hash_order(pairs: Pairs, target: int) -> None:
    assert [(d.id, d.text) for d in sample(pairs, target)] == by_definition(pairs, target)


@given(PAIRS, st.integers(1, 60), st.randoms(use_true_random=False))
def test_order_of_the_corpus_does_not_matter(pairs: Pairs, target: int, random: object) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sample(pairs, target) == sample(shuffled, target)


@given(PAIRS, st.integers(1, 30), st.integers(1, 30))
def test_larger_target_only_adds(pairs: Pairs, target: int, more: int) -> None:
    small, large = sample(pairs, target), sample(pairs, target + more)
    assert large[: len(small)] == small


@given(PAIRS, st.integers(1, 60))
def test_truncated_sample_has_the_target_size_up_to_a_character(pairs: Pairs, target: int) -> None:
    whole, cut = sample(pairs, target), sample(pairs, target, whole=False)
    available, size = sum(len(d.text.encode()) for d in whole), sum(len(d.text.encode()) for d in cut)
    assert size == available if available <= target else target - 1 <= size <= target
    for one, other in zip(whole, cut, strict=False):
        assert one.text == other.text + other.metadata.get("truncated_portion", "")
    assert sum("truncated_portion" in d.metadata for d in cut) <= 1


def test_splits_are_balanced_and_depend_only_on_the_text() -> None:
    keys = [text_key(0, f"text {n}") for n in range(4000)]
    first = sum(split_of(key, ("val", "test")) == "val" for key in keys)
    assert 1850 < first < 2150  # 2000 ± 4.7 standard deviations
    assert text_key(0, "x") == text_key(0, "x") != text_key(1, "x")
