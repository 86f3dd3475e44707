// Makes dist/everpoll.min.js from everpoll.js: `npm run build`. With --check it only compares.
import { readFileSync, writeFileSync, mkdirSync } from 'node:fs';
import { minify } from 'terser';

const source = new URL('everpoll.js', import.meta.url);
const target = new URL('dist/everpoll.min.js', import.meta.url);

/** The text of dist/everpoll.min.js, from the source as it is. */
export async function build() {
  const result = await minify({ 'everpoll.js': readFileSync(source, 'utf8') }, {
    ecma: 5,
    ie8: true,
    safari10: true,
    compress: { passes: 3, unsafe: false, typeofs: false, arrows: false, keep_fargs: false },
    // Names that begin with _ are private.
    mangle: { properties: { regex: /^_/ } },
    format: { ascii_only: true, preamble: '/* Everpoll, MIT OR Apache-2.0 */', max_line_len: 2000 },
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
