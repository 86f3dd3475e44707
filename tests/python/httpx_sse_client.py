"""PyPI's `httpx-sse`: checks the content type, and leaves reconnecting to its user."""

import httpx
from httpx_sse import connect_sse

from everpoll_site import SITE, follow


def connect(cursor, take):
    with httpx.Client(timeout=httpx.Timeout(60, connect=5)) as client:
        pause = None
        with connect_sse(client, "GET", SITE["url"], headers={"Last-Event-ID": cursor}) as source:
            source.response.raise_for_status()
            for event in source.iter_sse():
                pause = int(event.retry) / 1000 if event.retry else pause
                take(event.event, event.data, event.id)
        return pause


follow(connect)
