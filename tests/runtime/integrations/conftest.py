"""The real packages: they are imported where they are installed, without their news and their questions to networks."""

from __future__ import annotations

import os
import sys

# Read when they are imported.
for name in ("HF_HUB_OFFLINE", "DO_NOT_TRACK", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")
os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # what runs Spark's workers
