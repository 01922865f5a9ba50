"""Three sample chats: the model answers the first held-out questions.

`python demo/answers.py MODEL CHATS OUTPUT COMMAND`, where COMMAND is that of open-instruct.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from artifact import Artifact

SAMPLES = 3
MAX_NEW_TOKENS = 60


def main(model: Path, chats: Path, output: Path, command: list[str]) -> None:
    """Write `answers.jsonl`: the question, the reference answer of the documents, and the model's answer.

    Raises SystemExit: the chat command fails.
    """
    rows = [json.loads(line) for line in (chats / "chats.jsonl").read_text("utf-8").splitlines()[:SAMPLES]]
    artifact = Artifact(output, "table")
    questions = [{"id": row["id"], "messages": row["messages"][:1]} for row in rows]
    artifact.write_lines("questions.jsonl", questions)
    arguments = ["chat", str(model), "--input", str(output / "questions.jsonl"), "--output", str(output / "said.jsonl")]
    arguments += ["--max-new-tokens", str(MAX_NEW_TOKENS), "--temperature", "0", "--seed", "0"]
    done = subprocess.run([*command, *arguments], check=False)
    if done.returncode != 0:
        raise SystemExit(f"error: open-instruct chat exited with {done.returncode}; expected answers from {model}")
    said = [json.loads(line) for line in (output / "said.jsonl").read_text("utf-8").splitlines()]
    answers = [
        {
            "question": row["messages"][0]["content"],
            "reference": row["messages"][1]["content"],
            "answer": answer["messages"][-1]["content"],
        }
        for row, answer in zip(rows, said, strict=True)
    ]
    artifact.write_lines("answers.jsonl", answers)
    artifact.add_artifact("checkpoint", model)
    artifact.add_artifact("chats", chats)
    artifact.finish(config={"max_new_tokens": MAX_NEW_TOKENS, "temperature": 0}, counts={"answers": len(answers)})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
