// npm's `event-source-polyfill`, for browsers without EventSource: reconnects with a parameter, so that browsers need not ask
// for leave to send a header. Its name has to be told.

import polyfill from 'event-source-polyfill';
import { follow, url } from './follow.mjs';

const source = new polyfill.EventSourcePolyfill(`${url}?last_event_id=0&padding=1`, {
    lastEventIdQueryParameterName: 'last_event_id',
});
follow(source);
