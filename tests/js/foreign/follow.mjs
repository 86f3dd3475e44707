// What is the same with each EventSource: collect, let the test play its scene, and hand over what came.

import { ask, log, site } from '../site.mjs';

export const url = site.url;

/** Collects until the last event of the scene has come. */
export async function follow(source) {
    const received = [];
    let last = null;
    const finish = async () => {
        source.close();
        await ask(`received ${JSON.stringify(received)}`);
        process.exit(0);
    };
    source.addEventListener('made', (event) => {
        const id = Number(event.lastEventId);
        if (JSON.parse(event.data).name !== 'K\u00e4se \u{1f9c0}\nand wine') throw new Error(`not what was sent: ${event.data}`);
        received.push(id);
        if (id === last) finish();
    });
    for (const type of ['everpoll:hello', 'everpoll:gap', 'everpoll:end']) {
        source.addEventListener(type, (event) => log(type, event.data));
    }
    source.addEventListener('open', () => log('open'));
    source.addEventListener('error', (event) => log(`error: ${event.message ?? event.error ?? ''}`));
    last = Number(await ask('play'));
    if (received.includes(last)) await finish();
}
