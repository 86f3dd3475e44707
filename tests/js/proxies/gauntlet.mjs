// All clients at once, each behind a proxy of its own, while events are published in fits and starts.
// What they got is told to the Rust test, which judges.

import { ask, log, site } from '../site.mjs';
import { until } from '../until.mjs';
import { Client } from './clients.mjs';

const clients = site.clients.map((client) => new Client(client).start());

await until('all have begun', () => clients.every(({ hasBegun }) => hasBegun), {
    seen: () => clients.filter(({ hasBegun }) => !hasBegun).map(({ name }) => name).join(' '),
});
for (const client of clients) client.began = client.core.cursor;
log(`${clients.length} clients have begun`);

for (const gap of site.gaps) {
    await new Promise((resolve) => setTimeout(resolve, gap));
    await ask('publish');
}
const newest = Number(await ask('publish'));
await until('all have got the last event', () => clients.every(({ events }) => events.at(-1)?.id === newest), {
    seen: () => clients.filter(({ events }) => events.at(-1)?.id !== newest).map(({ name }) => name).join(' '),
    patience: site.patience,
}).catch((error) => log(error.message));
for (const client of clients) await ask(`client ${JSON.stringify(client.report())}`);
for (const client of clients) client.stop();
process.exit(0);
