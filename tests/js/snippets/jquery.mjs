// What docs/how-to/jquery.md promises.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { log } from '../site.mjs';
import { assertAllRun, snippet } from './page.mjs';
import { browser, cheese, cursor, page, publish, serve, show, texts, trim, untilEqual } from './shop.mjs';

serve('/shop/jquery.js', readFileSync('node_modules/jquery/dist/jquery.min.js', 'utf8'), 'text/javascript');
const LOAD = '</script><script src="/shop/jquery.js"></script><script>';
const SUBSCRIBE = "var ServerEvents = new Everpoll('cheese');";

async function bind() {
    const tab = await show('/shop/bind', snippet('bind.html'));
    await untilEqual(tab, 'it is live', 'ServerEvents.state', 'live');
    await cheese(1, 'Gouda');
    await cheese(2, 'Brie');
    await untilEqual(tab, 'the list has both, the newest first', texts('#cheeses li'), ['Brie', 'Gouda']);

    await tab.evaluate(() => {
        window.odd = [];
        $(window.ServerEvents).bind('odd', (...given) => window.odd.push(given.slice(1, 2)));
    });
    await publish({ channel: 'cheese', type: 'odd', data: [1, 2] });
    await publish({ channel: 'cheese', type: 'odd', data: null });
    await untilEqual(tab, 'data is one argument', 'odd', [[[1, 2]], [null]]);
    await tab.leave();
}

async function namespaces() {
    const tab = await show('/shop/namespace', page(LOAD, SUBSCRIBE, snippet('namespace.js'), snippet('state.js')));
    await untilEqual(tab, 'the state is shown', texts('#state'), ['live']);
    await cheese(1, 'Gouda');
    await untilEqual(tab, 'the name is shown', texts('#result'), ['Gouda']);
    await tab.click('#start');
    // These would call methods, if an event did that.
    await publish({ channel: 'cheese', type: 'stop', data: {} });
    await cheese(2, 'Brie');
    await untilEqual(tab, 'every type is logged', 'lines', ['cheese_created', 'stop', 'cheese_created']);
    assert.equal(await tab.evaluate("$('#result').text()"), 'Gouda', 'the handler is off');

    await tab.evaluate('ServerEvents.stop(); window.old = true');
    const at = await cursor();
    await cheese(3, 'Feta');
    await trim(at);
    await tab.evaluate('ServerEvents.start()');
    await untilEqual(tab, 'a gap reloads the page', '[window.old || false, ServerEvents.state]', [false, 'live']);
    await tab.leave();
}

async function name() {
    const tab = await show('/shop/name', page(LOAD, snippet('name.js')));
    await untilEqual(tab, 'it is live', 'ServerEvents.state', 'live');
    await cheese(1, 'Gouda');
    await untilEqual(tab, 'the event came', 'lines', ['Gouda']);
    assert.equal(await tab.evaluate('typeof jQuery'), 'undefined');
    await tab.leave();
}

// The interface of the old client, over the same requests: an array as the reply, and the cursor in a header.
const OLD = `
function EventChannelLongPoll(name, time, key) {
  var self = this, cursor = 'rt-' + time, enabled = false;
  function poll() {
    if (!enabled) return;
    $.ajax('/e/' + name + '/' + key, {
      cache: false, dataType: 'json', headers: { 'Last-Event-Id': cursor },
      success: function (events, status, xhr) {
        $.each(events, function (place, event) {
          cursor = event.id || cursor;
          $(self).trigger(event.data.type, event.data.data);
          $(self).trigger('_all', event.data);
        });
        setTimeout(poll, 1000 * parseInt(xhr.getResponseHeader('x-ps-reconnect-in'), 10));
      },
      error: function () { setTimeout(poll, 10000); }
    });
  }
  self.setEnabled = function (on) { enabled = on; poll(); };
}`;

async function move() {
    const given = `var requestTime = ${Date.now() / 1000 + 3}, waitId = 'browser-17';`;
    const old = await show('/shop/old', page(LOAD, OLD, given, snippet('old.js')));
    const moved = await show('/shop/new', page(LOAD, given, snippet('new.js')));
    await untilEqual(moved, 'the new page is live', 'channel.state', 'live');
    const at = await cursor();
    await cheese(4, 'Cheddar');
    await cheese(5, 'Sbrinz', 'cheese_sold');
    log('published behind', at);
    const expected = (who) => [`${who}: Cheddar`, `${who}: cheese_created`, `${who}: cheese_sold`];
    await untilEqual(old, 'the old page has them', 'lines.slice(-3)', expected('old'));
    await untilEqual(moved, 'the new page has them', 'lines.slice(-3)', expected('new'));
    await old.leave();
    await moved.leave();
}

for (const step of [bind, namespaces, name, move]) {
    log(`---- ${step.name}`);
    await step();
}
await browser.end();
assertAllRun();
