// The reader of the tutorial, who does what it says, and looks.

import assert from 'node:assert/strict';

import { launch } from '../browser.mjs';
import { ask, log, site } from '../site.mjs';
import { until } from '../until.mjs';
import { assertAllRun, assertShown, run, type } from './page.mjs';
import { untilTrimmed } from './trimmed.mjs';

const browser = await launch('chromium');
const page = await browser.newPage();
page.on('pageerror', (error) => log('error in the page:', error.message));

/** What the page shows: its heading and its cheeses. */
function look() {
    return page.evaluate(() => {
        const list = [...document.querySelectorAll('#cheeses li')].map((item) => item.textContent);
        return { title: document.querySelector('h1').textContent, list };
    });
}

/** Waits until the page shows this state, and exactly these cheeses. */
async function untilShown(state, ...cheeses) {
    const right = async () => {
        // It may be reloading.
        const shown = await look().catch(() => ({}));
        const title = state === null || shown.title === `Cheese (${state})`;
        return title && JSON.stringify(shown.list) === JSON.stringify(cheeses);
    };
    await until(`the page shows ${cheeses} and is ${state}`, right, { seen: look });
    log('the page shows', await look());
}

// 1 and 2
await type('start', 'up');
assertShown('up', await type('log', 'up'));
await run('folder');
await type('write', 'index.html');
await type('start', 'serve');
await page.goto(`${site.shop}/`);
await untilShown('live');

// 3
await run('publish-http');
await untilShown('live', 'Gouda');
await run('publish-command');
await untilShown('live', 'Gouda', 'Brie');
await run('publish-sql');
await untilShown('live', 'Gouda', 'Brie', 'Feta');

// 4
await run('kill');
await untilShown('polling', 'Gouda', 'Brie', 'Feta', 'Cheddar');
await untilShown('live', 'Gouda', 'Brie', 'Feta', 'Cheddar');

// 5
await page.reload();
await untilShown('live');
await type('stop', 'serve');
await type('write', 'shop.py');
await type('write', 'page.html');
await type('start', 'shop');
await run('sell');
await page.reload();
await untilShown('live', 'Gruyère');
await page.reload();
await untilShown('live', 'Gruyère');

const cursors = async () => Number(JSON.parse(await ask('cursors')));
const before = await cursors();
const slow = page.goto(`${site.shop}/?slow=8`);
// The server reads its data right behind the cursor, and then dawdles.
await until('the shop has read its cursor', async () => (await cursors()) > before);
await run('sell-meanwhile');
const html = await (await slow).text();
assert(!html.includes('Sbrinz'), 'it was not in the data');
await untilShown('live', 'Gruyère', 'Sbrinz');

// 6
await page.click('#sleep');
await untilShown('stopped', 'Gruyère', 'Sbrinz');
const newest = await fetch(`${site.daemon}/e/cheese?flavor=short-poll&envelope=1`);
const { cursor } = await newest.json();
await run('trim');
await untilTrimmed(cursor);
await page.evaluate(() => {
    window.before = true;
});
await page.click('#wake');
await untilShown('live', 'Gruyère', 'Sbrinz', 'Tilsiter');
assert(!(await page.evaluate(() => window.before)), 'the page was reloaded');

await browser.end();
assertAllRun();
