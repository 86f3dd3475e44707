// Holds what pages were given against what was published.

import { ask, log } from './site.mjs';
import { until } from './until.mjs';

/** All that was published on these channels, in order: objects with `id`, `channel`, `type` and `n`. */
export async function published(...channels) {
    const events = JSON.parse(await ask('published'));
    return events.filter((event) => channels.length === 0 || channels.includes(event.channel));
}

/** What a page's ledger has. */
export function entries(page) {
    return page.evaluate(() => window.ledger.entries);
}

/** How many entries it has. */
export function count(page) {
    return page.evaluate(() => window.ledger.entries.length);
}

/** Waits until each page, by its name, has got this many more events than now. */
export async function untilMore(pages, more) {
    const goals = await Promise.all(Object.values(pages).map(async (page) => (await count(page)) + more));
    const look = async () => {
        const counts = await Promise.all(Object.values(pages).map(count));
        return counts.every((have, index) => have >= goals[index]);
    };
    await until(`each page has got ${more} more events`, look, { seen: () => summary(pages) });
}

/** How far each page is, for logs. */
export async function summary(pages) {
    const lines = Object.entries(pages).map(async ([name, page]) => [name, await count(page)]);
    return Object.fromEntries(await Promise.all(lines));
}

/**
 * What is wrong with a ledger: lost, doubled, unknown and late events; nothing if the array is empty. An entry without an
 * id is known by its number.
 */
export function faults(seen, expected) {
    const found = [];
    const places = new Map(expected.map((event, place) => [event.n, place]));
    const times = new Map();
    let last = -1;
    for (const entry of seen) {
        const place = places.get(entry.n);
        if (place === undefined) {
            found.push(`unknown: ${JSON.stringify(entry)}`);
            continue;
        }
        const event = expected[place];
        if (entry.id !== null && entry.id !== event.id) found.push(`${entry.n} has id ${entry.id}, not ${event.id}`);
        if (entry.type !== event.type) found.push(`${entry.n} is a ${entry.type}, not a ${event.type}`);
        if (entry.name !== NAME) found.push(`${entry.n} is called ${JSON.stringify(entry.name)}`);
        times.set(entry.n, (times.get(entry.n) ?? 0) + 1);
        if (times.get(entry.n) === 2) found.push(`doubled: ${entry.n}`);
        if (place < last) found.push(`late: ${entry.n} came after ${expected[last].n}`);
        last = Math.max(last, place);
    }
    for (const event of expected) if (!times.has(event.n)) found.push(`lost: ${event.n} (id ${event.id})`);
    return found;
}

/** What each event that the tests publish carries: characters that encodings, scripts and line ends break on. */
export const NAME = 'Gruy\u00e8re \u{1f9c0} \u2028 </script> "\\\n';

/**
 * Waits until all pages have all that was published on their channels (`page.channels`, by default cheese), and one event
 * more, which is published when they do: what comes twice has come twice by then. Fails unless each has each event exactly
 * once, in order.
 */
export async function assertExact(pages) {
    const wanted = (page, events) => events.filter((event) => (page.channels ?? ['cheese']).includes(event.channel));
    const complete = async () => {
        const events = await published();
        const look = async () => (await Promise.all(Object.values(pages).map(async (page) =>
            (await count(page)) >= wanted(page, events).length))).every(Boolean);
        await until('each page has all events', look, { seen: () => summary(pages) }).catch((error) => {
            // The judge below says more.
            log(error.message);
        });
        return events;
    };
    await complete();
    await ask('publish 1 cheese');
    const events = await complete();
    const wrong = {};
    for (const [name, page] of Object.entries(pages)) {
        const found = faults(await entries(page), wanted(page, events));
        if (found.length > 0) wrong[name] = found.slice(0, 20);
    }
    if (Object.keys(wrong).length > 0) {
        throw new Error(`not each event exactly once:\n${JSON.stringify(wrong, null, 2)}`);
    }
    log(`${Object.keys(pages).length} pages have each of ${events.length} events exactly once`);
}
