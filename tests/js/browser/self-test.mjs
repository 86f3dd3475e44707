// The self-test page in a visitor's browser, on networks that do one thing or another: what it says about them.

import { launch } from '../browser.mjs';
import { log, site } from '../site.mjs';
import { until } from '../until.mjs';

const browser = await launch(site.browser);
const page = await browser.newPage();
const errors = [];
page.on('pageerror', (error) => errors.push(error.message));
log(`${site.browser} visits ${site.url}`);
await page.goto(`${site.url}/e/_probe`, { waitUntil: 'domcontentloaded' });
log('the page is there');
await until('the tests are done', () => page.evaluate(() => document.body.getAttribute('data-finished') === 'true'), {
    seen: () => page.evaluate(() => document.getElementById('page').innerText),
    patience: 150_000,
});

const text = await page.evaluate(() => document.getElementById('text').value);
log(text);
const report = JSON.parse(text.slice(text.lastIndexOf('\n')));
const shown = await page.evaluate(() =>
    Array.from(document.querySelectorAll('#rows tr'), (row) => row.querySelector('.badge').textContent),
);
if (shown.join() !== report.tests.map((test) => test.result).join()) errors.push(`the table shows ${shown}`);
for (const [test, wanted] of Object.entries(site.results)) {
    const { result, advice } = report.tests.find((one) => one.test === test);
    // What was cut is told with its time, which differs by tenths.
    if (!result.startsWith(wanted) || !advice) errors.push(`${test}: ${result} (${advice}), and not ${wanted}`);
}
if (!report.browser || !report.page.startsWith(site.url)) errors.push('the report does not say where it is from');

await page.click('#copy');
const marked = await page.evaluate(() => {
    const { selectionStart, selectionEnd, value } = document.getElementById('text');
    return selectionEnd - selectionStart === value.length && document.getElementById('copied').textContent !== '';
});
if (!marked) errors.push('the button does not mark the report');
if (errors.length > 0) throw new Error(errors.join('\n'));
await browser.end();
