// The application of the shop: answers what a page's script lays out for it, and publishes.

import { createServer, request } from 'node:http';

import { launch } from '../browser.mjs';
import { ask, log, site } from '../site.mjs';
import { until } from '../until.mjs';
import { untilTrimmed } from './trimmed.mjs';

const answers = new Map();

/** What the application answers at this path, below `/shop/`: a text, or a function of the request. */
export function serve(path, answer, type = 'text/html; charset=utf-8') {
    answers.set(path, { answer, type });
}

const server = createServer(async (incoming, reply) => {
    const path = incoming.url.split('?')[0];
    // What a site of another host has besides pages: its own way to the fallback.
    if (/^\/e\.php(\/|$)/.test(path)) {
        const further = request(site.url + incoming.url, { headers: incoming.headers, method: incoming.method }, (answer) => {
            reply.writeHead(answer.statusCode, answer.headers);
            answer.pipe(reply);
        });
        further.on('error', () => reply.destroy());
        return incoming.pipe(further);
    }
    const found = answers.get(path);
    const body = typeof found?.answer === 'function' ? await found.answer(incoming) : found?.answer;
    reply.writeHead(found ? 200 : 404, { 'Content-Type': found?.type ?? 'text/plain', 'Cache-Control': 'no-store' });
    reply.end(body ?? 'nothing');
});
await new Promise((resolve) => server.listen(site.application, '127.0.0.1', resolve));
// It must not keep the script alive.
server.unref();

/** The application's own address, another origin than nginx'. */
export const elsewhere = `http://127.0.0.1:${site.application}`;

/** Publishes one event, or an array of them, and returns the ids. */
export async function publish(event) {
    const reply = await fetch(`${site.url}/publish`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify(event),
    });
    if (reply.status !== 201) throw new Error(`a publish was answered with ${reply.status}: ${await reply.text()}`);
    return (await reply.json()).ids;
}

/** Publishes a cheese. */
export function cheese(id, name, type = 'cheese_created') {
    return publish({ channel: 'cheese', type, data: { id, name } });
}

/** The newest cursor. */
export async function cursor() {
    const reply = await fetch(`${site.url}/e/any?flavor=short-poll&envelope=1`);
    return (await reply.json()).cursor;
}

/** Removes all events, one of the cheeses after the cursor `at` among them, and waits until that is a gap. */
export async function trim(at) {
    await ask('trim');
    await untilTrimmed(at);
}

/** What snippets take for granted: something to write to. */
const GIVEN = `
<p id="state"></p><p id="result"></p><progress id="progress" max="100"></progress>
<button id="start">Start</button> <button id="notify">Notify</button>
<script>
  window.lines = [];
  function log(line) { lines.push(line); }
  window.shown = [];
  function show(cheese) { shown.push(cheese.name); }
</script>`;

/** A page with the client and these scripts, one after the other. */
export function page(...scripts) {
    const tags = scripts.map((script) => `<script>\n${script}\n</script>`);
    return `<!DOCTYPE html>\n<meta charset="utf-8">\n<title>Snippet</title>\n${GIVEN}\n` +
        `<script src="/everpoll.js"></script>\n${tags.join('\n')}`;
}

export const browser = await launch('chromium');

/** Opens a page of the application in a tab of its own; `at` is nginx' origin or another. */
export async function open(path, at = site.url) {
    // Nothing is remembered from the snippet before.
    const context = await browser.createBrowserContext();
    const tab = await context.newPage();
    tab.errors = [];
    tab.on('pageerror', (error) => tab.errors.push(error.message));
    tab.on('console', (line) => log(`${path}:`, line.text()));
    await tab.goto(at + path);
    tab.leave = () => context.close();
    return tab;
}

/** Serves a page and opens it. */
export async function show(path, html, at) {
    serve(path, html);
    return open(path, at);
}

/** Waits until `look`, a function or an expression of the page, is deeply equal to `expected`. */
export async function untilEqual(tab, what, look, expected) {
    // A page that is being loaded has nothing to look at.
    const seen = () => tab.evaluate(look).catch(() => 'nothing');
    await until(what, async () => JSON.stringify(await seen()) === JSON.stringify(expected), { seen }).catch((error) => {
        throw new Error(`${error.message}; expected ${JSON.stringify(expected)}; errors: ${tab.errors}`);
    });
    log('seen:', what);
}

/** The texts of all elements that a selector finds. */
export function texts(selector) {
    return `Array.from(document.querySelectorAll(${JSON.stringify(selector)}), (element) => element.textContent)`;
}
