// The demo page: four panels, each a subscriber with a transport of its own. Their numbers must end equal, and right.

import { launch } from '../browser.mjs';
import { travel } from '../ledger-page.mjs';
import { published } from '../ledger.mjs';
import { ask, log, site } from '../site.mjs';
import { PATIENCE, until } from '../until.mjs';

const browser = await launch(site.browser);
const page = await browser.newPage();
page.setDefaultNavigationTimeout(PATIENCE);

/** What the page shows. */
const shown = () => page.evaluate(() => ({
    states: [...document.querySelectorAll('.panel .pill')].map((pill) => pill.dataset.state),
    counts: [...document.querySelectorAll('.panel .count')].map((count) => Number(count.textContent)),
    wrongs: [...document.querySelectorAll('.panel .wrongs')].map((wrongs) => wrongs.textContent),
    verdict: document.querySelector('#verdict').dataset.state,
    job: document.querySelector('#jobs progress')?.value,
}));

const untilShown = (what, holds) => until(what, async () => holds(await shown()), { seen: shown });
const click = (selector) => page.evaluate((selector) => document.querySelector(selector).click(), selector);
const cheeses = async () => (await published('cheese')).filter((event) => event.type === 'cheese_created').length;

/** Waits until all four show what was published, and nothing wrong. */
async function untilEqual(what) {
    const goal = await cheeses();
    await untilShown(`all four count ${goal} ${what}`, ({ counts, verdict }) =>
        verdict === 'equal' && counts.length === 4 && counts.every((count) => count >= goal));
    const { counts, wrongs } = await shown();
    const now = await cheeses();
    if (counts.some((count) => count > now) || wrongs.some((wrong) => wrong !== '0/0')) {
        throw new Error(`${now} cheeses were published, the panels show ${counts}, wrong are ${wrongs}`);
    }
    log(what, JSON.stringify(counts));
}

await page.goto(`${site.url}/demo`);
await untilShown('all four are live', ({ states }) => states.length === 4 && states.every((state) => state === 'live'));
await click('[data-crate]');
await until('a crate is published', async () => (await cheeses()) === 20);
await untilEqual('after a crate');

await click('#job');
await untilShown('the job runs', ({ job }) => job !== undefined);
await ask('begin publishing');
await page.reload();
await untilShown('the job goes on after a reload', ({ job }) => job > 0);
await page.goto(`${site.url}/pages/other.html`);
await ask('publish 5 cheese');
await travel(page, -1, '/demo');
await untilShown('the job is done', ({ job }) => job === 100);

await ask('kill daemon');
const before = Math.max(...(await shown()).counts);
await untilShown('all four go on without the daemon', ({ counts }) => counts.every((count) => count > before));
await ask('start daemon');
await ask('end publishing');
await untilEqual('after the daemon was killed and started again');
await ask('publish 3 cheese');
await untilEqual('in the end');
await browser.end();
