// What docs/reference/client.md promises.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import { log, site } from '../site.mjs';
import { until } from '../until.mjs';
import { assertAllRun, assertShown, snippet, type } from './page.mjs';
import { browser, cheese, elsewhere, open, serve, show, untilEqual } from './shop.mjs';

const PRINTED = 'http://127.0.0.1:8378';
const SOURCES = resolve('../../shared/client');

async function integrity() {
    const tag = await type('run', 'digits', { [PRINTED]: site.url });
    assertShown('digits', tag);
    const digits = /"([0-9a-f]{16})"/.exec(tag)[1];
    const hash = await type('run', 'hash', { [PRINTED]: site.url });

    const forYear = await fetch(`${site.url}/everpoll.${digits}.js`);
    assert.match(forYear.headers.get('cache-control'), /immutable/);
    const other = await fetch(`${site.url}/everpoll.0123456789abcdef.js`);
    assert.doesNotMatch(other.headers.get('cache-control'), /immutable/);
    assert.equal(await other.text(), await forYear.text());

    const html = (text) => snippet('integrity.html', { '0123456789abcdef': digits, HASH: text });
    const tab = await show('/shop/integrity', html(hash));
    await untilEqual(tab, 'the right hash loads', 'typeof Everpoll', 'function');
    serve('/shop/integrity', html(`${hash.slice(0, -4)}AAAA`));
    await tab.reload();
    await untilEqual(tab, 'a wrong one does not', '[document.readyState, typeof Everpoll]', ['complete', 'undefined']);
    await tab.leave();
}

async function policy() {
    const events = site.daemon;
    const html = snippet('csp.html', {
        'wss://events.shop.example': events.replace('http', 'ws'),
        'https://events.shop.example': events,
    });
    const script = `var events = new Everpoll('cheese', { url: '${events}/e', transport: 'websocket' });`;
    serve('/shop/policy.js', script, 'text/javascript');
    const page = `<!DOCTYPE html>${html}
        <script src="${events}/everpoll.js"></script><script src="/shop/policy.js"></script>
        <script>window.inline = true</script>`;
    serve('/shop/policy', page);
    const tab = await open('/shop/policy', elsewhere);
    const look = '[events.transport, events.state, window.inline || false]';
    await untilEqual(tab, 'polls and streams are allowed', look, ['websocket', 'live', false]);
    await tab.leave();
}

function project() {
    const folder = mkdtempSync(join(tmpdir(), 'project-'));
    writeFileSync(join(folder, 'package.json'), '{ "private": true }');
    mkdirSync(join(folder, 'everpoll/shared'), { recursive: true });
    symlinkSync(SOURCES, join(folder, 'everpoll/shared/client'));
    // As printed, but without asking a registry whether there is anything to say.
    execFileSync('sh', ['-c', snippet('npm').replace('install', 'install --offline --no-audit --no-fund')], {
        cwd: folder,
        stdio: 'inherit',
    });
    return folder;
}

function types(folder) {
    const compile = (text) => {
        writeFileSync(join(folder, 'cheese.ts'), text);
        const tsc = join(SOURCES, 'node_modules/.bin/tsc');
        const options = ['--noEmit', '--strict', '--target', 'es2020', '--module', 'commonjs', '--types', '', 'cheese.ts'];
        execFileSync(tsc, ['--ignoreConfig', ...options], { cwd: folder, stdio: 'pipe' });
    };
    const text = snippet('cheese.ts');
    try {
        compile(text);
    } catch (error) {
        throw new Error(`cheese.ts does not compile: ${error.stdout}`);
    }
    assert.throws(() => compile(text.replace('cheese.name', 'cheese.nam')), /Command failed/, 'types are checked');
    log('types fit');
}

async function core(folder) {
    writeFileSync(join(folder, 'core.js'), snippet('core.js', { [PRINTED]: site.url }));
    const node = spawn('node', ['core.js'], { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] });
    let printed = '';
    node.stdout.setEncoding('utf8').on('data', (text) => {
        printed += text;
    });
    const untilPrinted = (text) => until(`it prints ${text}`, () => printed === text, { seen: () => printed });
    await untilPrinted('connecting\nlive\n');
    await cheese(1, 'Gouda');
    await cheese(2, 'Brie');
    await untilPrinted('connecting\nlive\ncheese_created Gouda\ncheese_created Brie\n');
    node.kill();
}

/** The first page that anybody sees. */
async function readme() {
    const html = /```html\n([^]*?)```/.exec(readFileSync('../../README.md', 'utf8'))[1];
    serve('/shop/readme', html);
    serve('/shop/empty', '<!DOCTYPE html>');
    const tab = await open('/shop/empty');
    // Nobody is there to press a button.
    await tab.evaluateOnNewDocument(() => {
        window.told = [];
        window.alert = (text) => window.told.push(text);
    });
    await tab.goto(`${site.url}/shop/readme`);
    // It begins at now, and does not say when that was.
    const tell = async () => {
        await cheese(1, 'Gouda');
        return tab.evaluate('told[0]');
    };
    assert.equal(await until('the page tells of a cheese', tell, { step: 1000 }), 'Gouda');
    log('the three lines work');
    await tab.leave();
}

await readme();
await integrity();
await policy();
const folder = project();
types(folder);
await core(folder);
await browser.end();
assertAllRun();
