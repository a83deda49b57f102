"""The rooms of the program; what stands here happens before any of them imports torch."""

import os

__version__ = "0.2.0"  # CHANGELOG.md says what each release changed

# How long torch's threads spin while they wait for each other. Without spinning, short operations take three times as
# long; spinning for milliseconds, which is the default, loses up to 50 times beside another program.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
