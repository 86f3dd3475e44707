// What docs/how-to/eventsource-and-websocket.md promises.

import assert from 'node:assert/strict';

import { ask, log, site } from '../site.mjs';
import { until } from '../until.mjs';
import { assertAllRun, assertShown, snippet, type } from './page.mjs';
import { browser, cheese, cursor, open, page, serve, show, texts, trim, untilEqual } from './shop.mjs';

const PRINTED = 'http://127.0.0.1:8378';

async function client() {
    for (const transport of ['websocket', 'eventsource']) {
        const script = snippet('client.js').replace("'websocket'", `'${transport}'`);
        assert(script.includes(`'${transport}'`));
        const tab = await show('/shop/client', page(script));
        await untilEqual(tab, `it is ${transport}`, 'events.transport', transport);
        await cheese(1, 'Gouda');
        await untilEqual(tab, 'the event came', 'shown', ['Gouda']);
        assert.equal(await tab.evaluate('lines[0]'), 'long-poll');
        if (transport === 'eventsource') {
            await tab.leave();
            continue;
        }
        await ask('kill daemon');
        await cheese(2, 'Brie');
        await untilEqual(tab, 'the fallback serves', '[shown, events.state]', [['Gouda', 'Brie'], 'polling']);
        await ask('start daemon');
        await untilEqual(tab, `it is ${transport} again`, 'events.transport', transport);
        await cheese(3, 'Feta');
        await untilEqual(tab, 'each came once', 'shown', ['Gouda', 'Brie', 'Feta']);
        await tab.leave();
    }
}

/** A stream of the page's own goes through a dead daemon; `late`: nothing comes from the fallback. */
async function survives(tab, names, late) {
    await untilEqual(tab, 'the first is there', names, ['Gouda']);
    await cheese(2, 'Brie');
    await untilEqual(tab, 'the second is there', names, ['Gouda', 'Brie']);
    await ask('kill daemon');
    await cheese(3, 'Feta');
    if (!late) await untilEqual(tab, 'the third is there', names, ['Gouda', 'Brie', 'Feta']);
    await ask('start daemon');
    await untilEqual(tab, 'the third is there', names, ['Gouda', 'Brie', 'Feta']);
    await cheese(4, 'Cheddar');
    await untilEqual(tab, 'each came once', names, ['Gouda', 'Brie', 'Feta', 'Cheddar']);
}

async function pages() {
    const at = await cursor();
    await cheese(1, 'Gouda');
    const events = await show('/shop/eventsource', snippet('eventsource.html', { 434: at }));
    await survives(events, texts('#cheeses li'), false);
    await events.leave();
    await reloadsAtAGap('/shop/eventsource', (from) => snippet('eventsource.html', { 434: from }));
}

async function sockets() {
    const at = await cursor();
    await cheese(1, 'Gouda');
    const socket = await show('/shop/websocket', page(snippet('websocket.js', { 434: at })));
    await survives(socket, 'shown', true);
    await socket.leave();
    await reloadsAtAGap('/shop/websocket', (from) => page(snippet('websocket.js', { 434: from })));
}

/** A page whose cursor lies before what was trimmed is loaded again, and then has a newer one. */
async function reloadsAtAGap(path, html) {
    const at = await cursor();
    await cheese(5, 'Sbrinz');
    await trim(at);
    let loads = 0;
    serve(path, () => html(loads++ === 0 ? at : 'now'));
    const tab = await open(path);
    await until('a gap reloads the page', () => loads === 2);
    await tab.leave();
}

async function curl() {
    const at = await cursor();
    const [id] = await cheese(1, 'Gouda');
    const printed = await type('run', 'curl', {
        [PRINTED]: site.url,
        434: at,
        // It does not end by itself.
        curl: 'timeout 3 curl',
        "'\n": "' || [ $? = 124 ]\n",
    });
    const shown = { [at]: 434, [id]: 435 };
    // The heartbeat's interval is no id.
    assertShown('curl', printed.replace(/(^id: |"cursor":")(\d+)/gm, (_, before, given) => before + shown[given]));
}

async function programs() {
    for (const name of ['follow_httpx.py', 'follow_sseclient.py', 'follow_websocket.py']) {
        const [scheme, printed] = name === 'follow_websocket.py' ? ['ws', PRINTED.replace('http', 'ws')] : ['http', PRINTED];
        const own = site.url.replace('http', scheme);
        await type('start', name, { [printed]: own, "'now'": `'${await cursor()}'` });
        const lines = async () => JSON.parse(await ask(`log ${name}`)).trim().split('\n').filter((line) => line);
        const untilLines = (...expected) => until(
            `${name} prints ${expected}`,
            async () => JSON.stringify(await lines()) === JSON.stringify(expected),
            { seen: lines },
        );
        const line = (id, cheeseName) => `cheese_created {'id': ${id}, 'name': '${cheeseName}'}`;
        await cheese(1, 'Gouda');
        await untilLines(line(1, 'Gouda'));
        await ask('kill daemon');
        await cheese(2, 'Brie');
        await ask('start daemon');
        await untilLines(line(1, 'Gouda'), line(2, 'Brie'));
        await cheese(3, 'Feta');
        await untilLines(line(1, 'Gouda'), line(2, 'Brie'), line(3, 'Feta'));
        await ask(`stop ${name}`);

        const at = await cursor();
        await cheese(4, 'Sbrinz');
        await trim(at);
        await type('start', name, { [printed]: own, "'now'": `'${at}'` });
        await untilLines('events are missing');
        await ask(`stop ${name}`);
        log(`ran ${name}`);
    }
}

for (const step of [client, pages, sockets, curl, programs]) {
    log(`---- ${step.name}`);
    await step();
}
await browser.end();
assertAllRun();
