// The browser side of the client, in pages made of nothing but what an old or new browser has.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import vm from 'node:vm';

const envelope = (cursor, ids = []) => JSON.stringify({
  events: ids.map((id) => ({ id, channel_id: 'cheese', ts: '', data: { type: 'made', data: {} } })),
  cursor: String(cursor), reconnect_in: 0, hold: 25, short_poll: false, end: 1,
});

/** A page at http://shop.example/ in which each named thing exists. */
function page(script, things = {}) {
  const timers = [];
  const listeners = {};
  const window = {
    location: { protocol: 'http:', host: 'shop.example' },
    navigator: {},
    document: {
      readyState: 'complete',
      scripts: [],
      createElement: (name) => ({ name, parentNode: null }),
      getElementsByTagName: () => [{ appendChild(node) {
        node.parentNode = { removeChild: () => { node.parentNode = null; } };
        window.document.scripts.push(node);
      } }],
    },
    setTimeout: (call, ms) => timers.push({ call, ms }),
    clearTimeout: (id) => { if (timers[id - 1]) timers[id - 1].call = null; },
    attachEvent: (type, call) => { (listeners[type] ??= []).push(call); },
    Math, Date, parseFloat, parseInt, encodeURIComponent, Object, Array, String, Error,
    ...things,
  };
  window.self = window;
  const context = vm.createContext(window);
  vm.runInContext(readFileSync(new URL(script, import.meta.url), 'utf8'), context);
  return {
    window,
    listeners,
    /** Calls timers of at most `ms`, and those that they set, at once. */
    pass(ms) {
      for (let i = 0; i < timers.length; i += 1) {
        const { call, ms: due } = timers[i];
        if (call && due <= ms) {
          timers[i].call = null;
          call();
        }
      }
    },
    fire(type, event = {}) {
      for (const call of listeners[type] ?? []) call(event);
    },
    run: (text) => vm.runInContext(text, context),
  };
}

/** XMLHttpRequest that keeps what was asked of it. */
function xhrs({ cors = false } = {}) {
  const made = [];
  function Xhr() {
    made.push(this);
    if (cors) this.withCredentials = false;
  }
  Xhr.prototype.open = function (method, url) { this.url = url; };
  Xhr.prototype.send = function () {};
  Xhr.prototype.abort = function () { this.aborted = true; };
  Xhr.prototype.getResponseHeader = () => '';
  Xhr.prototype.answer = function (status, text) {
    Object.assign(this, { readyState: 4, status, responseText: text });
    this.onreadystatechange();
  };
  return { made, Xhr };
}

