// The network as a browser has it, for Everpoll.Core and for plain questions: through a proxy, or straight.
//
// Done as browsers do it: connections are kept, answers may be compressed, and a request that dies on a kept connection
// before any answer is sent once more, however long it took (Chromium, Firefox and WinInet all do). `partial` makes it an
// old Internet Explorer, which shows a body that was cut short as if it were whole.

import http from 'node:http';
import zlib from 'node:zlib';
import WebSocket from 'ws';

const AGENT = 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36';

/**
 * A way to the server.
 *
 * @typedef {object} Way
 * @property {string} host where the proxy, or the server itself, listens
 * @property {number} port
 * @property {string} origin the server's `host:port`
 * @property {boolean} forward whether whole URLs are asked of it
 * @property {string} from the address of this machine that the browser has: one network for each
 */

export class Network {
    /** @param {Way} way */
    constructor(way, { partial = false } = {}) {
        this.way = way;
        this.partial = partial;
        this.agent = new http.Agent({ keepAlive: true, maxSockets: 6 });
        /** Each request that has come to its end: when, how long it took, what came of it. */
        this.log = [];
    }

    /** The host of the pages, which is where a WebSocket says it comes from. */
    get page() {
        const { way } = this;
        return way.forward ? way.origin : `${way.host}:${way.port}`;
    }

    request(target, { agent = this.agent, headers = {} } = {}) {
        const { way } = this;
        return http.get({
            host: way.host,
            port: way.port,
            localAddress: way.from,
            agent,
            path: way.forward ? `http://${way.origin}${target}` : target,
            headers: {
                Host: this.page,
                'User-Agent': AGENT,
                Accept: '*/*',
                'Accept-Encoding': 'gzip, deflate',
                // As a gateway of that network would say; proxies that say it themselves say the same.
                'X-Forwarded-For': way.from,
                ...headers,
            },
        });
    }

    /** As `env.send` of Everpoll.Core. */
    send = (target, done) => {
        const began = Date.now();
        let over = false;
        let dropped = false;
        let again = true;
        let request;
        const finish = (status, text, header, why) => {
            if (over) return;
            over = true;
            this.log.push({ at: began, elapsed: Date.now() - began, status, target, whole: isWhole(text), why });
            // Only then is the connection free for the next request, as it is in a browser.
            setImmediate(() => {
                if (!dropped) done(status, text, header);
            });
        };
        const go = () => {
            let answered = false;
            request = this.request(target);
            request.on('response', (response) => {
                answered = true;
                const header = (name) => response.headers[name.toLowerCase()] ?? null;
                collect(response, (text, whole, why) => {
                    if (whole || this.partial) finish(response.statusCode, text, header, why);
                    else finish(0, '', () => null, why);
                });
            });
            request.on('error', (error) => {
                if (answered) return;
                if (!over && again && request.reusedSocket) {
                    again = false;
                    go();
                } else {
                    finish(0, '', () => null, error.code ?? error.message);
                }
            });
        };
        go();
        return () => {
            const why = 'given up';
            if (!over) this.log.push({ at: began, elapsed: Date.now() - began, status: 0, target, whole: false, why });
            over = dropped = true;
            request.destroy();
        };
    };

    /** As `env.opens`. */
    opens = () => true;

    /** As `env.open`: got(text) for each message, ended(reason) once. */
    open = (kind, target, got, ended) => {
        const began = Date.now();
        let over = false;
        const end = (why, reason) => {
            if (over) return;
            over = true;
            this.log.push({ at: began, elapsed: Date.now() - began, target, stream: kind, why });
            ended(reason ?? '');
        };
        const close = kind === 'websocket' ? this.socket(target, got, end) : this.events(target, got, end);
        return () => {
            if (over) return;
            over = true;
            this.log.push({ at: began, elapsed: Date.now() - began, target, stream: kind, why: 'closed here' });
            close();
        };
    };

    /** An EventSource. Lines are what is read; comments and names are nobody's business here. */
    events(target, got, end) {
        // A stream has its connection for itself.
        const request = this.request(target, { agent: false, headers: { Accept: 'text/event-stream' } });
        request.on('response', (response) => {
            const type = response.headers['content-type'] ?? '';
            if (response.statusCode !== 200 || !type.startsWith('text/event-stream')) {
                request.destroy();
                return end(`${response.statusCode} ${type}`);
            }
            let line = '';
            let data = [];
            plain(response).on('data', (bytes) => {
                // All that is sent is ASCII.
                const lines = (line + bytes.toString('latin1')).split('\n');
                line = lines.pop();
                for (const text of lines) {
                    if (text.startsWith('data:')) data.push(text.slice(5).trim());
                    else if (text === '' && data.length) {
                        got(data.join('\n'));
                        data = [];
                    }
                }
            }).on('error', (error) => end(error.code ?? error.message));
            response.on('close', () => end('closed'));
        });
        request.on('error', (error) => end(error.code ?? error.message));
        return () => request.destroy();
    }

    /** A WebSocket; through a forward proxy, by CONNECT. */
    socket(target, got, end) {
        const { way } = this;
        const socket = new WebSocket(`ws://${this.page}${target}`, {
            origin: `http://${this.page}`,
            localAddress: way.from,
            headers: { 'User-Agent': AGENT, 'X-Forwarded-For': way.from },
            // What is closed is closed: some proxies never answer.
            closeTimeout: 1000,
            ...(way.forward ? { createConnection: (_, connected) => this.tunnel(connected) } : {}),
        });
        socket.on('message', (data) => got(data.toString()));
        socket.on('close', (code, reason) => end(`closed with ${code}`, reason.toString()));
        socket.on('unexpected-response', (_, response) => {
            socket.terminate();
            end(`${response.statusCode} instead of 101`);
        });
        socket.on('error', (error) => end(error.code ?? error.message));
        return () => socket.terminate();
    }

    /** A connection to the server through the proxy. */
    tunnel(connected) {
        const { way } = this;
        const request = http.request({
            host: way.host,
            port: way.port,
            localAddress: way.from,
            agent: false,
            method: 'CONNECT',
            path: way.origin,
            headers: { Host: way.origin, 'User-Agent': AGENT },
        });
        request.on('connect', (response, socket) => {
            if (response.statusCode === 200) return connected(null, socket);
            socket.destroy();
            connected(new Error(`${response.statusCode} to CONNECT`));
        });
        request.on('error', (error) => connected(error));
        request.end();
    }

    close() {
        this.agent.destroy();
    }
}

/** Calls back with the text, whether the connection says that it is all, and what was wrong otherwise. */
function collect(response, call) {
    const parts = [];
    let why;
    const end = () => {
        call(Buffer.concat(parts).toString(), response.complete && !why, why);
        call = () => {};
    };
    response.on('error', (error) => {
        why ??= error.code ?? error.message;
    });
    response.on('aborted', () => {
        why ??= 'aborted';
        end();
    });
    plain(response)
        .on('data', (bytes) => parts.push(bytes))
        .on('error', (error) => {
            why ??= error.code ?? error.message;
            end();
        })
        .on('end', end);
}

/** The bytes of an answer that may be compressed; each as soon as it is there. */
function plain(response) {
    const flush = { flush: zlib.constants.Z_SYNC_FLUSH, finishFlush: zlib.constants.Z_SYNC_FLUSH };
    switch (response.headers['content-encoding']) {
        case 'gzip':
            return response.pipe(zlib.createGunzip(flush));
        case 'deflate':
            return response.pipe(zlib.createInflate(flush));
        default:
            return response;
    }
}

function isWhole(text) {
    try {
        return JSON.parse(text) !== null;
    } catch {
        return false;
    }
}
