"""Run by `torchrun` in each of two processes: the training runs of a list, one after the other."""

import json
import sys
from pathlib import Path

from open_instruct.__main__ import main

if __name__ == "__main__":
    for arguments in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        code = main(arguments)
        if code:
            sys.exit(code)
