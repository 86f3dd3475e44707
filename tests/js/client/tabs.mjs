// Tabs of one browser share one held request, by each of the ways that browsers have for it: Web Locks, which only secure
// pages have; else a name in the storage, with messages over BroadcastChannel or, in older browsers, over the storage.

import assert from 'node:assert/strict';

import { launch } from '../browser.mjs';
import { log, site } from '../site.mjs';
import { until } from '../until.mjs';

const port = new URL(site.url).port;
// A name that is not localhost is no secure context, so it has no Web Locks.
const ways = [
    { name: 'locks', origin: `http://127.0.0.1:${port}` },
    { name: 'lease', origin: `http://lease.example:${port}` },
    { name: 'storage', origin: `http://storage.example:${port}`, without: ['BroadcastChannel'] },
];

const browser = await launch('chromium', { flags: ['--host-resolver-rules=MAP *.example 127.0.0.1'] });
let number = 0;

/** Publishes one event, and returns its number. */
async function publish(channel) {
    number += 1;
    const answer = await fetch(`${site.url}/publish`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ channel, type: 'made', data: { number } }),
    });
    assert.equal(answer.status, 201, await answer.text());
    return number;
}

/** A tab that subscribes, and counts its requests. */
async function open(way, channels) {
    const page = await browser.newPage();
    await page.evaluateOnNewDocument((names) => {
        for (const name of names) delete window[name];
    }, way.without ?? []);
    // Any page of the daemon serves: only its origin matters.
    await page.goto(`${way.origin}/healthz`);
    await page.addScriptTag({ path: new URL('../../../shared/client/dist/everpoll.min.js', import.meta.url).pathname });
    await page.evaluate((names) => {
        window.open_requests = 0;
        const send = XMLHttpRequest.prototype.send;
        XMLHttpRequest.prototype.send = function (body) {
            window.open_requests += 1;
            this.addEventListener('loadend', () => {
                window.open_requests -= 1;
            });
            send.call(this, body);
        };
        window.seen = [];
        window.events = new Everpoll(names);
        window.events.on('made', (data) => window.seen.push(data.number));
    }, channels);
    await until(`a tab of ${way.name} is live`, () => page.evaluate(() => window.events.state === 'live' && /^\d+$/.test(window.events.cursor)), {
        seen: () => page.evaluate(() => [window.events.state, window.events.cursor]),
    });
    return page;
}

const state = (page, name) => page.evaluate((key) => window[key], name);

async function requests(pages) {
    const counts = await Promise.all(pages.map((page) => state(page, 'open_requests')));
    return counts.reduce((sum, count) => sum + count, 0);
}

async function saw(way, page, due) {
    await until(`a tab of ${way.name} has seen ${due}`, async () => (await state(page, 'seen')).length >= due.length, {
        seen: () => state(page, 'seen'),
    });
    assert.deepEqual(await state(page, 'seen'), due);
}

for (const way of ways) {
    const began = Date.now();
    const first = await open(way, ['a']);
    assert.equal(await first.evaluate(() => Boolean(navigator.locks)), way.name === 'locks', 'this way is taken');
    const others = [await open(way, ['a']), await open(way, ['a', 'b']), await open(way, ['b'])];
    await until('one request is held by all tabs', async () => (await requests([first, ...others])) === 1);

    const one = [await publish('a')];
    const two = [await publish('b')];
    await saw(way, first, one);
    await saw(way, others[0], one);
    await saw(way, others[1], [...one, ...two]);
    await saw(way, others[2], two);

    await first.close();
    const three = await publish('a');
    const four = await publish('b');
    await saw(way, others[0], [...one, three]);
    await saw(way, others[1], [...one, ...two, three, four]);
    await saw(way, others[2], [...two, four]);
    await until('one request is held by those that are left', async () => (await requests(others)) === 1);
    for (const page of others) await page.close();
    log(`${way.name}: ${Date.now() - began} ms`);
}
await browser.end();
