"""What every test may count on, however the suite was started."""

from __future__ import annotations

import signal

# A suite that was started in the background has Ctrl-C ignored, and so would have every program that a test starts and
# then interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
