// Makes dist/everpoll.min.js from everpoll.js: `npm run build`. With --check it only compares.
import { readFileSync, writeFileSync, mkdirSync } from 'node:fs';
import { minify } from 'terser';

const source = new URL('everpoll.js', import.meta.url);
const target = new URL('dist/everpoll.min.js', import.meta.url);

/** The text of dist/everpoll.min.js, from the source as it is. */
export async function build() {
  // The pure decisions are shown to tests of the source alone.
  const text = readFileSync(source, 'utf8').replace(/^ *Core\.decide = .*\n/m, '');
  const result = await minify({ 'everpoll.js': text }, {
    ecma: 5,
    ie8: true,
    compress: { passes: 3, typeofs: false, arrows: false, inline: 1 },
    // Names that are used within the file only.
    mangle: { properties: { regex: /^(quick|brief|trial|limit|dog|ep|giveUp|target)$/ } },
    format: { ascii_only: true, preamble: '/* Everpoll */' },
  });
  return result.code + '\n';
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const text = await build();
  if (process.argv.includes('--check')) {
    if (readFileSync(target, 'utf8') !== text) {
      console.error('dist/everpoll.min.js is not what everpoll.js makes; run: npm run build');
      process.exit(1);
    }
  } else {
    mkdirSync(new URL('dist/', import.meta.url), { recursive: true });
    writeFileSync(target, text);
  }
}
