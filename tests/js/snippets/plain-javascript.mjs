// What docs/how-to/plain-javascript.md promises.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { ask, log, site } from '../site.mjs';
import { assertAllRun, run, snippet } from './page.mjs';
import { browser, cheese, cursor, page, publish, serve, show, texts, trim, untilEqual } from './shop.mjs';

const SUBSCRIBE = "var events = new Everpoll('cheese');";

async function dataFirst() {
    const [id] = await publish({ channel: 'other', type: 'made', data: {} });
    site.snippets['ask-cursor'].output = site.snippets['ask-cursor'].output.replace('434', id);
    await run('ask-cursor', { 'http://127.0.0.1:8378': site.url });
    const html = snippet('page.html', { 434: await cursor() });
    // After the cursor, before the page.
    await cheese(1, 'Gouda');
    await cheese(2, 'Brie');
    const tab = await show('/shop/page', html);
    await untilEqual(tab, 'each cheese is there once', texts('#cheeses li'), ['Gouda', 'Brie']);
    await cheese(1, 'Gouda', 'cheese_eaten');
    await untilEqual(tab, 'one was eaten', texts('#cheeses li'), ['Brie']);
    await tab.evaluate('events.stop(); window.old = true');
    const at = await cursor();
    await cheese(3, 'Feta');
    await trim(at);
    serve('/shop/page', async () => snippet('page.html', { 434: await cursor() }));
    await tab.evaluate('events.start()');
    await untilEqual(tab, 'a gap reloads the page', '[window.old || false, events.state]', [false, 'live']);
    await tab.leave();
}

async function loaded() {
    const at = await cursor();
    const body = JSON.stringify({ cursor: at, cheeses: [{ id: 1, name: 'Gouda' }] });
    serve('/shop/cheeses', body, 'application/json');
    await cheese(2, 'Brie');
    const tab = await show('/shop/load', page(snippet('load.js')));
    await untilEqual(tab, 'data, then events', 'shown', ['Gouda', 'Brie']);
    await tab.leave();
}

async function channels() {
    const tab = await show('/shop/channels', page(snippet('channels.js')));
    await untilEqual(tab, 'it is live', 'events.state', 'live');
    await publish([
        { channel: 'cheese', type: 'cheese_created', data: { id: 1 } },
        { channel: 'orders-18', type: 'paid', data: {} },
        { channel: 'orders-17', type: 'paid', data: { sum: 7 } },
    ]);
    const expected = ['cheese: cheese_created {"id":1}', 'orders-17: paid {"sum":7}'];
    await untilEqual(tab, 'events of both channels, and of no other', 'lines', expected);
    await tab.leave();
}

async function states() {
    const tab = await show('/shop/state', page(SUBSCRIBE, snippet('state.js')));
    const shown = 'document.getElementById("state").textContent';
    await untilEqual(tab, 'it is live', shown, 'live');
    await ask('kill daemon');
    await untilEqual(tab, 'the fallback answers', shown, 'a few seconds late');
    await ask('start daemon');
    await untilEqual(tab, 'it is live again', shown, 'live');
    await tab.evaluate('events.stop()');
    await untilEqual(tab, 'it is stopped', shown, 'off');
    const words = await tab.evaluate(() => {
        window.events = new Everpoll('a/b');
    }).then(() => tab.addScriptTag({ content: snippet('state.js') }));
    assert(words);
    await untilEqual(tab, 'the refusal says why', `/^off: channel .*not allowed/.test(${shown})`, true);
    await tab.leave();
}

async function job() {
    const work = async () => {
        const at = await cursor();
        const event = (type, data) => ({ channel: 'job-17', type, data });
        await publish([event('progress', { percent: 50 }), event('progress', { percent: 100 })]);
        await publish(event('done', { text: 'all cheeses counted' }));
        return JSON.stringify({ channel: 'job-17', cursor: at });
    };
    serve('/shop/jobs', work, 'application/json');
    const tab = await show('/shop/job', page(snippet('job.js')));
    await tab.click('#start');
    const look = '[document.getElementById("progress").value, document.getElementById("result").textContent]';
    await untilEqual(tab, 'the job is shown to its end', look, [100, 'all cheeses counted']);
    await tab.leave();
}

async function keep() {
    const html = page(snippet('keep.js'));
    const tab = await show('/shop/keep', html);
    await untilEqual(tab, 'it is live', 'events.state', 'live');
    await tab.goto('about:blank');
    await publish({ channel: 'user-17', type: 'export_ready', data: { name: 'cheese.csv' } });
    await tab.goto(`${site.url}/shop/keep`);
    await untilEqual(tab, 'the next page gets what came meanwhile', 'lines', ['ready: cheese.csv']);
    await tab.reload();
    await untilEqual(tab, 'it is live', 'events.state', 'live');
    await publish({ channel: 'user-17', type: 'export_ready', data: { name: 'more.csv' } });
    await untilEqual(tab, 'and nothing twice', 'lines', ['ready: more.csv']);
    await tab.leave();
}

async function view() {
    const script = `${snippet('view.js')}
        var element = document.getElementById('result'), close = openCheeses(element);`;
    const tab = await show('/shop/view', page(script, SUBSCRIBE));
    await untilEqual(tab, 'it is live', 'events.state', 'live');
    // Another subscriber of the page is the measure of time here.
    await tab.evaluate("events.on('cheese_created', show)");
    await cheese(1, 'Gouda');
    await untilEqual(tab, 'the view shows it', 'element.textContent', 'the newest is Gouda');
    await tab.evaluate('close()');
    await cheese(2, 'Brie');
    await untilEqual(tab, 'the other has it', 'shown[shown.length - 1]', 'Brie');
    assert.equal(await tab.evaluate('element.textContent'), 'the newest is Gouda', 'a closed view shows nothing');
    await tab.leave();
}

async function notify() {
    // A stand-in: a headless browser has no desktop, and a test has no way to look at it.
    const desktop = `window.notified = [];
        window.Notification = function (title, options) { notified.push([title, options.body, options.tag]); };
        Notification.permission = 'default';
        Notification.requestPermission = function () { Notification.permission = 'granted'; };
        window.away = false;
        Object.defineProperty(document, 'hidden', { get: function () { return window.away; } });`;
    const tab = await show('/shop/notify', page(desktop, SUBSCRIBE, snippet('notify.js'), "events.on('*', show)"));
    await untilEqual(tab, 'it is live', 'events.state', 'live');
    await cheese(1, 'Gouda');
    await untilEqual(tab, 'it came', 'shown', ['Gouda']);
    await tab.evaluate('window.away = true');
    await cheese(2, 'Brie');
    await untilEqual(tab, 'it came', 'shown', ['Gouda', 'Brie']);
    assert.deepEqual(await tab.evaluate('notified'), [], 'nobody has allowed it');
    await tab.evaluate("document.getElementById('notify').click()");
    await cheese(3, 'Feta');
    await untilEqual(tab, 'it is notified of', 'notified', [['New cheese', 'Feta', 'cheese-3']]);
    await tab.leave();
}

for (const step of [dataFirst, loaded, channels, states, job, keep, view, notify]) {
    log(`---- ${step.name}`);
    await step();
}
// The same statement is run, on PostgreSQL, with the page about SQL.
assert(readFileSync('../../docs/reference/sql.md', 'utf8').includes(snippet('page.sql')));
await browser.end();
assertAllRun();
