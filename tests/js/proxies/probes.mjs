// Plain questions by one transport, without a client that learns: what a proxy does to each of them.

import { Network } from './network.mjs';

/** What each transport asks for. Streams beat as often as the client wants it. */
const ASKS = {
    'long-poll': { hold: 25 },
    padded: { hold: 120, pad: 4096, beat: 10 },
    eventsource: { flavor: 'eventsource', beat: 5 },
    websocket: { flavor: 'websocket', beat: 5 },
};

export class Probe {
    constructor({ name, way, transport }) {
        this.name = name;
        this.transport = transport;
        this.channel = `${name}-${transport}`;
        this.network = new Network(way);
        this.cursor = 'now';
        this.seen = new Set();
        this.late = [];
        this.doubled = 0;
        this.number = 0;
        this.running = true;
    }

    get hasBegun() {
        return /^\d+$/.test(this.cursor);
    }

    get isStream() {
        return this.transport === 'eventsource' || this.transport === 'websocket';
    }

    start() {
        // Where it stands is asked for by a poll, as the client does it: a stream may say nothing at all.
        this.close = this.network.send(this.target({ flavor: 'short-poll' }), (status, text) => {
            this.take(text);
            this.network.log.length = 0;
            this.next(this.hasBegun ? 0 : 1000);
        });
        return this;
    }

    stop() {
        this.running = false;
        clearTimeout(this.timer);
        this.close();
        this.network.close();
    }

    next(delay) {
        if (!this.running) return;
        this.timer = setTimeout(() => {
            if (!this.hasBegun) this.start();
            else if (this.isStream) this.stream();
            else this.poll();
        }, delay);
    }

    target(asks) {
        const values = { envelope: 1, last_event_id: this.cursor, _: ++this.number, ...asks };
        return `/e/${this.channel}/probe-${this.channel}?${new URLSearchParams(values)}`;
    }

    poll() {
        this.close = this.network.send(this.target(ASKS[this.transport]), (status, text) => {
            this.next(this.take(text) ? 0 : 1000);
        });
    }

    stream() {
        this.close = this.network.open(
            this.transport,
            this.target(ASKS[this.transport]),
            (text) => this.record(JSON.parse(text)),
            () => this.next(1000),
        );
    }

    /** Whether it was a whole reply. */
    take(text) {
        try {
            const { events, cursor } = JSON.parse(text);
            for (const event of events) this.record(event);
            this.cursor = cursor;
            return true;
        } catch {
            return false;
        }
    }

    record({ id, type, data, ts }) {
        if (String(type ?? data.type).startsWith('everpoll:')) return;
        if (this.seen.has(id)) this.doubled++;
        else this.late.push(Date.now() - Date.parse(ts));
        this.seen.add(id);
        this.cursor = String(id);
    }

    /** What is told to the Rust test. */
    report() {
        const { name, transport, network, published, late, doubled } = this;
        const ended = network.log.filter(({ stream, status, whole }) => stream || status !== 200 || !whole);
        const cuts = ended.map(({ elapsed, status, why }) => ({ elapsed, status: status ?? 0, why: why ?? '' }));
        return { name, transport, published, late, doubled, cuts };
    }
}
