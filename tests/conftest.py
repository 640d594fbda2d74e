"""Fixtures that every suite may use, and signals as in a terminal."""

import signal

pytest_plugins = ("tests.support.container_engine",)

# A shell starts what runs in the background with SIGINT ignored, and processes inherit that. Dagster
# then ignores SIGTERM, too, and what is started from these tests would end on neither.
for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)
