/* Everpoll in the page: brings each event of some channels to the page exactly once, in any browser from Internet
   Explorer 6 on, through any proxy.

       var events = new Everpoll('cheese');
       events.on('cheese_created', function (data, event) { ... });

   What a newcomer gets wrong:
   - This file is ES3 and ASCII, and must stay so: old browsers refuse all of it for one trailing comma. Names that
     begin with _ are private and shortened in dist/; what is sent between tabs or stored must not begin with _.
   - The cursor is the only truth. It moves only when a whole reply was understood, so whatever goes wrong on the way
     (a cut, a captive portal, a closed tab) the next request asks for the same events again, and what came twice is
     known by its id.
   - Timers of hidden tabs fire once a minute. So what must go on at once is called, not timed. */
var Everpoll = (function () {
  /* Milliseconds, unless a name or a comment says otherwise. */
  var CUT = 10000, GRACE = 10000, TICK = 5000, DAY = 864e5, SLEPT = 75000;
  /* How a hold is asked for, from the best to the last resort; the numbers are kept in storage. */
  var PLAIN = 0, PADDED = 1, SHORTENED = 2, SHORT = 3;
  /* A probe of the server: an answer at once from a fallback, and nearly at once from a daemon, which then tells a
     delay of 0, as after any hold that ended. Seconds. */
  var QUICK = 0.1;
  /* The beat asked of streams, seconds: what is silent for 2.5 of them is mute. */
  var BEAT = 5;
  var ALONE = 0, FOLLOWER = 1, LEADER = 2;

  function noop() {}

  function each(list, call) {
    for (var i = 0; i < list.length; i++) call(list[i]);
  }

  function has(list, value) {
    for (var i = 0; i < list.length; i++) if (list[i] === value) return true;
    return false;
  }

  /* ---- Decisions: pure functions, without clock, network or page ---- */

  /* Whether event id `a` comes after cursor `b`. Ids are decimal text, since they outgrow 2^53. Before the first
     reply a cursor may be `now` or `rt-...`; the server chose what comes after those. */
  function above(a, b) {
    return !numeric(b) || (a.length === b.length ? a > b : a.length > b.length);
  }

  function numeric(cursor) {
    return /^\d+$/.test(cursor);
  }

  /* Milliseconds until the next try after `failures` in a row: 1, 2, 4 ... 60 s, less up to a quarter. */
  function backoff(failures, random) {
    return Math.round(Math.min(60000, 500 * Math.pow(2, failures)) * (1 - random / 4));
  }

  /* What a failure means: 'stop' will not go away, 'cut' is a hold that lasted too long for somebody on the way, 'fail'
     is all else. Told apart by time, since proxies cut with 408, 502, 503, 504 or no answer at all. `code` is that of
     Everpoll's own error, if it was one: a 404 of anybody else may be a deployment under way. */
  function verdict(status, elapsed, code) {
    if (status === 403 || status === 410 ||
        (code && status >= 400 && status < 500 && status !== 408 && status !== 429)) return 'stop';
    if (!code && (elapsed >= CUT || status === 504 || status === 408 || status === 12002)) return 'cut';
    return 'fail';
  }

  /* What is known about holds on this path. m: the kind of hold; h: its seconds; b: beat of padded ones, seconds; c: the
     last cut, ms; q: it came within 5 s; x: the longest padded hold, seconds, 0 when none was cut; k: clean holds in a
     row; n: how many it takes to try a better kind; p, o: kind and seconds to return to if that fails, or -1. */
  function fresh() {
    return { m: PLAIN, h: 0, b: 0, c: 0, q: 0, x: 0, k: 0, n: 20, p: -1, o: 0 };
  }

  /* What to ask for, in seconds; `hold` 0 is none, `beat` 0 is unpadded. `wanted` and `longest`: seconds of a plain and
     of a padded hold. */
  function plan(fit, wanted, longest) {
    return fit.m === PADDED ? { hold: Math.min(fit.h, longest), beat: fit.b } :
      { hold: fit.m === PLAIN ? wanted : fit.m === SHORT ? 0 : Math.min(fit.h, wanted), beat: 0 };
  }

  /* The knowledge after a hold that was cut after `cut` ms, or that was clean (0). */
  function learn(old, cut, wanted, longest, pads) {
    var fit = {}, key, quick;
    for (key in old) fit[key] = old[key];
    if (!cut) {
      fit.k++;
      fit.q = 0;
      if (fit.p >= 0) {
        fit.p = -1;
        fit.k = 0;
      }
      if (fit.m === PADDED) fit.h = Math.min(fit.h * 1.25, fit.x || longest, longest);
      if (fit.m && fit.k >= fit.n) {
        fit.p = fit.m;
        fit.o = fit.h;
        fit.k = 0;
        if (fit.m === SHORT && pads) {
          fit.m = PADDED;
          fit.h = Math.min(25, longest);
          fit.b = 1;
        } else if (fit.m === PADDED) {
          fit.m = PLAIN;
        } else {
          fit.m = SHORTENED;
          fit.h = Math.max(1, fit.h * 1.25);
          if (fit.h >= wanted) fit.m = PLAIN;
        }
      }
      return fit;
    }
    quick = cut < 5000 ? 1 : 0;
    fit.k = 0;
    if (fit.p >= 0) {
      fit.m = fit.p;
      fit.h = fit.o;
      fit.p = -1;
      fit.n = Math.min(fit.n * 2, 640);
    } else if (quick && fit.q) {
      fit.m = SHORT;
      fit.h = 0;
    } else if (fit.m === PLAIN && pads) {
      fit.m = PADDED;
      fit.h = Math.min(25, longest);
      fit.b = Math.max(1, Math.min(10, Math.floor(cut / 2500)));
    } else if (fit.m === PADDED && cut > 1.5 * fit.c) {
      /* Padding helps, but somebody counts the whole time. */
      fit.h = fit.x = cut / 1250;
    } else {
      fit.m = SHORTENED;
      fit.h = Math.max(1, cut / 1250);
    }
    fit.c = cut;
    fit.q = quick;
    return fit;
  }

  /* ---- Reading ---- */

  /* Puts ids of more than 15 digits, at nesting `level` only, into quotes: as numbers they would be rounded. */
  function keepIds(text, level) {
    var depth = 0;
    return !/"id":\d{16}/.test(text) ? text :
      text.replace(/("id":)(\d{16,})|"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]/g, function (token, key, digits) {
        if (key && depth === level) return key + '"' + digits + '"';
        if (token === '[' || token === '{') depth++;
        if (token === ']' || token === '}') depth--;
        return token;
      });
  }

  function parse(text) {
    if (typeof JSON !== 'undefined' && JSON.parse) return JSON.parse(text);
    /* Outside of strings only what cannot run: literals, numbers, punctuation. */
    if (/[^\s\[\]{}:,]/.test(text.replace(/"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"/g, '')
      .replace(/true|false|null|-?\d+(\.\d+)?([eE][-+]?\d+)?/g, ''))) throw new Error('no JSON');
    return new Function('return ' + text)();
  }

  /* The JSON of a reply, or null when it is not whole. Some proxies append a comment, and some servers begin with a
     mark of byte order. */
  function read(text) {
    var body = String(text).replace(/^[\ufeff\s]+|[\s\x00]+$/g, ''), list = body.charAt(0) === '[', end;
    if (!list && body.charAt(0) !== '{') return null;
    try {
      return parse(keepIds(body, list ? 2 : /^\{"events"/.test(body) ? 3 : 1));
    } catch (broken) {
      end = list ? body.lastIndexOf(']') + 1 : body.lastIndexOf('"end":1}') + 8;
      if (end < 8 && !list || end === body.length || !end) return null;
      try {
        return parse(keepIds(body.slice(0, end), list ? 2 : 3));
      } catch (cut) {
        return null;
      }
    }
  }

  /* An event as handlers get it, from a record of a poll or of an EventSource, or from a WebSocket's frame, which has
     no object around type and data. */
  function toEvent(record) {
    var inner = record.type === undefined ? record.data || {} : record;
    return { id: String(record.id), channel: record.channel_id, type: String(inner.type), data: inner.data,
      ts: record.ts };
  }

  /* ---- The core: everything but the browser ---- */

  /* `env` has the network, timers, clock and randomness; what it does not have comes from the host. */
  function Core(channels, options, env) {
    var self = this, key, host = hostEnv();
    self.options = options = options || {};
    self.channels = typeof channels === 'string' ? channels.split(',') : channels.slice(0);
    self.state = 'stopped';
    self.transport = options.transport === 'short-poll' ? 'short-poll' : 'long-poll';
    env = env || {};
    for (key in host) if (env[key] === undefined) env[key] = host[key];
    self._env = env;
    self._handlers = {};
    self._urls = typeof options.url === 'string' ? [options.url] : options.url || ['/e'];
    self._tab = self._key();
    self._n = 0;
    self._waitId = options.waitId || self._ownWaitId();
    self._stored = 'everpoll:cursor:' + self._urls[0] + ':' + self.channels;
    self.cursor = String(options.keep && env.session.get(self._stored) || options.cursor || 'now');
  }

  var proto = Core.prototype;

  proto.on = function (type, call) {
    var calls = this._handlers;
    type = ' ' + type;
    (calls[type] = calls[type] || []).push(call);
    return this;
  };

  proto.off = function (type, call) {
    var kept = [];
    type = ' ' + type;
    each(this._handlers[type] || [], function (other) {
      if (call && other !== call) kept.push(other);
    });
    this._handlers[type] = kept;
    return this;
  };

  proto.start = function () {
    var self = this;
    if (self._on) return self;
    self._on = true;
    self._fails = self._dogs = self._tried = self._ep = self._firstAt = self._rtt = self._strikes = 0;
    self._streamAt = self._want = self._heard = self._asks = self._solo = 0;
    self._cut = self._target = self._covered = self._timer = null;
    self._instants = [];
    self._serverHold = 0;
    self._members = {};
    self._role = ALONE;
    self._fit = self._recall();
    self._set('connecting');
    self._last = self._env.now();
    self._tick();
    if (self._on) self._join();
    return self;
  };

  proto.stop = function () {
    this._leave();
    this._set('stopped');
    return this;
  };

  /* Ends all that runs, without a word to the page. */
  proto._leave = function () {
    if (!this._on) return;
    this._on = false;
    this._drop();
    this._env.cancel(this._ticker);
    this._part();
  };

  /* A random name. */
  proto._key = function () {
    var random = this._env.random;
    return random().toString(36).slice(2, 12) + random().toString(36).slice(2, 12);
  };

  /* One name for all tabs that share a connection; a page that shares nothing stands for itself. */
  proto._ownWaitId = function () {
    var store = this._env.store, id = this.options.share === false ? '' : store.get('everpoll:wait');
    if (!id) {
      id = this._key();
      if (this.options.share !== false) store.set('everpoll:wait', id);
    }
    return id;
  };

  proto._set = function (state, detail) {
    if (this.state === state) return;
    this.state = state;
    if (this._role === LEADER) this._tell(this.cursor, this.cursor, []);
    this._emit('state', [state, detail || {}]);
  };

  /* Calls the handlers of `type`. One that throws stops nobody else, and the page's onerror hears of it. */
  proto._emit = function (type, values) {
    var self = this, env = self._env, $ = self.options.jQuery;
    function guarded(call) {
      try {
        call();
      } catch (error) {
        env.later(function () {
          throw error;
        }, 0);
      }
    }
    each((self._handlers[' ' + type] || []).slice(0), function (call) {
      guarded(function () {
        call.apply(self, values);
      });
    });
    if ($ === undefined) $ = env.jQuery && env.jQuery();
    if ($) {
      guarded(function () {
        /* Not trigger(), which would call a method of the same name: an event of type "stop" stops nothing. */
        $(self).triggerHandler(type, values);
      });
    }
  };

  /* ---- Requests ---- */

  /* The next poll in `delay` ms. None is sent from within a send: a browser that answers from its cache at once would
     pile up calls. */
  proto._schedule = function (delay) {
    var self = this, env = self._env;
    env.cancel(self._timer);
    if (delay > 0 || self._sending) {
      self._timer = env.later(function () {
        self._poll();
      }, Math.max(0, delay));
    } else {
      self._poll();
    }
  };

  /* Forgets the request or stream under way. */
  proto._drop = function () {
    var gone = this._req || this._stream;
    this._req = this._stream = null;
    this._env.cancel(this._timer);
    if (gone) {
      this._env.cancel(gone.dog);
      if (gone.end) gone.end();
    }
  };

  /* Whatever was under way may be dead: asks anew, at once. */
  proto._kick = function () {
    if (!this._on) return;
    this._drop();
    this._fails = 0;
    if (this._role === FOLLOWER) {
      this._want = 1;
      this._ask();
    }
    if (this.state === 'live') this._set('connecting');
    this._schedule(0);
  };

  proto._url = function (channels, values) {
    var query = [], key, parameters = this.options.parameters;
    function put(name, value) {
      query.push(encodeURIComponent(name) + '=' + encodeURIComponent(value));
    }
    put('last_event_id', this.cursor);
    put('envelope', 1);
    put('tab', this._tab);
    put('n', ++this._n);
    for (key in values) if (values[key]) put(key, values[key]);
    for (key in parameters) put(key, parameters[key]);
    return this._urls[this._ep] + '/' + encodeChannels(channels) + '/' + encodeURIComponent(this._waitId) + '?' +
      query.join('&');
  };

  function encodeChannels(channels) {
    var names = [];
    each(channels, function (name) {
      names.push(encodeURIComponent(name));
    });
    return names.join(',');
  }

  /* Seconds of a plain hold, and of a padded one. */
  proto._wanted = function () {
    return Math.min(this.options.hold || 25, this._serverHold || 25);
  };

  proto._longest = function () {
    return this.options.hold || 120;
  };

  proto._poll = function () {
    var self = this, env = self._env, now = env.now(), req, values = {}, hold, chosen, wait, follows;
    if (!self._on || self._req || self._stream) return;
    follows = self._role === FOLLOWER;
    if (follows && !self._behind()) return;
    if (self._ep && now >= self._firstAt) {
      /* Back to the first endpoint, by a short question: it may be up again. */
      self._ep = 0;
      self._trial = true;
      self._firstAt = now + 30000;
    } else {
      self._trial = false;
    }
    chosen = plan(self._fit, self._wanted(), self._longest());
    req = self._req = { c: self.cursor, ch: self._union(), at: now, ep: self._ep };
    /* Until the server has answered, nobody knows whether it will: so it is not let wait. */
    req.quick = follows || self._trial || self.state !== 'live';
    req.brief = follows || !chosen.hold || self.options.transport === 'short-poll';
    hold = req.hold = req.brief ? 0 : req.quick ? QUICK : chosen.hold;
    if (req.brief) values.flavor = 'short-poll';
    else values.hold = Math.round(hold * 100) / 100;
    if (!req.brief && !req.quick && chosen.beat) {
      values.pad = 4096;
      values.beat = chosen.beat;
      req.pad = true;
    }
    if (!follows) self.transport = req.brief ? 'short-poll' : chosen.beat ? 'padded' : 'long-poll';
    if (self._cut) values.cut = self._cut;
    self._cut = null;
    wait = req.limit = hold * 1000 + Math.max(GRACE, 3 * self._rtt) * Math.pow(2, Math.min(4, self._dogs));
    /* Some browsers and proxies never say that a request is dead. */
    req.dog = env.later(function () {
      if (req === self._req) self._answered(req, 'dog', '', noop);
    }, wait);
    self._sending = true;
    try {
      req.end = env.send(self._url(req.ch, values), function (status, text, header) {
        if (req === self._req) self._answered(req, status, text, header);
      }, self.options);
    } catch (error) {
      if (req === self._req) self._answered(req, 0, '', noop);
    }
    self._sending = false;
  };

  proto._answered = function (req, status, text, header) {
    var self = this, env = self._env, elapsed = Math.max(0, env.now() - req.at), body;
    self._req = null;
    env.cancel(req.dog);
    if (status === 'dog' && req.end) req.end();
    /* The machine slept: neither the time nor the failure says anything. */
    if (elapsed > req.limit + 15000) return self._kick();
    body = read(text);
    if ((status >= 200 && status < 300 || status === 1223) && body && (body.end || body instanceof Array)) {
      self._success(req, body, elapsed, header);
    } else {
      self._failure(req, status, body && body.code ? body : null, elapsed, text, header);
    }
  };

  proto._success = function (req, body, elapsed, header) {
    var self = this, plain = body instanceof Array, records = plain ? body : body.events, told, brief, cursor,
      events = [], full, moved;
    each(records, function (record) {
      events.push(toEvent(record));
    });
    cursor = plain ? header('x-ps-cursor') || (events.length ? events[events.length - 1].id : req.c) : String(body.cursor);
    told = plain ? parseInt(header('x-ps-reconnect-in'), 10) : body.reconnect_in;
    if (!(told >= 0)) told = events.length || elapsed >= CUT ? 0 : 5;
    brief = plain ? header('x-shortpoll-info') === 'true' || told > 0 : !!body.short_poll;
    if (body.hold) self._serverHold = body.hold;
    full = !events.length && (req.brief || !brief && !req.quick && elapsed >= 800 * req.hold);
    if (brief || req.brief) self._rtt = elapsed;
    else if (full || req.quick) self._rtt = Math.max(0, elapsed - 1000 * req.hold);
    if (full && !self._trial && !(req.brief && self._fit.m !== SHORT)) self._learned(0);
    self._fails = self._dogs = self._tried = self._want = 0;
    moved = events.length || cursor !== req.c;
    self._take(req.ch, req.c, cursor, events);
    if (!self._on || self._req || self._stream) return;
    if (self._role === FOLLOWER) {
      /* Behind the leader still: more is waiting. Otherwise the leader's batches do. */
      if (self._behind()) self._schedule(told * 1000);
      return;
    }
    self._set(brief || req.brief ? 'polling' : 'live');
    if (!self._on || self._req || self._stream) return;
    if (!brief && !req.brief && self._opens()) self._open();
    else self._schedule(!told && !moved && elapsed < 1000 && !self._instant() ? backoff(1, self._env.random()) :
      told * 1000);
  };

  proto._failure = function (req, status, problem, elapsed, text, header) {
    var self = this, env = self._env, dog = status === 'dog', holds = !req.quick && !req.brief, what, told, delay, cut;
    if (dog) {
      status = 0;
      self._dogs++;
    }
    if (problem && problem.status) status = problem.status;
    what = verdict(status, elapsed, problem && problem.code);
    if (what === 'stop') return self._refused(status, problem);
    cut = what === 'cut' || dog;
    /* What began to be an answer was cut by something else than impatience. */
    if (!problem && holds && !/^\s*[\[{]/.test(text) && (cut ? elapsed >= 1000 : elapsed >= 1500 + 3 * self._rtt)) {
      if (cut) self._cut = elapsed + '.' + status;
      self._learned(elapsed);
    }
    told = problem ? problem.reconnect_in : parseInt(header('x-ps-reconnect-in'), 10);
    self._fails++;
    delay = told > 0 ? told * 1000 : backoff(self._fails, env.random());
    if (cut && holds) {
      /* Nobody's fault, and nothing is down. */
      if (self._instant()) {
        self._fails = 0;
        delay = 0;
      }
    } else if (self._trial || self._tried < self._urls.length - 1) {
      if (!self._trial) self._tried++;
      if (!req.ep) self._firstAt = env.now() + Math.max(30000, told > 0 ? told * 1000 : 0);
      self._ep = self._trial ? 1 : (req.ep + 1) % self._urls.length;
      if (self._instant()) delay = 0;
    } else {
      self._tried = 0;
      if (self._urls.length > 1) self._ep = 0;
      /* A kept connection that died unnoticed; or a time-out of somebody between. */
      if (!(told > 0) && (cut || self._fails === 1 && (!status || status > 12000)) && self._instant()) delay = 0;
    }
    if (delay && self._role !== FOLLOWER) self._set('down', { status: status, retryIn: delay });
    if (self._on && !self._req) self._schedule(delay);
  };

  /* Whether one more request may go out at once: not more than 3 in 10 s, whatever a broken proxy answers. */
  proto._instant = function () {
    var now = this._env.now(), list = this._instants;
    while (list.length && !(now - list[0] < 10000 && now >= list[0])) list.shift();
    return list.length < 3 && !!list.push(now);
  };

  proto._refused = function (status, problem) {
    if (this._role === LEADER && this._union().length > this.channels.length && !this._solo) {
      /* It may be another tab's channel that is forbidden: let each ask for its own. */
      this._solo = 1;
      this._members = {};
      this._post({ k: 'alone' });
      return this._schedule(backoff(1, this._env.random()));
    }
    this._leave();
    this._set('stopped', { status: status, code: problem && problem.code, message: problem && problem.detail });
  };

  proto._learned = function (cut) {
    var fit = this._fit = learn(this._fit, cut, this._wanted(), this._longest(), !this.options.jsonp), text = '', key;
    for (key in fit) if (/^[a-z]$/.test(key)) text += key + fit[key] + ' ';
    this._env.store.set('everpoll:fit:' + this._urls[0], this._env.now() + ' ' + text);
  };

  /* What was learned on this path within the last day. */
  proto._recall = function () {
    var fit = fresh(), kept = String(this._env.store.get('everpoll:fit:' + this._urls[0]) || ''),
      age = this._env.now() - parseInt(kept, 10);
    if (age >= 0 && age < DAY) {
      kept.replace(/([a-z])(-?[\d.]+)/g, function (all, key, value) {
        fit[key] = +value;
      });
    }
    return fit;
  };

  /* ---- Events ---- */

  /* A batch that was read for `channels` from `after` on, and ends at `cursor`. */
  proto._take = function (channels, after, cursor, events) {
    if (this._role === LEADER) this._tell(after, cursor, events, channels, 1);
    this._apply(cursor, events);
  };

  proto._apply = function (cursor, events) {
    var self = this, i, event, gap;
    for (i = 0; i < events.length && self._on; i++) {
      event = events[i];
      gap = event.type === 'everpoll:gap';
      /* `ahead`: this log is another one, and its ids begin lower. */
      if (above(event.id, self.cursor) || gap && event.data.reason === 'ahead') {
        if (gap && !above(event.id, self.cursor)) self._target = null;
        self.cursor = event.id;
        if (gap) {
          self._emit('gap', [event.data, event]);
        } else if (has(self.channels, event.channel)) {
          if (!has(['*', 'state', 'gap'], event.type)) self._emit(event.type, [event.data, event]);
          self._emit('*', [event.data, event]);
        }
      }
    }
    if (self._on && numeric(cursor) && above(cursor, self.cursor)) self.cursor = cursor;
    if (self.options.keep) self._env.session.set(self._stored, self.cursor);
  };

  /* ---- Streams: better than polls where they work, and left where they do not ---- */

  proto._streamKey = function () {
    return 'everpoll:no-' + this.options.transport + ':' + this._urls[this._ep];
  };

  proto._opens = function () {
    var kind = this.options.transport, env = this._env, now = env.now();
    return (kind === 'eventsource' || kind === 'websocket') && now >= this._streamAt && env.open && env.opens(kind) &&
      !(now - env.store.get(this._streamKey()) < DAY);
  };

  proto._open = function () {
    var self = this, env = self._env, kind = self.options.transport, stream = { at: env.now(), ch: self._union() };
    self._stream = stream;
    function mine(call) {
      return function (a, b) {
        if (stream === self._stream) call(a, b);
      };
    }
    /* Until the first word: some proxies open a stream and never pass on a byte. */
    self._watch(stream, 4000 + 3 * self._rtt);
    stream.end = env.open(kind, self._url(stream.ch, { flavor: kind, beat: BEAT }), mine(function (text) {
      self._heardFrom(stream, text);
    }), mine(function (reason) {
      var told = /reconnect_in=(\d+)/.exec(reason || ''), lived = env.now() - stream.at;
      self._close(told ? told[1] * 1000 : lived < CUT ? backoff(1, env.random()) : 0, !told && lived < CUT);
    }), self.options);
  };

  proto._watch = function (stream, wait) {
    var self = this, env = self._env, since = env.now();
    env.cancel(stream.dog);
    stream.dog = env.later(function () {
      if (stream !== self._stream) return;
      if (env.now() - since > wait + 15000) self._kick();
      else self._close(0, true);
    }, wait);
  };

  proto._heardFrom = function (stream, text) {
    var self = this, now = self._env.now(), record = read(text), event, data, sent;
    if (!record) return;
    event = toEvent(record);
    data = event.data || {};
    self._watch(stream, 2500 * BEAT);
    if (event.type === 'everpoll:end') return self._close((data.reconnect_in || 0) * 1000, false);
    if (event.type === 'everpoll:hello' || event.type === 'everpoll:beat') {
      sent = stamp(event.ts);
      /* Sent apart, arrived together: somebody collects what should stream. */
      if (stream.sent && sent - stream.sent > 700 * BEAT && now - stream.heard < 300 * BEAT) return self._close(0, true);
      stream.sent = sent;
      stream.heard = now;
      if (event.type === 'everpoll:beat') {
        if (now - stream.at > 60000) self._strikes = 0;
        self._take(stream.ch, self.cursor, String(data.cursor), []);
      }
      self.transport = self.options.transport;
      self._set('live');
    } else if (!/^everpoll:/.test(event.type) || event.type === 'everpoll:gap') {
      self._take(stream.ch, self.cursor, event.id, [event]);
    }
  };

  /* Milliseconds of an event's time; the Date of old browsers does not read that form. */
  function stamp(ts) {
    var part = /(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)(\.\d+)?/.exec(ts) || [];
    return Date.UTC(part[1], part[2] - 1, part[3], part[4], part[5], part[6]) + 1000 * (part[7] || 0);
  }

  /* Back to polls, from the same cursor. Three strikes, and streams are left alone on this path for a day. */
  proto._close = function (delay, strike) {
    var env = this._env;
    this._drop();
    if (strike) {
      this._strikes++;
      this._streamAt = env.now() + 30000 * this._strikes;
      if (this._strikes >= 3) env.store.set(this._streamKey(), String(env.now()));
    }
    this.transport = 'long-poll';
    if (this.state === 'live') this._set('connecting');
    if (this._on && !this._req) this._schedule(delay || this._instant() ? delay : backoff(1, env.random()));
  };

  /* ---- One held request for all tabs: a leader polls for the channels of all, and tells its batches ---- */

  /* Messages: `ask` {ch}: a follower's channels; `at` {ch, a, c, e, s, t, r}: the leader reads ch, these are the events
     from a to c, it is in state s by transport t, r when a reply has just said so; `bye`: the leader is gone;
     `alone` {to}: poll for yourself. f is the sender. */
  proto._join = function () {
    var self = this, env = self._env, options = self.options, name, key, i, hash = 0;
    self._role = ALONE;
    if (options.share === false || !env.bus || !env.lock) return self._schedule(0);
    name = self._urls + '|' + self._waitId;
    for (key in options.parameters) name += '|' + key + '=' + options.parameters[key];
    for (i = 0; i < name.length; i++) hash = (hash * 31 + name.charCodeAt(i)) % 0x1fffffffffff;
    self._group = 'everpoll:' + hash.toString(36);
    self._bus = env.bus(self._group, function (message) {
      if (self._on && self._bus && message.f !== self._tab) self._message(message);
    });
    if (!self._bus) return self._schedule(0);
    self._role = FOLLOWER;
    self._ask();
    self._seek(false);
    /* Whoever gets neither the lead nor an answer in this time follows for now, and asks for its own cursor. */
    self._timer = env.later(function () {
      self._poll();
    }, 200);
  };

  proto._seek = function (steal) {
    var self = this, release = self._release, turn = self._turn = {};
    self._release = null;
    if (release) release();
    self._release = self._env.lock(self._group, steal, function () {
      if (!self._on || turn !== self._turn || self._role === LEADER) return;
      self._role = LEADER;
      self._members = {};
      self._drop();
      self._tell(self.cursor, self.cursor, []);
      self._schedule(0);
    }, function () {
      if (self._on && turn === self._turn && self._role === LEADER) self._yield();
    });
  };

  /* Another tab leads. */
  proto._yield = function () {
    this._role = FOLLOWER;
    this._covered = false;
    this._drop();
    this._seek(false);
    this._ask();
  };

  /* Leaves the group, and tells. */
  proto._part = function () {
    var release = this._release;
    if (this._role === LEADER) this._post({ k: 'bye' });
    this._turn = this._release = null;
    if (release) release();
    if (this._bus) this._bus.close();
    this._bus = null;
    this._role = ALONE;
  };

  proto._post = function (message) {
    message.f = this._tab;
    if (this._bus) this._bus.post(message);
  };

  proto._ask = function () {
    this._asks++;
    this._post({ k: 'ask', ch: this.channels });
  };

  proto._tell = function (after, cursor, events, channels, replied) {
    /* Who begins elsewhere than at an id has to find its own way to here. */
    var known = numeric(after);
    this._post({ k: 'at', ch: channels || (this._req || this._stream || { ch: this._union() }).ch,
      a: known ? after : cursor, c: cursor, e: known ? events : [], s: this.state, t: this.transport, r: replied || 0 });
  };

  /* The channels of all tabs, this one's first. */
  proto._union = function () {
    var all = this.channels.slice(0), key;
    if (this._role === LEADER) {
      for (key in this._members) {
        each(this._members[key].ch, function (name) {
          if (!has(all, name)) all.push(name);
        });
      }
    }
    return all;
  };

  proto._behind = function () {
    return !numeric(this.cursor) || !!this._want || !!this._target && above(this._target, this.cursor);
  };

  proto._message = function (message) {
    var self = this, role = self._role, kind = message.k;
    if (role === LEADER) {
      if (kind === 'ask') self._asked(message);
      /* Two lead for a moment, where tabs cannot lock: the one with the lesser name goes on. */
      else if (kind === 'at' && !self._env.locks) {
        if (message.f < self._tab) self._yield();
        else self._tell(self.cursor, self.cursor, []);
      }
    } else if (role === FOLLOWER) {
      if (kind === 'at') self._follow(message);
      else if (kind === 'bye') {
        self._covered = false;
        if (!self._env.locks) self._seek(false);
        self._ask();
      } else if (kind === 'alone' && (!message.to || message.to === self._tab)) {
        self._part();
        self._drop();
        self._schedule(0);
      }
    }
  };

  /* A follower asks: its channels are polled from now on. */
  proto._asked = function (message) {
    var self = this, before = self._union(), all;
    self._members[message.f] = { ch: message.ch, at: self._env.now() };
    all = self._union();
    if (self._solo || all.length > 64 || encodeChannels(all).length > 1500) {
      delete self._members[message.f];
      return self._post({ k: 'alone', to: message.f });
    }
    if (all.length > before.length && (self._req || self._stream)) {
      self._drop();
      self._schedule(0);
    }
    self._tell(self.cursor, self.cursor, []);
  };

  proto._follow = function (message) {
    var self = this, covered = true, gap = false, started = self.cursor;
    self._heard = self._env.now();
    self._asks = 0;
    each(self.channels, function (name) {
      if (!has(message.ch, name)) covered = false;
    });
    self._covered = covered;
    if (!covered || !numeric(message.c)) return;
    self.transport = message.t;
    each(message.e, function (event) {
      if (event.type === 'everpoll:gap') gap = true;
    });
    if (above(message.a, self.cursor) || !numeric(self.cursor)) {
      self._target = message.c;
    } else if (gap ? message.a !== self.cursor : message.r && above(self.cursor, message.c)) {
      /* The leader is behind: it has just begun, or its log was replaced. The server knows. */
      self._want = 1;
    } else {
      if (self._req) self._drop();
      self._want = 0;
      self._apply(message.c, message.e);
      if (self._on && self._target && !above(self._target, self.cursor)) self._target = null;
    }
    if (!self._on) return;
    if (!self._behind() || started === self.cursor) self._set(message.s);
    if (self._on && !self._req && self._behind()) self._schedule(self._fails ? backoff(self._fails, 0) : 0);
  };

  /* Every few seconds: did the machine sleep, does the leader live? */
  proto._tick = function () {
    var self = this, env = self._env, now = env.now(), key;
    self._ticker = env.later(function () {
      self._tick();
    }, self._role === FOLLOWER && !self._covered || self._asks > 0 ? 1000 : TICK);
    if (now - self._last > SLEPT) self._kick();
    self._last = now;
    if (self._role === LEADER) {
      for (key in self._members) if (now - self._members[key].at > 150000) delete self._members[key];
    } else if (self._role === FOLLOWER && (now - self._heard > TICK || !self._covered)) {
      if (self._asks >= 3) {
        self._asks = 0;
        self._seek(true);
      }
      self._ask();
    }
  };

  /* ---- The host: what a browser, or a script engine without a page, has to offer ---- */

  var root = typeof window !== 'undefined' ? window : {};
  /* Keeps XDomainRequests alive: a browser collects those that nobody holds. */
  var alive = {}, count = 0;

  function newXhr() {
    var made = null;
    if (typeof XMLHttpRequest !== 'undefined') {
      try {
        return new XMLHttpRequest();
      } catch (forbidden) {}
    }
    if (typeof ActiveXObject !== 'undefined') {
      each(['Msxml2.XMLHTTP.6.0', 'Msxml2.XMLHTTP.3.0', 'Microsoft.XMLHTTP'], function (name) {
        try {
          made = made || new ActiveXObject(name);
        } catch (missing) {}
      });
    }
    return made;
  }

  function isCross(url) {
    var host = /^(?:(https?:))?\/\/([^\/?#]*)/i.exec(url), here = root.location;
    return !!(host && here && host[2] && (host[2] !== here.host || host[1] && host[1] !== here.protocol));
  }

  /* GETs `url`, calls done(status, text, header) at most once, and returns a function that gives up. No header is ever
     set: across origins it would cost a preflight, and proxies drop what they do not know. */
  function send(url, done, options) {
    var xhr = newXhr(), ended = false, cross = isCross(url);
    if (cross && !(xhr && 'withCredentials' in xhr) || !xhr) {
      if (typeof XDomainRequest !== 'undefined' && cross) return sendXdr(url + '&ct=text', done);
      if (options.jsonp && root.document) return sendJsonp(url, done);
    }
    function close() {
      ended = true;
      /* Old browsers leak what a handler closes over; null throws. */
      xhr.onreadystatechange = noop;
    }
    xhr.open('GET', url, true);
    if (options.credentials && cross) xhr.withCredentials = true;
    xhr.onreadystatechange = function () {
      var status = 0, text = '', read = xhr;
      if (ended || xhr.readyState !== 4) return;
      close();
      try {
        status = xhr.status;
        text = xhr.responseText;
      } catch (dead) {
        status = 0;
      }
      done(status, text, function (name) {
        try {
          return read.getResponseHeader(name);
        } catch (none) {
          return '';
        }
      });
    };
    xhr.send(null);
    return function () {
      if (ended) return;
      close();
      try {
        xhr.abort();
      } catch (dead) {}
    };
  }

  function sendXdr(url, done) {
    var xdr = new XDomainRequest(), id = ++count;
    function end(status) {
      return function () {
        if (!alive[id]) return;
        delete alive[id];
        done(status, status ? xdr.responseText : '', noop);
      };
    }
    alive[id] = xdr;
    xdr.open('GET', url);
    xdr.onload = end(200);
    xdr.onerror = xdr.ontimeout = end(0);
    /* Without this one, and it must not be empty, IE 9 aborts. */
    xdr.onprogress = function () {
      count += 0;
    };
    xdr.timeout = 600000;
    xdr.send();
    return function () {
      delete alive[id];
      try {
        xdr.abort();
      } catch (dead) {}
    };
  }

  function sendJsonp(url, done) {
    var name = 'everpoll_' + ++count, script = root.document.createElement('script');
    function end() {
      root[name] = noop;
      if (script.parentNode) script.parentNode.removeChild(script);
      /* A script that comes late still finds a function. */
      setTimeout(function () {
        root[name] = undefined;
      }, 300000);
    }
    root[name] = function (body) {
      end();
      done(body && body.status || 200, JSON.stringify(body), noop);
    };
    script.src = url + '&cb=' + name;
    script.onerror = function () {
      end();
      done(0, '', noop);
    };
    root.document.getElementsByTagName('head')[0].appendChild(script);
    return end;
  }

  /* Opens a stream, calls got(text) for each message and ended(reason) once, and returns a function that closes it. */
  function open(kind, url, got, ended, options) {
    var stream, link, socket = kind === 'websocket';
    if (socket) {
      link = root.document && root.document.createElement('a');
      if (link) {
        link.href = url;
        url = link.href;
      }
      stream = new WebSocket(url.replace(/^http/, 'ws'));
    } else {
      stream = new EventSource(url, { withCredentials: !!options.credentials });
    }
    function close() {
      stream.onmessage = stream.onclose = stream.onerror = noop;
      stream.close();
    }
    stream.onmessage = function (message) {
      got(message.data);
    };
    stream[socket ? 'onclose' : 'onerror'] = function (event) {
      close();
      ended(event.reason);
    };
    return close;
  }

  /* Storage that may be missing, full or forbidden. */
  function storage(name) {
    function at(call) {
      try {
        return call(root[name]);
      } catch (forbidden) {
        return null;
      }
    }
    return {
      get: function (key) {
        return at(function (store) {
          return store.getItem(key);
        });
      },
      set: function (key, value) {
        return at(function (store) {
          store.setItem(key, value);
          return true;
        });
      },
      remove: function (key) {
        at(function (store) {
          store.removeItem(key);
        });
      }
    };
  }

  function listen(type, call) {
    if (root.addEventListener) root.addEventListener(type, call, false);
    else if (root.attachEvent) root.attachEvent('on' + type, call);
  }

  /* Messages between tabs; what a page says, its own other subscribers hear, too. */
  function bus(name, receive) {
    var channel;
    if (typeof BroadcastChannel !== 'undefined') {
      channel = new BroadcastChannel(name);
      channel.onmessage = function (event) {
        receive(event.data);
      };
      return {
        post: function (message) {
          channel.postMessage(message);
        },
        close: function () {
          channel.onmessage = null;
          channel.close();
        }
      };
    }
    return null;
  }

  function lock(name, steal, granted, lost) {
    var release = null, given = false;
    navigator.locks.request(name, steal ? { steal: true } : {}, function () {
      if (given) return;
      granted();
      return new Promise(function (resolve) {
        release = resolve;
      });
    }).then(noop, lost);
    return function () {
      given = true;
      if (release) release();
    };
  }

  function hostEnv() {
    var page = root.document, locks = page && typeof navigator !== 'undefined' && navigator.locks;
    return {
      send: send,
      open: open,
      opens: function (kind) {
        return kind === 'websocket' ? typeof WebSocket !== 'undefined' : typeof EventSource !== 'undefined';
      },
      now: function () {
        return new Date().getTime();
      },
      random: Math.random,
      later: function (call, ms) {
        return setTimeout(call, ms);
      },
      cancel: function (timer) {
        clearTimeout(timer);
      },
      store: storage('localStorage'),
      session: storage('sessionStorage'),
      bus: page ? bus : null,
      locks: !!locks,
      lock: locks ? lock : null,
      jQuery: function () {
        return root.jQuery;
      }
    };
  }

  /* ---- The page ---- */

  function Everpoll(channels, options) {
    var self = this, away = false, ready = root.document;
    Core.call(self, channels, options);
    function pause() {
      away = !!self._on;
      self._leave();
    }
    function begin() {
      /* After the load event: until then some browsers show that the page is loading. */
      setTimeout(function () {
        self.start();
      }, 0);
    }
    listen('onpagehide' in root ? 'pagehide' : 'unload', pause);
    listen('pageshow', function (event) {
      if (event.persisted && away) self.start();
    });
    listen('online', function () {
      self._kick();
    });
    if (self.options.start !== false) {
      if (!ready || ready.readyState === 'complete') begin();
      else listen('load', begin);
    }
  }

  function Heir() {}
  Heir.prototype = proto;
  Everpoll.prototype = new Heir();
  Everpoll.prototype.constructor = Everpoll;
  Everpoll.Core = Core;
  Everpoll.env = hostEnv;
  Core.decide = { above: above, backoff: backoff, verdict: verdict, fresh: fresh, plan: plan, learn: learn, read: read };
  return Everpoll;
})();

if (typeof module === 'object' && module.exports) module.exports = Everpoll;
