// What docs/how-to/old-internet-explorer.md promises, as far as it can be seen without that browser: the syntax, and
// the page in a browser from which is taken what the old ones do not have. Their engine itself is another test's.

import assert from 'node:assert/strict';

import { parse } from 'acorn';

import { ask, log, site } from '../site.mjs';
import { assertAllRun, snippet } from './page.mjs';
import { browser, cheese, cursor, elsewhere, open, page, serve, texts, untilEqual } from './shop.mjs';

/** Makes a browser old: as IE 6, but for what cannot be taken away. */
function age() {
    const Modern = XMLHttpRequest;
    delete Modern.prototype.withCredentials;
    window.ActiveXObject = function ActiveXObject(name) {
        if (name !== 'Microsoft.XMLHTTP') throw new Error('no such component');
        window.asked = name;
        return new Modern();
    };
    const gone = ['XMLHttpRequest', 'JSON', 'EventSource', 'WebSocket', 'BroadcastChannel', 'fetch', 'Promise', 'Map', 'Set'];
    for (const name of [...gone, 'localStorage', 'sessionStorage']) delete window[name];
    delete Navigator.prototype.locks;
    for (const name of ['forEach', 'map', 'indexOf', 'filter']) delete Array.prototype[name];
    delete String.prototype.trim;
    delete Date.now;
    delete Function.prototype.bind;
}

async function openOld(path, at) {
    const tab = await open('/shop/empty', at);
    await tab.evaluateOnNewDocument(age);
    await tab.goto((at ?? site.url) + path);
    return tab;
}

async function syntax() {
    const script = /<script type="text\/javascript">\n([^]*?)<\/script>/.exec(snippet('page.html'))[1];
    parse(script, { ecmaVersion: 3, allowReserved: 'never' });
    assert.throws(() => parse(`${script}\nevents.catch();`, { ecmaVersion: 3, allowReserved: 'never' }));
    assert.match(snippet('page.html'), /^[\x20-\x7e\n]*$/);
}

async function ownOrigin() {
    const at = await cursor();
    serve('/shop/page', snippet('page.html', { 434: at }));
    await cheese(1, 'Gouda');
    const tab = await openOld('/shop/page');
    await untilEqual(tab, 'it is live', texts('#state'), ['live']);
    await cheese(2, 'Käse \u{1f9c0} </script>');
    const expected = ['Gouda', 'Käse \u{1f9c0} </script>'];
    await untilEqual(tab, 'the events came', texts('#cheeses li'), expected);
    assert.equal(await tab.evaluate('window.asked'), 'Microsoft.XMLHTTP');

    // Another tab of this browser, which shares nothing but the key.
    const second = await tab.browserContext().newPage();
    await second.evaluateOnNewDocument(age);
    await second.goto(`${site.url}/shop/page`);
    await untilEqual(second, 'the second tab does not hold', texts('#state'), ['polling']);
    await cheese(3, 'Feta');
    await untilEqual(second, 'it has the events', texts('#cheeses li'), [...expected, 'Feta']);

    await ask('kill daemon');
    await cheese(4, 'Brie');
    await untilEqual(tab, 'the fallback serves it', texts('#cheeses li'), [...expected, 'Feta', 'Brie']);
    await ask('start daemon');
    await tab.leave();
}

async function otherTransports() {
    for (const transport of ['eventsource', 'websocket']) {
        serve('/shop/stream', page(`var events = new Everpoll('cheese', { transport: '${transport}' });`));
        const tab = await openOld('/shop/stream');
        await untilEqual(tab, 'it is live', '[events.state, events.transport]', ['live', 'long-poll']);
        await tab.leave();
    }
}

async function otherOrigin() {
    const script = `var events = new Everpoll('cheese', { url: '${site.daemon}/e', jsonp: true });
        events.on('cheese_created', function (cheese) { log(cheese.name); });`;
    serve('/shop/jsonp', page(script).replace('/everpoll.js', `${site.daemon}/everpoll.js`));
    const tab = await openOld('/shop/jsonp', elsewhere);
    await untilEqual(tab, 'it is live', 'events.state', 'live');
    await cheese(5, 'Sbrinz');
    await untilEqual(tab, 'the event came', 'lines', ['Sbrinz']);
    await tab.leave();
}

serve('/shop/empty', '<!DOCTYPE html>');
for (const step of [syntax, ownOrigin, otherTransports, otherOrigin]) {
    log(`---- ${step.name}`);
    await step();
}
await browser.end();
assertAllRun();
