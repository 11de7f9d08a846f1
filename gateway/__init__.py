"""The gateway: trains on data that never leave its site; sends noised differences."""

from __future__ import annotations

import sys

from common.python import require

require(*sys.version_info[:2])
