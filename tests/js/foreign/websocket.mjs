// npm's `ws`, with the loop around it that a page has to write: a WebSocket does not come back by itself.

import WebSocket from 'ws';
import { ask, log, site } from '../site.mjs';

const received = [];
let cursor = '0';
let last = null;

function connect() {
    const socket = new WebSocket(`${site.url.replace('http', 'ws')}?flavor=websocket&last_event_id=${cursor}`);
    socket.on('message', (text) => {
        const message = JSON.parse(text);
        if (message.id > 0) cursor = String(message.id);
        if (message.type === 'made') received.push(message.id);
        else log(message.type, JSON.stringify(message.data));
        if (last !== null && message.id >= last) finish();
    });
    socket.on('error', (error) => log(`error: ${error.message}`));
    socket.on('close', (code, reason) => {
        log(`closed: ${code} ${reason}`);
        setTimeout(connect, 200);
    });
}

async function finish() {
    await ask(`received ${JSON.stringify(received)}`);
    process.exit(0);
}

connect();
last = Number(await ask('play'));
if (Number(cursor) >= last) await finish();
