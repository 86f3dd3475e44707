// A page whose address has sent more requests than it may: Everpoll's client waits as long as it is told, and goes on. So does an
// EventSource of the browser itself, which would give up for good on a 429.

import assert from 'node:assert/strict';

import { launch } from '../browser.mjs';
import { log, site } from '../site.mjs';
import { until } from '../until.mjs';

const browser = await launch('chromium');
const page = await browser.newPage();
// Any page of the daemon serves: only its origin matters.
await page.goto(`${site.url}/healthz`);
await page.addScriptTag({ path: new URL('../../../shared/client/dist/everpoll.min.js', import.meta.url).pathname });

/** Uses up all that this address may ask. */
async function useUp() {
    for (let asked = 0; asked < 10000; asked++) {
        const answer = await fetch(`${site.url}/e/cheese?flavor=short-poll`);
        if (answer.status === 429) return answer;
        assert.equal(answer.status, 200);
        await answer.text();
    }
    throw new Error('none of so many was one too many');
}

const told = await useUp();
assert.ok(Number(told.headers.get('retry-after')) >= 5);
assert.equal((await told.json()).code, 'too_many_requests');
await page.evaluate(() => {
    window.seen = [];
    window.states = [];
    const events = new Everpoll('cheese');
    events.on('state', (state, details) => window.states.push([state, details && details.status]));
    events.on('made', (data) => window.seen.push(`client ${data}`));
    window.events = events;
    const source = new EventSource('/e/cheese');
    source.addEventListener('made', (event) => window.seen.push(`source ${event.data}`));
    window.source = source;
});
await useUp();
const states = () => page.evaluate(() => window.states);
await until('the client was refused', async () => (await states()).some(([state, status]) => state === 'down' && status === 429), { seen: states });
log('refused:', JSON.stringify(await states()));
const where = () => page.evaluate(() => [window.events.state, window.events.cursor, window.source.readyState]);
await until('both are there again', async () => {
    const [state, cursor, ready] = await where();
    return state === 'live' && /^\d+$/.test(cursor) && ready === 1;
}, { seen: where });
const answer = await fetch(`${site.url}/publish`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ channel: 'cheese', type: 'made', data: 7 }),
});
assert.equal(answer.status, 201, await answer.text());
const seen = () => page.evaluate(() => window.seen);
await until('both have the event', async () => (await seen()).length >= 2, { seen });
assert.deepEqual((await seen()).sort(), ['client 7', 'source 7']);
log('and both have the event');
await browser.end();
