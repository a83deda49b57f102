"""The rooms of the program; what stands here happens before any of them imports torch."""

import os
import sys

__version__ = "0.3.0"  # CHANGELOG.md says what each release changed

# How long torch's threads spin while they wait for each other. Without spinning, short operations take three times as
# long; spinning for milliseconds, which is the default, loses up to 50 times beside another program.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# The memory of a GPU in pieces that grow: batches are of unlike sizes, and blocks of fixed size, which is the default,
# leave holes that no later batch fits into. Both are names of one variable.
if sys.platform == "linux" and not {"PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"} & os.environ.keys():
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"

# With workspaces of its own cuBLAS gives the same bits for the same products. A GPU reads this when it is used first.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def shut_out_foreign_modules() -> None:
    """From here on no file of the current folder or beside the scripts is imported, here and in child processes.

    One among downloads may be called pickle.py. The rooms are found all the same once this one is loaded.
    """
    os.environ["PYTHONSAFEPATH"] = "1"  # a process that is started by `python -c` would search the current folder first
    program = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    sys.path[:] = [folder for folder in sys.path if os.path.realpath(folder) != program]
