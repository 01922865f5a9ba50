"""MinHash-LSH in datatrove, all four steps: `python datatrove_minhash.py DOCUMENTS OUT BANDS ROWS`.

Runs with a Python that has `datatrove[io,processing]`. The last step writes the documents without duplicates; ours
writes attributes.
"""

from __future__ import annotations

import sys

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter


def main(documents: str, out: str, bands: int, rows: int) -> None:
    """One task in each step."""
    config = MinhashConfig(n_grams=5, num_buckets=bands, hashes_per_bucket=rows)

    def run(name: str, *steps: object, tasks: int = 1) -> None:
        pipeline = list(steps)
        LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=1, logging_dir=f"{out}/logs/{name}").run()

    run("signatures", JsonlReader(documents), MinhashDedupSignature(f"{out}/signatures", config=config))
    run("buckets", MinhashDedupBuckets(f"{out}/signatures", f"{out}/buckets", config=config), tasks=bands)
    run("clusters", MinhashDedupCluster(f"{out}/buckets", f"{out}/remove", config=config))
    run("filter", JsonlReader(documents), MinhashDedupFilter(f"{out}/remove"), JsonlWriter(f"{out}/documents"))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
