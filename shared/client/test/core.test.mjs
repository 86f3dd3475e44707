// Runs the tests of core/ in node, against the source and against what is shipped.
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import vm from 'node:vm';

const core = new URL('core/', import.meta.url);
const files = readdirSync(core).filter((name) => name.endsWith('.js')).sort();

for (const script of ['../everpoll.js', '../dist/everpoll.min.js']) {
  const lines = [];
  const context = vm.createContext({ print: (line) => lines.push(String(line)), setTimeout, clearTimeout, console });
  if (process.env.ONLY) context.only = process.env.ONLY;
  context.seeds = Number(process.env.SEEDS ?? 30);
  vm.runInContext(readFileSync(new URL(script, import.meta.url), 'utf8'), context, { filename: script });
  for (const name of files) {
    // What is shipped shows no decisions, only what comes of them.
    if (name === '10_decide.js' && script.includes('dist/')) continue;
    vm.runInContext(readFileSync(new URL(name, core), 'utf8'), context, { filename: name });
  }
  const trace = lines.filter((line) => line.startsWith('#')).join('\n');
  for (const line of lines.filter((line) => /^(not )?ok/.test(line))) {
    test(`${script.replace('../', '')}: ${line.replace(/^(not )?ok \d+ - /, '').split(':')[0]}`, () => {
      if (line.startsWith('not')) throw new Error(line + '\n' + trace);
    });
  }
}
