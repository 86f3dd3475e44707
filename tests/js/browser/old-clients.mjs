// Pages that know nothing of Everpoll's own client: jQuery's long-polling, a bare EventSource, a plain WebSocket. The
// daemon is killed and started again under them.

import { launch } from '../browser.mjs';
import { assertExact, summary, untilMore } from '../ledger.mjs';
import { ask, log, site } from '../site.mjs';
import { PATIENCE, until } from '../until.mjs';

const browser = await launch(site.browser);
const pages = {};
for (const name of site.pages) {
    const page = await browser.newPage();
    page.setDefaultNavigationTimeout(PATIENCE);
    await page.goto(`${site.url}/pages/${name}.html`);
    await until(`${name} is ready`, () => page.evaluate(() => window.ready === true), {
        seen: () => page.evaluate(() => window.errors),
    });
    pages[name] = page;
}

await ask('begin publishing');
await untilMore(pages, 10);
await ask('kill daemon');
log('the daemon is dead', await summary(pages));
// A WebSocket has nobody to speak to now; the others are served by the fallback.
const served = Object.fromEntries(Object.entries(pages).filter(([name]) => name !== 'old-websocket'));
await untilMore(served, 10);
await ask('start daemon');
log('the daemon is back', await summary(pages));
await untilMore(pages, 10);
await ask('stop daemon');
await ask('start daemon');
await untilMore(pages, 10);
await ask('end publishing');
await assertExact(pages);
for (const [name, page] of Object.entries(pages)) {
    log(name, 'saw', JSON.stringify(await page.evaluate(() => window.errors)));
}
await browser.end();
