"""PyPI's `sseclient-py` over `requests`: a parser, with the loop around it that its documentation asks for.

`requests` gives a stream without chunks out in pieces of 128 bytes and waits until each is full, so an event would come when
the next one does; hence the pieces of one byte. Behind nginx, which makes chunks, nothing of that is needed.
"""

import requests
import sseclient

from everpoll_site import SITE, follow


def connect(cursor, take):
    headers = {"Accept": "text/event-stream", "Last-Event-ID": cursor}
    with requests.get(SITE["url"], stream=True, headers=headers, timeout=(5, 60)) as response:
        response.raise_for_status()
        pause = None
        for event in sseclient.SSEClient(response.iter_content(chunk_size=1)).events():
            pause = int(event.retry) / 1000 if event.retry else pause
            take(event.event, event.data, event.id)
        return pause


follow(connect)
