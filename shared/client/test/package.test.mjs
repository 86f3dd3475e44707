// What is shipped: that old browsers can read it, that it is what the source makes, and that it stays small.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { parse } from 'acorn';
import { build } from '../build.mjs';

const here = new URL('./', import.meta.url);
const read = (name) => readFileSync(new URL(name, here), 'utf8');
const shipped = '../dist/everpoll.min.js';
/** Bytes of dist/everpoll.min.js behind gzip. */
const BUDGET = 6144;

/** Throws where a browser of 2001 would. */
function asEs3(text) {
  parse(text, { ecmaVersion: 3, allowReserved: 'never', sourceType: 'script' });
  const odd = /[^\x00-\x7f]/.exec(text);
  assert.equal(odd, null, odd && `character ${odd[0]} at ${odd.index} is not ASCII`);
}

for (const name of ['../everpoll.js', shipped, ...readdirSync(new URL('core/', here)).map((file) => 'core/' + file)]) {
  test(`${name} is ES3 and ASCII`, () => asEs3(read(name)));
}

test('the check of ES3 refuses what old browsers refuse', () => {
  for (const text of ['a = [1,];b = {c: 1,}', 'a.catch()', 'a = {class: 1}', 'let a', 'a = () => 1', 'a = {get b() {}}', 'a = "\u00e4"']) {
    assert.throws(() => asEs3(text), undefined, text);
  }
});

test('no named function expression leaks into the scope of old engines', () => {
  const walk = (node) => {
    if (!node || typeof node !== 'object') return;
    if (node.type === 'FunctionExpression') assert.equal(node.id, null, node.id?.name);
    Object.values(node).forEach(walk);
  };
  for (const name of ['../everpoll.js', shipped]) walk(parse(read(name), { ecmaVersion: 3 }));
});

test('dist/everpoll.min.js is what everpoll.js makes', async () => {
  assert.equal(read(shipped), await build(), 'run: npm run build');
});

test('dist/everpoll.min.js fits its budget', (t) => {
  const size = gzipSync(read(shipped), { level: 9 }).length;
  t.diagnostic(`${size} bytes behind gzip, of ${BUDGET}`);
  console.log(`dist/everpoll.min.js: ${size} bytes behind gzip, of ${BUDGET}`);
  assert.ok(size <= BUDGET, `${size} bytes are more than ${BUDGET}`);
});

test('package has all that it names, and runs nothing when it is installed', () => {
  const description = JSON.parse(read('../package.json'));
  for (const name of [description.main, description.types, ...description.files]) read('../' + name);
  for (const hook of ['preinstall', 'install', 'postinstall', 'prepare']) {
    assert.equal(description.scripts[hook], undefined);
  }
  assert.equal(description.dependencies, undefined);
});

test('types allow what works and refuse what does not', () => {
  const compiler = new URL('../node_modules/typescript/bin/tsc', here).pathname;
  const result = spawnSync(process.execPath, [compiler, '--noEmit', '--strict', '--target', 'es2020', '--module', 'node16',
    '--lib', 'es2020,dom', new URL('types.ts', here).pathname], { encoding: 'utf8' });
  assert.equal(result.status, 0, result.stdout + result.stderr);
});
