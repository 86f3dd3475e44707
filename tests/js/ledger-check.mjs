// The judge of pages is judged: what is wrong with a ledger must be found.

import assert from 'node:assert/strict';

import { NAME, faults } from './ledger.mjs';

const published = [1, 2, 3].map((n) => ({ id: 10 + n, channel: 'cheese', type: 'made', n }));
const whole = published.map(({ id, type, n }) => ({ id, type, n, name: NAME }));
const [one, two, three] = whole;

assert.deepEqual(faults(whole, published), []);
assert.deepEqual(faults(whole.map((entry) => ({ ...entry, id: null })), published), [], 'pages that are not told ids');

for (const [what, ledger, expected] of [
    ['lost', [one, three], /^lost: 2/],
    ['lost at the end', [one, two], /^lost: 3/],
    ['doubled', [one, two, two, three], /^doubled: 2/],
    ['late', [two, one, three], /^late: 1/],
    ['unknown', [...whole, { ...one, n: 4 }], /^unknown/],
    ['with the id of another', [{ ...one, id: 12 }, two, three], /^1 has id 12/],
    ['of another type', [{ ...one, type: 'sold' }, two, three], /^1 is a sold/],
    ['with mangled text', [{ ...one, name: 'Gruy\u00c3\u00a8re' }, two, three], /^1 is called/],
]) {
    const found = faults(ledger, published);
    assert.ok(found.some((fault) => expected.test(fault)), `an event ${what} is not found: ${found}`);
}
