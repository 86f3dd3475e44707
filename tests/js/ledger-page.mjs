// The page with Everpoll's own client and a ledger: pages/ledger.html.

import { site } from './site.mjs';
import { PATIENCE, until } from './until.mjs';

/** Its address, for a subscriber of these channels with these options of the client. */
export function address(options = {}, channels = 'cheese', origin = site.url) {
    return `${origin}/pages/ledger.html?channels=${channels}&options=${encodeURIComponent(JSON.stringify(options))}`;
}

/** Opens it in a tab of its own. Its cursor is set when this is done: it misses nothing from here on. */
export async function open(browser, options, channels, origin) {
    const page = await browser.newPage();
    page.setDefaultNavigationTimeout(PATIENCE);
    page.on('error', () => {
        page.crashed = true;
    });
    await page.goto(address(options, channels, origin));
    await untilReading(page);
    return page;
}

/** Waits until its client has had an answer. */
export async function untilReading(page) {
    await until('the page has a cursor, and reads', async () => {
        const { state, cursor } = await status(page);
        return /^\d+$/.test(cursor) && ['live', 'polling'].includes(state);
    }, { seen: () => status(page) });
}

/** What its client says of itself. */
export function status(page) {
    return page.evaluate(() => ({
        state: events.state,
        transport: events.transport,
        cursor: String(events.cursor),
        states: states.slice(-10),
        shown,
    }));
}

/**
 * Goes back (-1) or forward (1) to the page at this path. A page that comes out of the browser's memory fires no load event,
 * for which goBack() of the driver would wait for ever.
 */
export async function travel(page, steps, path) {
    await page.evaluate((steps) => void setTimeout(() => history.go(steps), 0), steps);
    await until(`the tab shows ${path}`, async () => {
        // While the tab is between two pages there is nothing to ask.
        return (await page.evaluate(() => document.readyState === 'complete' && location.pathname).catch(() => '')) === path;
    });
}