for (const script of ['../everpoll.js', '../dist/everpoll.min.js']) {
  const named = (name, run) => test(`${script.replace('../', '')}: ${name}`, run);

  named('starts after the load event, not before', () => {
    const { made, Xhr } = xhrs();
    const it = page(script, { XMLHttpRequest: Xhr });
    it.window.document.readyState = 'interactive';
    it.run("events = new Everpoll('cheese')");
    it.pass(1000);
    assert.equal(made.length, 0);
    it.fire('onload');
    assert.equal(made.length, 0, 'and not within it');
    it.pass(0);
    assert.equal(made.length, 1);
    assert.match(made[0].url, /^\/e\/cheese\/[^/?]+\?last_event_id=now&envelope=1&tab=/);
  });

  named('stopped before it began, it does not begin', () => {
    const { made, Xhr } = xhrs();
    const it = page(script, { XMLHttpRequest: Xhr });
    it.run("events = new Everpoll('cheese'); events.stop()");
    it.pass(1000);
    assert.equal(made.length, 0);
  });

  named('aborts when an old page unloads, and does not ask again', () => {
    const { made, Xhr } = xhrs();
    const it = page(script, { XMLHttpRequest: Xhr });
    it.run("events = new Everpoll('cheese')");
    it.pass(0);
    made[0].answer(200, envelope(10));
    assert.equal(made.length, 2);
    it.fire('onunload');
    assert.ok(made[1].aborted);
    it.pass(100000);
    assert.equal(made.length, 2);
  });

  named('works without JSON, storage, and anything else', () => {
    const { made, Xhr } = xhrs();
    const it = page(script, { XMLHttpRequest: Xhr });
    it.run("JSON = undefined; seen = []; events = new Everpoll('cheese').on('made', function (data, event) { seen.push(event.id); })");
    it.pass(0);
    made[0].answer(200, envelope(10));
    made[1].answer(200, envelope(12, [11, 12]));
    assert.equal(it.run('seen.join()'), '11,12');
    assert.match(made[2].url, /last_event_id=12/);
  });

  named('uses CORS for another origin, without headers, and cookies only when told', () => {
    for (const credentials of [false, true]) {
      const { made, Xhr } = xhrs({ cors: true });
      const it = page(script, { XMLHttpRequest: Xhr });
      it.run(`events = new Everpoll('cheese', { url: 'https://events.example/e', credentials: ${credentials} })`);
      it.pass(0);
      assert.match(made[0].url, /^https:\/\/events\.example\/e\/cheese\//);
      assert.equal(made[0].withCredentials, credentials);
      assert.doesNotMatch(made[0].url, /ct=text/);
    }
  });

  named('uses XDomainRequest where there is no CORS: in text, with all handlers, and held by the page', () => {
    const { made, Xhr } = xhrs();
    const asked = [];
    function Xdr() { asked.push(this); }
    Xdr.prototype.open = function (method, url) { this.url = url; };
    Xdr.prototype.send = function () { this.sent = true; };
    Xdr.prototype.abort = function () { this.aborted = true; };
    const it = page(script, { XMLHttpRequest: Xhr, XDomainRequest: Xdr });
    it.run("seen = []; events = new Everpoll('cheese', { url: 'http://events.example/e' }).on('made', function (data, event) { seen.push(event.id); })");
    it.pass(0);
    assert.equal(made.length, 1, 'asked for CORS only');
    assert.equal(made[0].url, undefined);
    assert.match(asked[0].url, /^http:\/\/events\.example\/e\/cheese\/.*&envelope=1&.*&ct=text$/);
    for (const handler of ['onload', 'onerror', 'ontimeout', 'onprogress']) {
      assert.equal(typeof asked[0][handler], 'function');
      assert.doesNotMatch(asked[0][handler].toString(), /\{\s*\}$/, 'is not empty');
    }
    assert.ok(asked[0].timeout > 60000);
    assert.ok(Object.values(it.window).includes(asked[0]), 'the page holds it');
    asked[0].responseText = envelope(10);
    asked[0].onload();
    asked[0].onload();
    assert.equal(asked.length, 2);
    assert.ok(!Object.values(it.window).includes(asked[0]), 'and lets it go');
    asked[1].responseText = envelope(11, [11]);
    asked[1].onload();
    assert.equal(it.run('seen.join()'), '11');
    asked[2].onerror();
    it.pass(1000);
    assert.equal(asked.length, 4);
    it.run('events.stop()');
    assert.ok(asked[3].aborted);
  });

  named('uses script tags only where they are allowed, one at a time, and lets late ones come', () => {
    for (const jsonp of [false, true]) {
      const { made, Xhr } = xhrs();
      const it = page(script, { XMLHttpRequest: Xhr });
      it.run(`JSON = undefined; seen = []; events = new Everpoll('cheese', { url: 'http://events.example/e', jsonp: ${jsonp} }).on('made', function (data, event) { seen.push(event.id); })`);
      it.pass(0);
      const { scripts } = it.window.document;
      if (!jsonp) {
        assert.equal(scripts.length, 0);
        assert.equal(made.length, 1);
        continue;
      }
      const name = (tag) => /&cb=([A-Za-z0-9_.]{1,64})$/.exec(tag.src)[1];
      const tags = () => scripts.filter((tag) => tag.parentNode).length;
      assert.match(scripts[0].src, /^http:\/\/events\.example\/e\/cheese\//);
      assert.ok(scripts[0].src.length < 2000);
      it.run(`${name(scripts[0])}(${envelope(10)})`);
      assert.deepEqual([scripts.length, tags()], [2, 1]);
      it.run(`${name(scripts[1])}(${envelope(11, [11])})`);
      assert.equal(it.run('seen.join()'), '11');
      assert.doesNotMatch(scripts[2].src, /pad=/);
      it.run('events.stop()');
      assert.equal(tags(), 0);
      it.run(`${name(scripts[2])}(${envelope(12, [12])})`);
      assert.equal(it.run('seen.join()'), '11', 'what comes late is ignored');
      it.run('events.start()');
      it.run(`${name(scripts[3])}({"title":"x","status":403,"code":"token_expired","detail":"y"})`);
      assert.equal(it.run('events.state'), 'stopped');
    }
  });

  named('opens an EventSource with what it may have, and a WebSocket at a whole address', () => {
    const opened = [];
    class Stream {
      constructor(url, options) { opened.push({ url, options, stream: this }); }
      close() { this.closed = true; }
    }
    const { made, Xhr } = xhrs();
    const it = page(script, { XMLHttpRequest: Xhr, EventSource: Stream, WebSocket: Stream });
    it.window.document.createElement = () => ({
      set href(url) { this.whole = new URL(url, 'http://shop.example/').href; },
      get href() { return this.whole; },
    });
    it.run("a = new Everpoll('cheese', { transport: 'eventsource', credentials: true })");
    it.run("b = new Everpoll('cheese', { transport: 'websocket' })");
    it.pass(0);
    made[0].answer(200, envelope(10));
    made[1].answer(200, envelope(10));
    assert.match(opened[0].url, /^\/e\/cheese\/.*flavor=eventsource/);
    assert.equal(opened[0].options.withCredentials, true);
    assert.match(opened[1].url, /^ws:\/\/shop\.example\/e\/cheese\/.*flavor=websocket/);
    opened[1].stream.onclose({ reason: 'reconnect_in=3' });
    assert.ok(opened[1].stream.closed);
    opened[0].stream.onerror({});
    assert.ok(opened[0].stream.closed, 'it must not come back by itself');
  });
}
