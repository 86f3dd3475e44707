interface Everpoll<Events extends object = Record<string, any>> extends Everpoll.Client<Events> {}

/** Brings each event of some channels to the page exactly once. */
declare class Everpoll<Events extends object = Record<string, any>> {
  /**
   * @param channels one name, or up to 64
   */
  constructor(channels: string | readonly string[], options?: Everpoll.Options);

  /** What the host offers to a client: network, timers, storage. For tests, which replace parts of it. */
  static env(): Everpoll.Env;
}

declare namespace Everpoll {
  /**
   * - `connecting`: no answer yet
   * - `live`: a request is held, or a stream is open; events come at once
   * - `polling`: the server answers at once and tells when to come back; events come some seconds late
   * - `down`: the server cannot be reached; it is tried again and again
   * - `stopped`: by `stop()`, or for a reason that does not go away, which the detail tells
   */
  type State = 'connecting' | 'live' | 'polling' | 'down' | 'stopped';

  /** How events come at this moment. `padded` is a long-poll that a proxy cannot take for idle. */
  type Transport = 'long-poll' | 'padded' | 'short-poll' | 'eventsource' | 'websocket';

  interface Event<Data = any, Type extends string = string> {
    /** Its place in the log. Decimal text, since ids may outgrow the numbers of JavaScript. */
    id: string;
    channel: string;
    type: Type;
    data: Data;
    /** When it was published, such as `2014-07-23T14:25:22.123Z`. */
    ts: string;
  }

  /** Events that are gone: the page should load its data anew. */
  interface Gap {
    /** The last event that the page has seen, or 0. */
    after: number | string;
    /** The first event that is there. */
    before: number | string;
    /** `trimmed`: too old. `ahead`: the log is another one, or was restored from an older copy. */
    reason: 'trimmed' | 'ahead';
  }

  interface StateDetail {
    /** HTTP status of the failure; 0 when there was no answer. */
    status?: number;
    /** The server's code, such as `token_expired`, when the state is `stopped`. */
    code?: string;
    /** What happened and what to do, for people. */
    message?: string;
    /** Milliseconds until the next try, when the state is `down`. */
    retryIn?: number;
  }

  interface Options {
    /** Where events come from; of several, the next one serves while one is down. Default `/e`. */
    url?: string | readonly string[];
    /** The key of which one request is held. By default one for each browser. */
    waitId?: string;
    /** Default `long-poll`. A stream is left for long-polls where a proxy does not let it through. */
    transport?: 'long-poll' | 'short-poll' | 'eventsource' | 'websocket';
    /** Where to begin: an event id, `rt-<Unix seconds>`, or `now`, the default. */
    cursor?: string | number;
    /** Keeps the cursor over loads of the page, in the tab's storage. */
    keep?: boolean;
    /** One held request for all tabs of the browser. Default true. */
    share?: boolean;
    /** Longest hold, in seconds. */
    hold?: number;
    /** Sends cookies to another origin. */
    credentials?: boolean;
    /** Allows script tags where a browser has nothing better for another origin. */
    jsonp?: boolean;
    /** Added to each query, such as a token. To renew one, change the object and call `start()`. */
    parameters?: Record<string, string | number>;
    /** Starts by itself after the page's load event. Default true; `Core` never does. */
    start?: boolean;
    /** The jQuery that hears of events as well. Default: the page's. */
    jQuery?: unknown;
  }

  interface Client<Events extends object = Record<string, any>> {
    readonly state: State;
    readonly transport: Transport;
    /** Seen up to here: where the next request goes on. */
    readonly cursor: string;

    on(type: 'state', call: (this: this, state: State, detail: StateDetail) => void): this;
    on(type: 'gap', call: (this: this, gap: Gap, event: Event<Gap>) => void): this;
    /** Every event, also those of a type that is called `state`, `gap` or `*`, which reach no other handler. */
    on(type: '*', call: (this: this, data: any, event: Event) => void): this;
    on<Type extends keyof Events & string>(
      type: Type,
      call: (this: this, data: Events[Type], event: Event<Events[Type], Type>) => void
    ): this;

    /** Without `call`: all handlers of the type. */
    off(type: string, call?: (...values: any[]) => void): this;

    start(): this;
    stop(): this;
  }

  interface Core<Events extends object = Record<string, any>> extends Client<Events> {}

  /** Without a page: starts when it is told, and takes network, timers, clock and chance from `env`. */
  class Core<Events extends object = Record<string, any>> {
    constructor(channels: string | readonly string[], options?: Options, env?: Partial<Env>);

    /** The pure decisions, for tests; not in what is minified. */
    static readonly decide?: Readonly<Record<string, (...values: any[]) => any>>;
  }

  /** `header` reads a header of the answer, and gives an empty text or null where it has none. */
  type Done = (status: number, body: string | object, header: (name: string) => string | null | undefined) => void;

  interface Store {
    get(key: string): string | null | undefined;
    set(key: string, value: string): boolean | undefined;
  }

  interface Env {
    /** GETs `url`, calls `done` once, with status 0 when there was no answer; returns what gives up. May throw. */
    send(url: string, done: Done, options: Options): () => void;
    /** Opens a stream; `ended` takes the reason of a WebSocket's close. Returns what closes it. */
    open(
      kind: 'eventsource' | 'websocket', url: string, got: (text: string) => void, ended: (reason?: string) => void,
      options: Options
    ): () => void;
    /** Whether `open` can. */
    opens(kind: 'eventsource' | 'websocket'): boolean;
    /** Milliseconds. */
    now(): number;
    /** From 0 to below 1. */
    random(): number;
    later(call: () => void, ms: number): any;
    cancel(timer: any): void;
    /** What is kept for a day or longer. */
    store: Store;
    /** What is kept for the tab. */
    session: Store;
    /** Messages to the other tabs, never to itself; null where there is no way. */
    bus: ((name: string, receive: (message: any) => void) => { postMessage(message: any): void; close(): void } | null) | null;
    /**
     * Calls `granted` in one tab of all, and `lost` when it leads no more (true: it never can). Returns what gives it back,
     * after which neither is called.
     */
    lock:
      | ((name: string, steal: boolean | undefined, granted: () => void, lost: (never?: boolean) => void) => () => void)
      | null;
    /** Whether `lock` queues, and so is given on by itself. */
    locks: boolean;
    /** Takes what to do when the page goes away, comes back, or the network does. */
    page(pause: () => void, resume: () => void, kick: () => void): void;
  }
}

export = Everpoll;
export as namespace Everpoll;
