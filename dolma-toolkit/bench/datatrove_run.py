"""The whole path in datatrove, as its FineWeb example does it: `python datatrove_run.py DOCUMENTS OUT TOKENIZER LID`.

Runs with a Python that has `datatrove[io,processing]`. Its repetition, Gopher and C4 filters and its PII formatter do
what our taggers and rules do; its duplicates are spans of three sentences, since it has none of paragraphs. Its
language filter labels with the model LID, which it would download otherwise.
"""

from __future__ import annotations

import sys

import fasttext
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import SentenceDedupFilter, SentenceDedupSignature, SentenceFindDedups
from datatrove.pipeline.dedup.sentence_dedup import SentDedupConfig
from datatrove.pipeline.filters import (
    C4QualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.lid import FT176LID


def main(documents: str, out: str, tokenizer: str, language_model: str) -> None:
    """Filters, deduplicates and tokenizes, one task in each step."""
    model = fasttext.load_model(language_model)
    FT176LID.model = property(lambda self: model)
    config = SentDedupConfig(n_sentences=3, split_sentences=True, only_dedup_in_index=True, min_doc_words=50)

    def run(name: str, *steps: object) -> None:
        LocalPipelineExecutor(pipeline=list(steps), tasks=1, workers=1, logging_dir=f"{out}/logs/{name}").run()

    run(
        "filter",
        JsonlReader(documents, glob_pattern="*.gz"),
        LanguageFilter(label_only=True),
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        PIIFormatter(),
        JsonlWriter(f"{out}/filtered"),
        SentenceDedupSignature(f"{out}/signatures", config=config, finder_workers=1),
    )
    run("find", SentenceFindDedups(data_folder=f"{out}/signatures", output_folder=f"{out}/found", config=config))
    run(
        "tokens",
        JsonlReader(f"{out}/filtered"),
        SentenceDedupFilter(data_folder=f"{out}/found", config=config),
        JsonlWriter(f"{out}/documents"),
        DocumentTokenizer(f"{out}/tokens", tokenizer_name_or_path=tokenizer, eos_token=None, shuffle_documents=False),
    )


if __name__ == "__main__":
    main(*sys.argv[1:5])
