"""`python -m embgemma` is the command `embgemma`."""

from __future__ import annotations

import sys

from .cli.main import main

sys.exit(main())
