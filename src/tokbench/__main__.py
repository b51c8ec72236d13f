"""`python -m tokbench` is `tokbench`."""

import sys

from tokbench.cli.app import main

sys.exit(main())
