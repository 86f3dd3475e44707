// Waiting for conditions instead of durations, as tests/harness/wait.rs does it.

/** How long anything may take that normally takes milliseconds, on a machine that is busy with other tests. */
export const PATIENCE = 60_000;

/** Waits until `look` resolves to something true, and returns that; fails with `what`, and with what `look` last saw. */
export async function until(what, look, { patience = PATIENCE, step = 50, seen } = {}) {
    const end = Date.now() + patience;
    for (;;) {
        const found = await look();
        if (found) return found;
        if (Date.now() >= end) {
            const last = seen ? `; last seen: ${JSON.stringify(await seen())}` : '';
            throw new Error(`waited ${patience} ms in vain until ${what}${last}`);
        }
        await new Promise((resolve) => setTimeout(resolve, step));
    }
}
