"""``python -m bench``; people use ``bench/run``, which makes the environment first."""

import sys

from bench.options import parse

options = parse(sys.argv[1:])

# Only now: --help has to work before anything is installed.
from bench.comparisons import main  # noqa: E402
from bench.process import BenchError  # noqa: E402

try:
    main(options)
except BenchError as error:
    sys.exit(f"bench: {error}")
