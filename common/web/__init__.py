"""What the pages of both sides are made of: looks, sessions, forms, and how they are served."""

from __future__ import annotations
