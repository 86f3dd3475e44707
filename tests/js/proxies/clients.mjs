// Everpoll's own client on a network of ours, with a ledger of what it brought and what went wrong on the way.

import { createRequire } from 'node:module';
import { Network } from './network.mjs';

const Everpoll = createRequire(import.meta.url)('../../../shared/client/everpoll.js');

/** A client with its defaults, behind a way; see network.mjs. */
export class Client {
    constructor({ name, way, channel = 'cheese', partial, transport, options = {}, store = {} }) {
        this.name = name;
        this.network = new Network(way, { partial });
        this.events = [];
        this.states = [];
        this.gaps = 0;
        this.store = store;
        const { send, open, opens } = this.network;
        // Shares with nobody: each stands for a browser of its own.
        const settings = { waitId: `${channel}-${name.replace('/', '-')}`, share: false, ...(transport ? { transport } : {}), ...options };
        const env = { send, open, opens, store: keeper(store), session: keeper({}) };
        this.core = new Everpoll.Core(channel, settings, env);
        this.core.on('cheese_created', (data, event) => {
            this.events.push({ id: Number(event.id), late: Date.now() - Date.parse(event.ts) });
        });
        this.core.on('gap', () => this.gaps++);
        this.core.on('state', (state) => this.states.push([Date.now(), state]));
    }

    start() {
        this.core.start();
        return this;
    }

    stop() {
        this.core.stop();
        this.network.close();
    }

    /** Whether it knows where it is. */
    get hasBegun() {
        return /^\d+$/.test(this.core.cursor);
    }

    /** Requests that brought no whole answer. Streams that ended are not among them: the client looks after them. */
    get errors() {
        return this.network.log.filter(isError);
    }

    /** What Rust judges. */
    report() {
        const { name, core, network } = this;
        const streams = network.log.filter((entry) => entry.stream);
        return {
            name,
            transport: core.transport,
            state: core.state,
            began: this.began,
            gaps: this.gaps,
            events: this.events,
            requests: network.log.length,
            errors: this.errors.map(({ at, elapsed, status, target, why }) => ({
                at,
                elapsed,
                status,
                why: why ?? '',
                asked: new URLSearchParams(target.split('?')[1]).toString(),
            })),
            streams: streams.map(({ elapsed, why }) => ({ elapsed, why: why ?? '' })),
        };
    }
}

/** Whether a request that ended is one too many. */
export function isError({ stream, status, whole }) {
    return !stream && !(status === 200 && whole);
}

function keeper(values) {
    return {
        get: (key) => values[key] ?? null,
        set: (key, value) => {
            values[key] = value;
            return true;
        },
        remove: (key) => delete values[key],
    };
}
