// One probe for each proxy and transport, each on a channel of its own, so that events do not come to all at one moment and
// a delay is that of the way and not of this process.

import { ask, log, site } from '../site.mjs';
import { until } from '../until.mjs';
import { Probe } from './probes.mjs';

const { rounds, events, burst, silence } = site;
const probes = site.probes.map((probe) => new Probe(probe).start());
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

await until('all have begun', () => probes.every(({ hasBegun }) => hasBegun), {
    seen: () => probes.filter(({ hasBegun }) => !hasBegun).map(({ channel }) => channel),
});
// What can open has opened then; what cannot will never.
await pause(2000);

for (let round = 0; round < rounds; round++) {
    const began = Date.now();
    const turns = probes.flatMap((probe) => Array.from({ length: events }, () => ({ probe, at: Math.random() * burst })));
    for (const { probe, at } of turns.sort((one, other) => one.at - other.at)) {
        await pause(began + at - Date.now());
        probe.published = (probe.published ?? 0) + 1;
        await ask(`publish ${probe.channel}`);
    }
    log(`round ${round + 1} of ${rounds}`);
    await pause(silence);
}
for (const probe of probes) await ask(`probe ${JSON.stringify(probe.report())}`);
for (const probe of probes) probe.stop();
process.exit(0);
