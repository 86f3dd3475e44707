// A log from which everything was removed, as seen by those who ask for it.

import { site } from '../site.mjs';
import { until } from '../until.mjs';

/**
 * Waits until whoever comes with the cursor `at` to the channel `cheese` is told of a gap: after it came an event which
 * was trimmed then. The daemon has it in memory for a moment longer, and a page that asks for it meanwhile gets it.
 */
export async function untilTrimmed(at) {
    const poll = `${site.daemon}/e/cheese?flavor=short-poll&last_event_id=${at}`;
    const first = async () => (await (await fetch(poll)).json())[0];
    await until('the daemon tells the gap', async () => (await first())?.data.type === 'everpoll:gap', { seen: first });
}
