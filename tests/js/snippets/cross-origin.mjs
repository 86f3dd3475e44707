// What docs/how-to/cross-origin.md promises. The shop's host is the application's own port, the events' host the
// daemon's.

import assert from 'node:assert/strict';

import { ask, log, site } from '../site.mjs';
import { until } from '../until.mjs';
import { assertAllRun, assertShown, snippet, type } from './page.mjs';
import { browser, cheese, elsewhere, open, page, serve, show, texts, untilEqual } from './shop.mjs';

const EVENTS = { 'https://events.shop.example': site.daemon };
const LOG = "events.on('cheese_created', function (cheese) { log(cheese.name); });";
/** The same application under another name, which is not allowed. */
const STRANGER = elsewhere.replace('127.0.0.1', 'localhost');

/** A page of another host that loads the client from that of the events. */
function foreign(script) {
    return page(script, LOG).replace('/everpoll.js', `${site.daemon}/everpoll.js`);
}

async function settings() {
    await type('accept', 'settings.toml');
    await type('accept', 'jsonp.toml');
    const printed = await type('run', 'check', { ...EVENTS, 'https://shop.example': elsewhere });
    assertShown('check', printed.replaceAll('\r', '').replaceAll(elsewhere, 'https://shop.example'));
}

async function allowed() {
    const html = snippet('page.html', EVENTS);
    serve('/shop/page', html);
    const tab = await open('/shop/page', elsewhere);
    await untilEqual(tab, 'it is live', texts('#state'), ['live']);
    const asked = [];
    tab.on('request', (request) => asked.push(request.method()));
    await cheese(1, 'Gouda');
    await cheese(2, 'Brie');
    await untilEqual(tab, 'the events came', texts('#cheeses li'), ['Gouda', 'Brie']);
    assert.deepEqual([...new Set(asked)], ['GET'], 'no preflight');
    await tab.leave();

    const stranger = await open('/shop/page', STRANGER);
    await untilEqual(stranger, 'a page that is not in the list reads nothing', texts('#state'), ['down']);
    await stranger.leave();
}

async function credentials() {
    for (const [script, expected] of [
        [snippet('credentials.js', EVENTS), true],
        [snippet('credentials.js', { ...EVENTS, ', credentials: true': '' }), false],
    ]) {
        serve('/shop/credentials', `<script>document.cookie = 'basket=17; path=/'</script>${foreign(script)}`);
        const tab = await open('/shop/empty', elsewhere);
        const network = await tab.createCDPSession();
        const polls = [];
        network.on('Network.requestWillBeSentExtraInfo', ({ headers }) => polls.push(headers));
        await network.send('Network.enable');
        await tab.goto(`${elsewhere}/shop/credentials`);
        await untilEqual(tab, 'it is live', 'events.state', 'live');
        const to = site.daemon.replace('http://', '');
        const cookies = polls.filter((headers) => headers.Host === to && headers.Origin).map((headers) => headers.Cookie);
        assert(cookies.length > 0, 'polls were seen');
        assert.equal(cookies.every((cookie) => (cookie === 'basket=17') === expected), true, `${cookies}`);
        await tab.leave();
    }
}

async function list() {
    const tab = await show('/shop/list', foreign(snippet('list.js', EVENTS)), elsewhere);
    await untilEqual(tab, 'it is live', 'events.state', 'live');
    await ask('kill daemon');
    await cheese(1, 'Gouda');
    await untilEqual(tab, 'the second serves', '[events.state, lines]', ['polling', ['Gouda']]);
    await ask('start daemon');
    const back = new Promise((resolve) => {
        tab.on('response', (reply) => reply.url().startsWith(site.daemon) && reply.ok() && resolve());
    });
    await back;
    await untilEqual(tab, 'it is back', 'events.state', 'live');
    await cheese(2, 'Brie');
    await untilEqual(tab, 'and has everything once', 'lines', ['Gouda', 'Brie']);
    await tab.leave();
}

async function streams() {
    const html = foreign(snippet('stream.js', EVENTS));
    const tab = await show('/shop/stream', html, elsewhere);
    await untilEqual(tab, 'it is a WebSocket', 'events.transport', 'websocket');
    await cheese(1, 'Gouda');
    await untilEqual(tab, 'the event came', 'lines', ['Gouda']);
    await tab.leave();

    const stranger = await open('/shop/empty', STRANGER);
    const ended = await stranger.evaluate((url) => new Promise((resolve) => {
        const socket = new WebSocket(url);
        socket.onopen = () => resolve('opened');
        socket.onerror = () => resolve('refused');
    }), `${site.daemon.replace('http', 'ws')}/e/cheese?flavor=websocket`);
    assert.equal(ended, 'refused', 'a stranger gets no WebSocket');
    await stranger.leave();
}

async function jsonp() {
    serve('/shop/jsonp', foreign(snippet('jsonp.js', EVENTS)));
    const tab = await open('/shop/empty', elsewhere);
    // As if this browser knew no CORS.
    await tab.evaluateOnNewDocument(() => delete XMLHttpRequest.prototype.withCredentials);
    await tab.goto(`${elsewhere}/shop/jsonp`);
    await untilEqual(tab, 'it is live', 'events.state', 'live');
    const scripts = 'performance.getEntriesByType("resource").filter((one) => one.name.includes("cb=")).length > 0';
    await until('polls are scripts', () => tab.evaluate(scripts));
    await cheese(1, 'Gouda');
    await cheese(2, 'Brie');
    await untilEqual(tab, 'the events came', 'lines', ['Gouda', 'Brie']);
    await tab.leave();
}

serve('/shop/empty', '<!DOCTYPE html>');
for (const step of [settings, allowed, credentials, list, streams, jsonp]) {
    log(`---- ${step.name}`);
    await step();
}
await browser.end();
assertAllRun();
