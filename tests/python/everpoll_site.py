"""What a test script and the Rust test that started it have to say to each other; see tests/harness/script.rs."""

import json
import os
import threading
import time

SITE = json.loads(os.environ.get("SITE", "{}"))

# What every event of the scene says.
DATA = {"name": "K\u00e4se \U0001f9c0\nand wine"}


def ask(command):
    """Asks the Rust test to do something and returns its answer when that is done."""
    print(f"@{command}", flush=True)
    return input()


def log(*words):
    """Writes a line into the script's log."""
    print(*words, flush=True)


def follow(connect):
    """Runs `connect(cursor, take)` again and again while the test plays its scene, and hands over what came.

    `connect` reads one stream to its end and calls `take(event_type, data, event_id)` for each event; what it returns is how
    many seconds to stay away.
    """
    received, cursor, last = [], ["0"], [None]

    def take(event_type, data, event_id):
        if not event_id:
            # Readers that yield what stood before the cut show it without its last line, the id. It comes again.
            log("without an id:", event_type, data)
            return
        cursor[0] = event_id
        if event_type == "made":
            assert json.loads(data) == DATA, data
            received.append(int(event_id))
        else:
            log(event_type, data)
        if last[0] is not None and int(cursor[0]) >= last[0]:
            raise SystemExit(0)

    def read():
        while True:
            pause = 0.5
            try:
                pause = connect(cursor[0], take) or pause
                log(f"the stream ended; back in {pause} s from {cursor[0]}")
            except SystemExit:
                return
            except Exception as error:  # pylint: disable=broad-except
                log(f"the stream broke: {type(error).__name__} {error}")
            time.sleep(pause)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    last[0] = int(ask("play"))
    deadline = time.monotonic() + 60
    while reader.is_alive() and int(cursor[0]) < last[0] and time.monotonic() < deadline:
        time.sleep(0.05)
    ask(f"received {json.dumps(received)}")
