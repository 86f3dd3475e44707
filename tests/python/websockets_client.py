"""PyPI's `websockets`: strict about the protocol, sends pings of its own."""

import json

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as open_socket

from everpoll_site import SITE, follow, log


def connect(cursor, take):
    url = SITE["url"].replace("http", "ws", 1) + f"?flavor=websocket&last_event_id={cursor}"
    with open_socket(url, ping_interval=0.5, ping_timeout=10) as socket:
        try:
            while True:
                message = json.loads(socket.recv())
                take(message["type"], json.dumps(message["data"]), str(message["id"] or ""))
        except ConnectionClosed as closed:
            log(f"closed: {closed}")
    return 0.2


follow(connect)
