"""Processes in the place of the one that measures; apart from the tests, so that they start without pytest."""

from __future__ import annotations

import os
import time
from typing import Any


def dies_hangs_and_breaks_the_gpu(sender: Any, task: Any) -> None:
    """Takes the place of the process that measures: each of its first parts ends it in another way."""
    sender.send(("device", "cuda"))
    for name in task.left:
        sender.send(("row", {"form": "fast", "without": sorted(task.without)}))
        if name == "machine":
            os._exit(3)
        if name == "equality":
            time.sleep(600)
        if name == "determinism":
            sender.send(("broken", "fast, Triton"))
            return
        sender.send(("end", None))
