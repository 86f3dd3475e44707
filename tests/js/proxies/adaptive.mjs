// A client behind something that cuts: it finds out what lives there. Then a neighbour starts, which is told; then the cutter
// is lifted, and the client returns to what is best.

import { ask, log, site } from '../site.mjs';
import { until } from '../until.mjs';
import { Client, isError } from './clients.mjs';

const { channel, options, way, clean, reaches } = site;
const clients = [];

function start(name, host) {
    const client = new Client({ name, channel, options, way: { ...way, from: way.from.replace(/\d+$/, host) } });
    clients.push(client);
    return client.start();
}

/** How many holds have come to their end since the last error. */
function cleanHolds({ network }) {
    const last = network.log.findLastIndex(isError);
    return network.log.slice(last + 1).filter(isFullHold).length;
}

/** A request that was held to its end, and long enough to tell. */
function isFullHold({ elapsed, status, target }) {
    return status === 200 && elapsed >= 900 * asked(target).hold && asked(target).hold >= 1;
}

function asked(target) {
    const { hold, pad } = Object.fromEntries(new URLSearchParams(target.split('?')[1]));
    return { hold: Number(hold ?? 0), padded: pad !== undefined };
}

/** What it does, for the log. */
function describe(client) {
    const list = client.network.log.map(({ target, elapsed, status }) => {
        const { hold, padded } = asked(target);
        return `${padded ? 'padded ' : ''}${hold} s: ${status} after ${(elapsed / 1000).toFixed(1)} s`;
    });
    return `${client.name}: ${list.join(', ')}`;
}

async function publish() {
    const newest = Number(await ask('publish'));
    await until('all have got it', () => clients.every(({ events }) => events.at(-1)?.id === newest));
}

const client = start('first', 2);
await until('it has begun', () => client.hasBegun);
await publish();
await until(`it has been cut, and then ${clean} holds were not`, () => client.errors.length > 0 && cleanHolds(client) >= clean, {
    patience: site.patience,
    seen: () => describe(client),
});
log(describe(client));
await ask(`cuts ${client.errors.length}`);
await publish();

if (site.neighbour) {
    const neighbour = start('neighbour', 3);
    await until(`its neighbour has held ${clean} times`, () => cleanHolds(neighbour) >= clean, {
        patience: site.patience,
        seen: () => describe(neighbour),
    });
    log(describe(neighbour));
    await ask(`neighbour ${neighbour.errors.length}`);
    await publish();
}

if (reaches) {
    await ask('lift');
    const best = ({ target, ...entry }) => isFullHold({ target, ...entry }) && !asked(target).padded && asked(target).hold >= reaches;
    await until(`it holds ${reaches} s, and not padded, as before`, () => client.network.log.some(best), {
        patience: site.patience,
        seen: () => describe(client),
    });
    log(describe(client));
    await ask(`lifted ${client.errors.length}`);
    await publish();
}

for (const { events } of clients) {
    const ids = events.map(({ id }) => id);
    if (ids.some((id, index) => index > 0 && id <= ids[index - 1])) throw new Error(`out of order: ${ids}`);
}
for (const one of clients) one.stop();
process.exit(0);
