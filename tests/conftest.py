"""The same conditions wherever the tests run: one thread for torch, and signals that arrive.

Threads only wait for each other on tiny batches. A shell that starts the tests in the background lets them, and all
programs they start, ignore Ctrl+C, and nohup does the same with SIGHUP; tests send both.
"""

from __future__ import annotations

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
