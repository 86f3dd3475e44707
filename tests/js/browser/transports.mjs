// Pages with Everpoll's client, one for each transport, each in a tab of its own. They are reloaded, left and come back
// to, and the daemon is killed under them, all while events are published.

import { launch } from '../browser.mjs';
import { open, status, travel, untilReading } from '../ledger-page.mjs';
import { assertExact, summary, untilMore } from '../ledger.mjs';
import { ask, log, site } from '../site.mjs';
import { until } from '../until.mjs';

const browser = await launch(site.browser);
const pages = {};
for (const transport of site.transports) {
    pages[transport] = await open(browser, { transport, keep: true, share: false });
}
const all = Object.entries(pages);

/** Does something to all pages at once. */
const toAll = (act) => Promise.all(all.map(([transport, page]) => act(page, transport)));

await ask('begin publishing');
await untilMore(pages, 5);
for (const [transport, page] of all) {
    await until(`${transport} is what it uses`, async () => (await status(page)).transport === transport, {
        seen: () => status(page),
    });
}
log('each has its own transport', await summary(pages));

await toAll((page) => page.reload());
await toAll(untilReading);
await untilMore(pages, 5);
log('reloaded', await summary(pages));

await toAll((page) => page.goto(`${site.url}/pages/other.html`));
// What is published while they are away, they get when they come back.
await ask('publish 5 cheese');
await toAll((page) => travel(page, -1, '/pages/ledger.html'));
await untilMore(pages, 5);
await toAll((page) => travel(page, 1, '/pages/other.html'));
await ask('publish 5 cheese');
await toAll((page) => travel(page, -1, '/pages/ledger.html'));
await untilMore(pages, 5);
for (const [transport, page] of all) log(`back on ${transport}`, JSON.stringify((await status(page)).shown));

await ask('kill daemon');
log('the daemon is dead', await summary(pages));
await untilMore(pages, 5);
await ask('start daemon');
log('the daemon is back', await summary(pages));
await untilMore(pages, 5);

await ask('end publishing');
await assertExact(pages);
for (const [transport, page] of all) log(transport, JSON.stringify(await status(page)));
await browser.end();
