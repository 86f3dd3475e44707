// npm's `eventsource`: written from the standard, reconnects by itself with the header Last-Event-ID.

import { EventSource } from 'eventsource';
import { follow, url } from './follow.mjs';

const source = new EventSource(`${url}?last_event_id=0`);
follow(source);
