// A page of another origin tries, in the browser of a visitor who is logged in, to read what the visitor may read, and to publish.

import { launch } from '../browser.mjs';
import { log, site } from '../site.mjs';

const { victim, attacker, token } = site;
const SECRET = 'gouda-secret';
const poll = `${victim}/e/cheese?last_event_id=0&hold=0`;

const browser = await launch('chromium');
const page = await browser.newPage();
// As the application sets it, but for Secure, which needs TLS.
await page.setCookie({ name: 'everpoll_token', value: token, url: victim, path: '/e', httpOnly: true, sameSite: 'Lax' });
await page.goto(`${victim}/page`);
const own = await page.evaluate(async (url) => (await fetch(url)).text(), poll);
if (!own.includes(SECRET)) throw new Error(`the visitor's own page does not read: ${own}`);
log('the visitor is logged in');

// What arrived at the server with the cookie: so it is sure that the attacks below had it.
let withCookie = 0;
const session = await page.createCDPSession();
await session.send('Network.enable');
session.on('Network.requestWillBeSentExtraInfo', ({ headers }) => {
    if ((headers.Cookie ?? headers.cookie ?? '').includes(token)) withCookie += 1;
});

await page.goto(`${attacker}/page`);
const found = await page.evaluate(
    async (victim, poll) => {
        const told = {};
        const within = (promise) => Promise.race([promise, new Promise((resolve) => setTimeout(resolve, 3000, 'nothing'))]);
        const attempt = async (name, action) => {
            try {
                const result = await within(action());
                told[name] = typeof result === 'string' ? result : JSON.stringify(result);
            } catch (error) {
                told[name] = `refused: ${error}`;
            }
        };
        const event = JSON.stringify({ channel: 'stolen', type: 'made', data: 1 });
        const element = (name, fields, parent = document.body) =>
            new Promise((resolve) => {
                const made = Object.assign(document.createElement(name), fields);
                made.onload = () => resolve('loaded');
                made.onerror = () => resolve('failed');
                parent.append(made);
            });
        const xhr = (method, url, body, type) =>
            new Promise((resolve) => {
                const request = new XMLHttpRequest();
                request.open(method, url);
                request.withCredentials = true;
                if (type) request.setRequestHeader('Content-Type', type);
                request.onloadend = () => resolve(`${request.status} ${request.responseText}`);
                request.send(body);
            });

        // Reading.
        await attempt('fetch', async () => (await fetch(poll, { credentials: 'include' })).text());
        await attempt('fetch without cors', async () => (await fetch(poll, { credentials: 'include', mode: 'no-cors' })).text());
        await attempt('fetch with a header', async () =>
            (await fetch(poll, { credentials: 'include', headers: { Flavor: 'short-poll' } })).text(),
        );
        await attempt('fetch of the fallback', async () => (await fetch(poll.replace('/e/', '/e.php/'), { credentials: 'include' })).text());
        await attempt('fetch by POST', async () =>
            (await fetch(poll, { method: 'POST', credentials: 'include', body: 'last_event_id=0' })).text(),
        );
        await attempt('xhr', () => xhr('GET', poll));
        await attempt('eventsource', () =>
            new Promise((resolve) => {
                const stream = new EventSource(poll, { withCredentials: true });
                stream.onmessage = (message) => resolve(message.data);
                stream.addEventListener('made', (message) => resolve(message.data));
                stream.onerror = () => (stream.close(), resolve('refused'));
            }),
        );
        await attempt('websocket', () =>
            new Promise((resolve) => {
                const socket = new WebSocket(poll.replace('http:', 'ws:'));
                socket.onmessage = (message) => resolve(`opened: ${message.data}`);
                socket.onerror = () => resolve('refused');
            }),
        );

        // Scripts: JSON as one, with all that could catch what it evaluates to; a script that the page asks for; the client's file.
        const caught = [];
        const keep = (value) => caught.push(JSON.stringify(value) ?? String(value));
        window.stolen = keep;
        window.addEventListener('error', (event) => keep(event.message));
        for (const name of ['id', 'data', 'channel_id', 'events', 'type']) {
            Object.defineProperty(Object.prototype, name, { configurable: true, set: keep });
        }
        const realArray = window.Array;
        window.Array = function (...items) {
            keep(items);
            return new realArray(...items);
        };
        for (const more of ['', '&envelope=1', '&ct=text', '&cb=stolen', '&cb=stolen&envelope=1', '&pad=4096&beat=1']) {
            await attempt(`script ${more}`, () => element('script', { src: `${poll}${more}` }));
            await attempt(`module ${more}`, () => element('script', { src: `${poll}${more}`, type: 'module' }));
        }
        await attempt('the client as a script', () => element('script', { src: `${victim}/everpoll.js` }));
        window.Array = realArray;
        for (const name of ['id', 'data', 'channel_id', 'events', 'type']) delete Object.prototype[name];
        await attempt('the client from there', () =>
            new Promise((resolve) => {
                if (!window.Everpoll) return resolve('no client');
                const client = new window.Everpoll('cheese', { url: `${victim}/e`, cursor: '0', parameters: { hold: 0 } });
                client.on('made', (data) => resolve(JSON.stringify(data)));
                setTimeout(() => (client.stop && client.stop(), resolve('nothing')), 1500);
            }),
        );

        // As what it is not.
        await attempt('image', () => element('img', { src: poll }));
        await attempt('style sheet', () => element('link', { rel: 'stylesheet', href: poll }, document.head));
        const sheets = Array.from(document.styleSheets, (sheet) => {
            try {
                return Array.from(sheet.cssRules, (rule) => rule.cssText).join();
            } catch {
                return 'closed';
            }
        });
        await attempt('frame', async () => {
            const frame = document.createElement('iframe');
            const loaded = new Promise((resolve) => (frame.onload = resolve));
            frame.src = poll;
            document.body.append(frame);
            await loaded;
            return frame.contentDocument?.body?.innerText ?? 'closed';
        });
        await attempt('object', async () => {
            const object = document.createElement('object');
            object.data = poll;
            const loaded = new Promise((resolve) => (object.onload = object.onerror = resolve));
            document.body.append(object);
            await loaded;
            return object.contentDocument?.body?.innerText ?? 'closed';
        });
        await attempt('worker', async () => {
            const source = `importScripts(${JSON.stringify(poll)}); postMessage('imported');`;
            const worker = new Worker(URL.createObjectURL(new Blob([source])));
            return new Promise((resolve) => {
                worker.onmessage = (message) => resolve(message.data);
                worker.onerror = (event) => resolve(`refused ${event.message}`);
            });
        });

        // Publishing: in each way that needs no leave, and in those that ask first.
        const publish = `${victim}/publish`;
        const fields = { credentials: 'include', method: 'POST' };
        for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data', 'text/plain;application/json', 'application/json']) {
            await attempt(`publish as ${type}`, async () =>
                (await fetch(publish, { ...fields, body: event, headers: { 'Content-Type': type } })).text(),
            );
            await attempt(`publish as ${type} without cors`, async () =>
                (await fetch(publish, { ...fields, mode: 'no-cors', body: event, headers: { 'Content-Type': type } })).type,
            );
            await attempt(`publish as a blob of ${type}`, async () =>
                (await fetch(publish, { ...fields, mode: 'no-cors', body: new Blob([event], { type }) })).type,
            );
            await attempt(`publish by beacon as ${type}`, async () =>
                String(navigator.sendBeacon(publish, new Blob([event], { type }))),
            );
            await attempt(`publish by xhr as ${type}`, () => xhr('POST', publish, event, type));
        }
        await attempt('publish as nothing', async () =>
            (await fetch(publish, { ...fields, mode: 'no-cors', body: new Blob([event]) })).type,
        );
        for (const enctype of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data']) {
            await attempt(`publish by a form as ${enctype}`, async () => {
                const frame = document.createElement('iframe');
                frame.name = `f${Math.random()}`;
                document.body.append(frame);
                const loaded = new Promise((resolve) => (frame.onload = resolve));
                const form = Object.assign(document.createElement('form'), { action: publish, method: 'POST', enctype, target: frame.name });
                const input = Object.assign(document.createElement('input'), { name: event.slice(0, -1) + ',"key":"', value: '"}' });
                form.append(input);
                document.body.append(form);
                form.submit();
                await loaded;
                return 'sent';
            });
        }
        await attempt('publish by an image', () => element('img', { src: `${publish}?channel=stolen&type=made&data=1` }));
        await attempt('publish by a method of its own', async () =>
            (await fetch(publish, { ...fields, method: 'PUT', body: event })).text(),
        );
        return { told, caught, sheets };
    },
    victim,
    poll,
);

for (const [name, result] of Object.entries(found.told)) log(`${name}: ${result.slice(0, 100)}`);
log(`${withCookie} requests had the visitor's cookie; ${found.caught.length} values were caught`);
const all = JSON.stringify(found);
if (all.includes(SECRET) || found.told.websocket !== 'refused') throw new Error(`the page has read it: ${all}`);
if (withCookie < 10) throw new Error('the cookie was not sent, so this shows nothing');
await browser.end();
