// The snippets of the page under test, and who must not be forgotten; see tests/integration/snippets.rs.

import assert from 'node:assert/strict';

import { ask, log, site } from '../site.mjs';

const used = new Set();

/** A snippet's text, with `changes` ({printed: own}) made in it; each must be there. */
export function snippet(name, changes = {}) {
    const found = site.snippets[name];
    assert(found, `the page has no snippet ${name}`);
    used.add(name);
    let text = found.text;
    for (const [from, to] of Object.entries(changes)) {
        assert(text.includes(from), `the snippet ${name} no longer says ${from}`);
        text = text.replaceAll(from, to);
    }
    return text;
}

/** Asks for something to be done with a snippet, with `changes` made in it, and returns what was printed. */
export async function type(act, name, changes = {}) {
    snippet(name, changes);
    return JSON.parse(await ask(`${act} ${name} ${JSON.stringify(changes)}`));
}

/** Runs a shell snippet, which must print what the page says; returns that. */
export async function run(name, changes = {}) {
    const printed = await type('run', name, changes);
    assertShown(name, printed);
    log(`ran ${name}`);
    return printed;
}

/** Whether a text is what the page shows behind a snippet, where an ellipsis stands for anything. */
export function assertShown(name, printed) {
    const shown = site.snippets[name].output;
    if (shown === null) return;
    const parts = shown.trim().split('…').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
    assert.match(printed.trim(), new RegExp(`^${parts.join('[^]*')}$`), `${name} printed something else`);
}

/** Ends the test: all snippets of the page were run. */
export function assertAllRun() {
    const left = Object.keys(site.snippets).filter((name) => !used.has(name));
    assert.deepEqual(left, [], 'nobody ran these snippets');
    log(`ran all ${used.size} snippets`);
}
