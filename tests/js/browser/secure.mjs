// The demo page from the daemon itself, over TLS: its four panels are subscribers with a transport each, and count alike.

import { launch } from '../browser.mjs';
import { ask, log, site } from '../site.mjs';
import { PATIENCE, until } from '../until.mjs';

// Its certificate is the test's own.
const browser = await launch('chromium', { flags: ['--ignore-certificate-errors'] });
const page = await browser.newPage();
page.setDefaultNavigationTimeout(PATIENCE);

/** What the page shows. */
const shown = () => page.evaluate(() => ({
    states: [...document.querySelectorAll('.panel .pill')].map((pill) => pill.dataset.state),
    counts: [...document.querySelectorAll('.panel .count')].map((count) => Number(count.textContent)),
    wrongs: [...document.querySelectorAll('.panel .wrongs')].map((wrongs) => wrongs.textContent),
    transports: [...document.querySelectorAll('.panel')].map((panel) => panel.textContent.replace(/\s+/g, ' ').slice(0, 80)),
}));

const untilAll = (what, holds) => until(what, async () => {
    const { states, counts } = await shown();
    return states.length === 4 && states.every((state, n) => holds(state, counts[n]));
}, { seen: shown });

/** Publishes twenty cheeses, and waits until all have as many as were published. */
async function crate(goal) {
    await page.evaluate(() => document.querySelector('[data-crate]').click());
    await untilAll(`all four count ${goal}`, (state, count) => count === goal);
    const { wrongs } = await shown();
    if (wrongs.some((wrong) => wrong !== '0/0')) throw new Error(`wrong are ${wrongs}`);
}

await page.goto(`${site.url}/demo`);
await untilAll('all four are live', (state) => state === 'live');
await crate(20);
log('before the restart', JSON.stringify(await shown()));
await ask('restart');
await untilAll('all four are live again', (state) => state === 'live');
await crate(40);
await browser.end();
