/* Everpoll in the page: brings each event of some channels to the page exactly once, in any browser from Internet
   Explorer 6 on, through any proxy.

       var events = new Everpoll('cheese');
       events.on('cheese_created', function (data, event) { ... });

   What a newcomer gets wrong:
   - This file is ES3 and ASCII, and must stay so: old browsers refuse all of it for one trailing comma.
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
  var min = Math.min, max = Math.max;

  /* Not empty: IE 9 takes empty handlers of an XDomainRequest for none. */
  function noop() {
    return 0;
  }

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

  /* Milliseconds until the next try after `failures` in a row: 1, 2, 4 ... 60 s, less up to a half, so that
     those whose server died do not come back together. With more chance some would wait for a minute after a second. */
  function backoff(failures, random) {
    return min(60000, 500 << min(7, failures)) * (1 - random / 2) | 0;
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
    return fit.m === PADDED ? { hold: min(fit.h, longest), beat: fit.b } :
      { hold: fit.m === PLAIN ? wanted : fit.m === SHORT ? 0 : min(fit.h, wanted), beat: 0 };
  }

  /* The knowledge after a hold that was cut after `cut` ms, or that was clean (0). */
  function learn(old, cut, wanted, longest, pads) {
    var fit = {}, key, kind = old.m, quick = cut < 5000;
    function be(kind, hold, beat) {
      fit.m = kind;
      fit.h = hold;
      fit.b = beat || fit.b;
    }
    for (key in old) fit[key] = old[key];
    if (!cut) {
      fit.k = fit.p < 0 ? fit.k + 1 : 0;
      fit.p = -1;
      fit.q = 0;
      if (kind === PADDED) fit.h = min(fit.h * 1.25, fit.x || longest, longest);
      if (kind && fit.k >= fit.n) {
        fit.p = kind;
        fit.o = fit.h;
        fit.k = 0;
        if (kind === SHORT && pads) be(PADDED, min(25, longest), 1);
        else if (kind === PADDED || fit.h * 1.25 >= wanted) be(PLAIN, 0);
        else be(SHORTENED, max(1, fit.h * 1.25));
      }
      return fit;
    }
    if (fit.p >= 0) {
      be(fit.p, fit.o);
      fit.p = -1;
      fit.n = min(fit.n * 2, 640);
    } else if (quick && fit.q) be(SHORT, 0);
    else if (kind === PLAIN && pads) be(PADDED, min(25, longest), max(1, min(10, cut / 2500 | 0)));
    /* Padding helps, but somebody counts the whole time. */
    else if (kind === PADDED && cut > 1.5 * fit.c) fit.h = fit.x = cut / 1250;
    else be(SHORTENED, max(1, cut / 1250));
    fit.k = 0;
    fit.c = cut;
    fit.q = +quick;
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
    if (typeof JSON !== 'undefined') return JSON.parse(text);
    /* Outside of strings only what cannot run: literals, numbers, punctuation. */
    if (/[^\s\[\]{}:,]/.test(text.replace(/"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"/g, '')
      .replace(/true|false|null|-?\d+(\.\d+)?([eE][-+]?\d+)?/g, ''))) return null;
    return new Function('return ' + text)();
  }

  /* The JSON of a reply, or null when it is not whole. Some proxies append a comment, and some servers begin with a
     mark of byte order. JSONP brings an object. */
  function read(text) {
    var found = /^[\ufeff\s]*(\[[\s\S]*\]|\{"events"[\s\S]*"end":1\}|\{[\s\S]*\})/.exec(text), body = found && found[1];
    try {
      return typeof text === 'object' ? text :
        parse(keepIds(body, body.charAt(0) === '[' ? 2 : /^\{"events"/.test(body) ? 3 : 1));
    } catch (broken) {
      return null;
    }
  }

  /* An event as handlers get it, from a record of a poll or of an EventSource, or from a WebSocket's frame, which has
     no object around type and data. */
  function toEvent(record) {
    var inner = record.type ? record : record.data || {};
    return { id: '' + record.id, channel: record.channel_id, type: '' + inner.type, data: inner.data,
      ts: record.ts };
  }

  /* ---- The core: everything but the browser ---- */

  /* `env` has the network, timers, clock, storage and the way to other tabs; what it lacks comes from the host. */
  function Core(channels, options, env) {
    var self = this, host = hostEnv(), key, handlers = {}, urls, tab, waitId, keepKey, fitKey, kind;
    /* What runs: whether at all, the request or stream under way, the timers. */
    var on = false, away = false, job = null, sending = false, timer, ticker, lastTick, count = 0;
    /* What is known of the server: whether it just answered; failures in a row; of those, silent ones; endpoints tried
       since the last answer; the endpoint in use; when to try the first again, and the pause between such trials; ms to
       the server and back; its longest hold, seconds; when requests went out at once after a failure; what may
       have been a cut, and what to report of it. */
    var sure, fails, dogs, tried, endpoint, firstAt, firstPause, rtt, serverHold, instants, suspect, cut, fit, strikes, streamAt;
    /* What is known of the other tabs. */
    var role, members, solo, group, line, release, heard, asks, covered, target, want;

    options = options || {};
    env = env || {};
    for (key in host) if (env[key] === undefined) env[key] = host[key];
    urls = [].concat(options.url || '/e');
    /* No name has a comma in it. */
    channels = ('' + channels).split(',');
    kind = options.transport;
    tab = name();
    keepKey = 'everpoll:' + urls[0] + ':' + channels;
    fitKey = 'everpoll:fit:' + urls[0];
    waitId = options.waitId || ownWaitId();
    self.state = 'stopped';
    self.transport = kind === 'short-poll' ? kind : 'long-poll';
    self.cursor = '' + (options.keep && env.session.get(keepKey) || options.cursor || 'now');

    self.on = function (type, call) {
      type = ' ' + type;
      /* Lists are never changed, since one may just be gone through. */
      handlers[type] = (handlers[type] || []).concat(call);
      return self;
    };

    self.off = function (type, call) {
      var kept = [];
      type = ' ' + type;
      each(handlers[type] || [], function (other) {
        if (call && other !== call) kept.push(other);
      });
      handlers[type] = kept;
      return self;
    };

    self.start = function () {
      if (on) return self;
      on = true;
      away = sure = covered = false;
      fails = dogs = tried = endpoint = firstAt = rtt = strikes = streamAt = 0;
      serverHold = 25;
      firstPause = 15000;
      role = solo = heard = asks = want = 0;
      suspect = cut = target = '';
      instants = [];
      fit = recall();
      become('connecting');
      lastTick = env.now();
      tick();
      if (on) join();
      return self;
    };

    self.stop = function () {
      away = false;
      leave();
      become('stopped');
      return self;
    };

    env.page(function () {
      away = on;
      leave();
    }, function () {
      if (away) self.start();
    }, kick);

    /* A random name. */
    function name() {
      return 't' + env.random();
    }

    /* One name for all tabs that share a connection; a page that shares nothing stands for itself. */
    function ownWaitId() {
      var shared = options.share !== false, id = shared && env.store.get('everpoll:wait');
      if (!id) {
        id = name();
        if (shared) env.store.set('everpoll:wait', id);
      }
      return id;
    }

    /* Ends all that runs, without a word to the page. */
    function leave() {
      if (!on) return;
      on = false;
      drop();
      env.cancel(ticker);
      part();
    }

    /* Not `set`: with ECMAScript 5, Wine's engine takes that for a keyword. */
    function become(state, detail) {
      if (self.state === state) return;
      self.state = state;
      if (role === LEADER) tell(self.cursor, self.cursor, []);
      emit('state', [state, detail || {}]);
    }

    /* Calls the handlers of `type`. One that throws stops nobody else, and the page's onerror hears of it. */
    function emit(type, values) {
      var $ = options.jQuery || root.jQuery;
      function guarded(call, owner) {
        try {
          call.apply(owner, values);
        } catch (error) {
          env.later(function () {
            throw error;
          }, 0);
        }
      }
      each(handlers[' ' + type] || [], function (call) {
        guarded(call, self);
      });
      /* Not trigger(), which would call a method of the same name: an event of type "stop" stops nothing. */
      if ($) {
        guarded(function () {
          $(self).triggerHandler(type, values);
        });
      }
    }

    /* ---- Requests ---- */

    /* The next poll in `delay` ms. None is sent from within a send: a browser that answers from its cache at once would
       pile up calls. */
    function schedule(delay) {
      env.cancel(timer);
      if (delay > 0 || sending) timer = env.later(poll, max(0, delay));
      else poll();
    }

    /* Forgets the request or stream under way, and the next one. */
    function drop() {
      var gone = job;
      env.cancel(timer);
      job = timer = null;
      if (gone) {
        env.cancel(gone.dog);
        if (gone.giveUp) gone.giveUp();
      }
    }

    /* Whatever was under way may be dead: asks anew, at once. */
    function kick() {
      if (!on) return;
      drop();
      fails = 0;
      sure = suspect = '';
      if (role === FOLLOWER) {
        want = 1;
        ask();
      }
      schedule(0);
    }

    function makeUrl(list, values) {
      var query = [], key, parameters = options.parameters;
      function put(name, value) {
        query.push(encodeURIComponent(name) + '=' + encodeURIComponent(value));
      }
      put('last_event_id', self.cursor);
      put('envelope', 1);
      put('tab', tab);
      put('n', ++count);
      for (key in values) if (values[key]) put(key, values[key]);
      for (key in parameters) put(key, parameters[key]);
      return urls[endpoint] + '/' + encode(list) + '/' + encodeURIComponent(waitId) + '?' + query.join('&');
    }

    /* Seconds of a plain hold, and of a padded one. */
    function wanted() {
      return min(options.hold || 25, serverHold);
    }

    function longest() {
      return options.hold || 120;
    }

    function poll() {
      var now = env.now(), values = {}, req, chosen = plan(fit, wanted(), longest()), follows = role === FOLLOWER, trial;
      timer = null;
      if (!on || job || follows && !behind()) return;
      if (endpoint && now >= firstAt) {
        /* The first endpoint may be up again. */
        endpoint = 0;
        trial = true;
      }
      /* Until the server has answered nobody knows whether it will, so it is not let wait (`quick`). A tab that follows
         takes the held place from nobody (`brief`). */
      req = job = { c: self.cursor, ch: union(), at: now, ep: endpoint, trial: trial, target: target,
        quick: trial || !sure, brief: follows || !chosen.hold || kind === 'short-poll' };
      req.hold = req.brief ? 0 : req.quick ? QUICK : chosen.hold;
      if (req.brief) values.flavor = 'short-poll';
      else values.hold = req.hold;
      if (!req.quick && chosen.beat) {
        values.pad = 4096;
        values.beat = chosen.beat;
      }
      if (!follows) self.transport = req.brief ? 'short-poll' : chosen.beat ? 'padded' : 'long-poll';
      values.cut = cut;
      cut = '';
      req.limit = req.hold * 1000 + (max(GRACE, 3 * rtt) << min(4, dogs));
      /* Some browsers and proxies never say that a request is dead. */
      req.dog = env.later(function () {
        if (req !== job) return;
        dogs++;
        if (req.giveUp) req.giveUp();
        answered(0, '', noop);
      }, req.limit);
      function answered(status, text, header) {
        if (req !== job) return;
        job = null;
        env.cancel(req.dog);
        text = text || '';
        /* JSONP gives an object: a browser that needs it may have no JSON to make a text of it. */
        digest(req, status, text, read(text), header);
      }
      sending = true;
      try {
        req.giveUp = env.send(makeUrl(req.ch, values), answered, options);
      } catch (error) {
        answered(0, '', noop);
      }
      sending = false;
    }

    function digest(req, status, text, body, header) {
      var elapsed = max(0, env.now() - req.at), list = body instanceof Array;
      /* The machine slept: neither the time nor the failure says anything. */
      if (elapsed > req.limit + 15000) kick();
      else if ((status >= 200 && status < 300 || status === 1223) && body && (list || body.end)) {
        success(req, list ? fromList(body, elapsed, req, header) : body, elapsed);
      } else failure(req, status, body && body.code ? body : {}, elapsed, text, header);
    }

    /* The envelope of a reply that has none, from somebody who answers in our place. */
    function fromList(list, elapsed, req, header) {
      var told = parseFloat(header('x-ps-reconnect-in'));
      if (!(told >= 0)) told = list.length || elapsed >= CUT ? 0 : 5;
      return { events: list, reconnect_in: told, short_poll: told > 0,
        cursor: header('x-ps-cursor') || (list.length ? list[list.length - 1].id : req.c) };
    }

    function success(req, body, elapsed) {
      var told = body.reconnect_in * 1000, brief = req.brief || body.short_poll && told, cursor = '' + body.cursor,
        events = [], full, moved;
      each(body.events, function (record) {
        events.push(toEvent(record));
      });
      serverHold = body.hold || serverHold;
      moved = events.length || cursor !== req.c;
      full = !events.length && (brief ? fit.m === SHORT && role !== FOLLOWER : !req.quick && elapsed >= 800 * req.hold);
      if (brief || req.quick || full) rtt = max(0, elapsed - 1000 * req.hold);
      if (suspect || full) learned(parseInt(suspect) || 0);
      /* Only what took long is the server's business. */
      if (suspect.length) cut = suspect;
      suspect = '';
      if (!req.ep) firstPause = 15000;
      fails = dogs = tried = want = 0;
      take(req.ch, req.c, cursor, events);
      /* A handler may have stopped, or started anew. */
      if (!on || job) return;
      if (role === FOLLOWER) {
        /* The leader may have told its state before it was known where `now` is. */
        if (moved) ask();
        /* Behind the leader still: because more is waiting, or the leader went on meanwhile. */
        if (behind()) schedule(req.target === target ? told : 0);
        return;
      }
      sure = !brief;
      become(brief ? 'polling' : 'live');
      if (!on || job) return;
      if (sure && streams()) open();
      else schedule(!told && !moved && !req.quick && elapsed < 1000 && !instant() ? backoff(1, env.random()) : told);
    }

    function failure(req, status, problem, elapsed, text, header) {
      var held = !req.quick && !req.brief, told, delay, what, late;
      status = problem.status || status;
      what = verdict(status, elapsed, problem.code);
      if (what === 'stop') return refused(status, problem);
      late = what === 'cut';
      /* What began to be an answer was cut by something else than impatience. Believed when the next request succeeds:
         a server that died cuts as well, and so does a browser that leaves the page. */
      suspect = '';
      if (held && !/^\s*[\[{]/.test(text) && (late ? elapsed >= 1000 : elapsed >= 1500 + 3 * rtt)) {
        /* When a hold died that nobody ended is not known: early, to be safe. */
        suspect = elapsed >= req.limit ? 4000 : late ? elapsed + '.' + status : elapsed;
      }
      told = 1000 * (problem.code ? problem.reconnect_in : parseFloat(header('x-ps-reconnect-in'))) || 0;
      fails++;
      sure = false;
      delay = told || backoff(fails, env.random());
      if (held && late) {
        /* Nobody is down. */
        if (instant()) delay = fails = 0;
      } else if (req.trial || tried < urls.length - 1) {
        if (!req.ep) {
          firstPause = min(300000, firstPause * 2);
          firstAt = env.now() + max(firstPause, told);
        }
        if (!req.trial) tried++;
        endpoint = (req.ep + 1) % urls.length;
        if (instant()) delay = 0;
      } else {
        tried = endpoint = 0;
        /* A kept connection that had died unnoticed; or the time-out of somebody between. */
        if (!told && (late || fails === 1 && (!status || status > 12000)) && instant()) delay = 0;
      }
      if (delay && role !== FOLLOWER) become('down', { status: status, retryIn: delay });
      if (on && !job) schedule(delay);
    }

    /* Whether one more request may go out at once: not more than 3 in 10 s, whatever a broken proxy answers. */
    function instant() {
      var now = env.now();
      while (instants.length && Math.abs(now - instants[0]) >= 10000) instants.shift();
      return instants.length < 3 && instants.push(now);
    }

    function refused(status, problem) {
      if (role === LEADER && !solo && union().length > channels.length) {
        /* It may be another tab's channel that is forbidden: let each ask for its own. */
        solo = 1;
        members = {};
        post({ k: 'own' });
        return schedule(0);
      }
      leave();
      become('stopped', { status: status, code: problem.code, message: problem.detail });
    }

    function learned(ms) {
      var text = env.now() + ' ', key;
      fit = learn(fit, ms, wanted(), longest(), !options.jsonp);
      for (key in fresh()) text += key + fit[key];
      env.store.set(fitKey, text);
    }

    /* What was learned on this path within the last day. */
    function recall() {
      var known = fresh(), text = '' + env.store.get(fitKey), age = env.now() - parseFloat(text);
      if (age >= 0 && age < DAY) {
        text.replace(/([a-z])(-?[\d.]+)/g, function (all, key, value) {
          known[key] = +value;
        });
      }
      return known;
    }

    /* ---- Events ---- */

    /* A batch that was read for the channels `list` from `after` on, and ends at `cursor`. */
    function take(list, after, cursor, events) {
      if (role === LEADER) tell(after, cursor, events, list);
      apply(cursor, events);
    }

    function apply(cursor, events) {
      var i, event, gap, later;
      for (i = 0; i < events.length && on; i++) {
        event = events[i];
        gap = event.type === 'everpoll:gap';
        later = above(event.id, self.cursor);
        /* `ahead`: this log is another one, and its ids begin lower. */
        if (gap && event.data.reason === 'ahead') target = '';
        else if (!later) continue;
        self.cursor = event.id;
        if (gap) emit('gap', [event.data, event]);
        else if (has(channels, event.channel)) {
          if (!has(['*', 'state', 'gap'], event.type)) emit(event.type, [event.data, event]);
          emit('*', [event.data, event]);
        }
      }
      if (on && numeric(cursor) && above(cursor, self.cursor)) self.cursor = cursor;
      if (options.keep) env.session.set(keepKey, self.cursor);
    }

    /* ---- Streams: better than polls where they work, and left where they do not ---- */

    function streamKey() {
      return 'everpoll:no-' + kind + ':' + urls[endpoint];
    }

    function streams() {
      var now = env.now();
      return STREAMS[kind] && env.opens(kind) && now >= streamAt && !(now - env.store.get(streamKey()) < DAY);
    }

    function open() {
      var began = env.now(), beat = BEAT, stream = job = { ch: union() }, last = 0;
      /* Closes what is silent for `wait` ms: some proxies open a stream and never pass on a byte. */
      function watch(wait) {
        var since = env.now();
        env.cancel(stream.dog);
        stream.dog = env.later(function () {
          if (stream !== job) return;
          if (env.now() - since > wait + 15000) kick();
          else close(0, true);
        }, wait);
      }
      function got(text) {
        var now = env.now(), record = read(text), event = record && toEvent(record), data = event && event.data || {};
        if (stream !== job || !record) return;
        watch(2500 * beat);
        if (event.type === 'everpoll:end') return close(data.reconnect_in * 1000 || 0);
        if (/^everpoll:(hello|beat)$/.test(event.type)) {
          beat = data.beat || beat;
          /* Sent one beat apart, arrived together: somebody collects what should stream. */
          if (now - last < 300 * beat) return close(0, true);
          last = now;
          self.transport = kind;
          become('live');
          if (now - began > 60000) strikes = 0;
          if (data.n && stream === job) take(stream.ch, self.cursor, '' + data.cursor, []);
        } else take(stream.ch, self.cursor, event.id, [event]);
      }
      watch(4000 + 3 * rtt);
      stream.giveUp = env.open(kind, makeUrl(stream.ch, { flavor: kind, beat: BEAT }), got, function (reason) {
        var told = /reconnect_in=(\d+)/.exec(reason || ''), early = env.now() - began < CUT;
        if (stream === job) close(told ? told[1] * 1000 : early ? backoff(1, env.random()) : 0, !told && early);
      }, options);
    }

    /* Back to polls, from the same cursor. Three strikes, and streams are left alone on this path for a day. */
    function close(delay, strike) {
      drop();
      sure = false;
      if (strike) {
        streamAt = env.now() + 30000 * ++strikes;
        if (strikes > 2) env.store.set(streamKey(), env.now());
      }
      schedule(delay || instant() ? delay : backoff(1, env.random()));
    }

    /* ---- One held request for all tabs: a leader polls for the channels of all, and tells its batches ---- */

    /* Messages: `ask` {ch}: a follower's channels; `at` {ch, a, c, e, s, t, r}: the leader reads ch, these are the
       events from a to c, it is in state s by transport t, r when a reply has just said so; `bye`: the leader is gone;
       `own` {to}: poll for yourself. f is the sender. */
    function join() {
      var text = urls + '|' + waitId, hash = 0;
      for (key in options.parameters) text += '|' + key + '=' + options.parameters[key];
      each(text.split(''), function (letter) {
        hash = hash * 31 + letter.charCodeAt(0) | 0;
      });
      group = 'everpoll:' + hash;
      line = options.share !== false && env.lock && env.bus(group, function (message) {
        if (on && line && message.f !== tab) hear(message);
      });
      if (!line) return schedule(0);
      role = FOLLOWER;
      /* Whoever gets neither the lead nor an answer in this time follows for now, and finds its own cursor. */
      timer = env.later(poll, 200);
      ask();
      seek();
    }

    function seek(steal) {
      if (release) release();
      release = env.lock(group, steal, function () {
        role = LEADER;
        members = {};
        drop();
        schedule(0);
        tell(self.cursor, self.cursor, []);
      }, function (never) {
        if (never) lone();
        else yields();
      });
    }

    /* Another tab leads. Real locks are waited for; a name in the storage would be had at once, and both would lead again. */
    function yields() {
      role = FOLLOWER;
      covered = false;
      drop();
      if (env.locks) seek();
      ask();
    }

    /* This tab can neither lead nor be led. */
    function lone() {
      part();
      drop();
      schedule(0);
    }

    /* Leaves the group, and tells. */
    function part() {
      var give = release;
      if (role === LEADER) post({ k: 'bye' });
      release = null;
      if (give) give();
      if (line) line.close();
      line = null;
      role = ALONE;
    }

    function post(message) {
      message.f = tab;
      if (line) line.postMessage(message);
    }

    function ask() {
      asks++;
      post({ k: 'ask', ch: channels });
    }

    function tell(after, cursor, events, replied) {
      /* Who begins elsewhere than at an id has to find its own way to here. */
      var known = numeric(after);
      post({ k: 'at', ch: replied || (job ? job.ch : union()), a: known ? after : cursor, c: cursor,
        e: known ? events : [], s: self.state, t: self.transport, r: !!replied });
    }

    /* The channels of all tabs, this one's first. */
    function union() {
      var all = channels.slice(0), key;
      if (role === LEADER) {
        for (key in members) {
          each(members[key].ch, function (name) {
            if (!has(all, name)) all.push(name);
          });
        }
      }
      return all;
    }

    function behind() {
      return !numeric(self.cursor) || want || target && above(target, self.cursor);
    }

    function hear(message) {
      var is = message.k;
      if (role === LEADER) {
        if (is === 'ask') asked(message);
        /* Two lead for a moment, where tabs cannot lock: the one with the lesser name goes on. */
        else if (is === 'at' && !env.locks) {
          if (message.f < tab) yields();
          else tell(self.cursor, self.cursor, []);
        }
      } else if (is === 'at') follow(message);
      else if (is === 'bye') {
        covered = false;
        /* Its name may still stand in the storage, which is slower than messages. */
        if (!env.locks) seek(true);
      } else if (is === 'own' && (message.to || tab) === tab) lone();
    }

    /* A follower asks: its channels are polled from now on. */
    function asked(message) {
      var before = union().length, all;
      members[message.f] = { ch: message.ch, at: env.now() };
      all = union();
      if (solo || all.length > 64 || encode(all).length > 1500) {
        delete members[message.f];
        return post({ k: 'own', to: message.f });
      }
      if (all.length > before && job) {
        /* A stream is opened again after a poll. */
        if (self.transport === kind) sure = false;
        drop();
        schedule(0);
      }
      tell(self.cursor, self.cursor, []);
    }

    function follow(message) {
      var gap = false, known;
      heard = env.now();
      covered = true;
      each(channels, function (name) {
        if (!has(message.ch, name)) covered = false;
      });
      if (covered) asks = 0;
      else if (!asks) ask();
      if (!covered) return;
      if (!numeric(message.c)) return;
      self.transport = message.t;
      each(message.e, function (event) {
        gap = gap || event.type === 'everpoll:gap';
      });
      if (above(message.a, self.cursor)) target = message.c;
      else if (gap ? message.a !== self.cursor : message.r && above(self.cursor, message.c)) {
        /* The leader is behind: it has just begun, or its log was replaced. The server knows. */
        want = 1;
      } else {
        drop();
        want = fails = 0;
        apply(message.c, message.e);
      }
      /* As long as nobody knows where `now` is, what is published may not come: that is not live, and urgent. */
      known = numeric(self.cursor);
      if (on && known) become(message.s);
      if (!job && behind() && (!timer || !known && !fails)) schedule(0);
    }

    /* Every few seconds: did the machine sleep, does the leader live? */
    function tick() {
      var now = env.now(), key, lost = role === FOLLOWER && (now - heard > TICK || !covered);
      ticker = env.later(tick, lost ? 1000 : TICK);
      if (now - lastTick > SLEPT) kick();
      lastTick = now;
      for (key in members) if (now - members[key].at > 150000) delete members[key];
      if (lost && on) {
        if (asks > 2 && now - heard > 3000) {
          asks = 0;
          seek(true);
        }
        ask();
      }
    }
  }

  function encode(channels) {
    var names = [];
    each(channels, function (name) {
      names.push(encodeURIComponent(name));
    });
    return names.join(',');
  }

  /* ---- The host: what a browser, or a script engine without a page, has to offer ---- */

  var root = typeof self !== 'undefined' ? self : {};
  var STREAMS = { eventsource: 'EventSource', websocket: 'WebSocket' };
  var serial = 0, mates = [], local = storage('localStorage');

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

  /* Whether `url` is of another origin than the page. */
  function isCross(url) {
    var here = root.location;
    return here && /^(\w+:)?\/\//.test(url) &&
      url.replace(/^\/\//, here.protocol + '//').indexOf(here.protocol + '//' + here.host + '/');
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
      /* True, and keeps the handler: it may be running, and MSXML keeps only the one that is set. */
      ended = changed;
      /* Old browsers leak what a handler closes over; null throws. */
      xhr.onreadystatechange = noop;
    }
    xhr.open('GET', url, true);
    if (options.credentials && cross) xhr.withCredentials = true;
    function changed() {
      var status = 0, text = '', read = xhr;
      if (ended || xhr.readyState !== 4) return;
      close();
      try {
        status = xhr.status;
        text = xhr.responseText;
      } catch (dead) {}
      done(status, text, function (name) {
        try {
          return read.getResponseHeader(name);
        } catch (none) {}
      });
    }
    xhr.onreadystatechange = changed;
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
    /* Kept by the page: a browser collects requests that nobody holds. */
    var xdr = new XDomainRequest(), id = 'everpoll_' + ++serial;
    function end(status) {
      return function () {
        if (!root[id]) return;
        root[id] = 0;
        done(status, status ? xdr.responseText : '', noop);
      };
    }
    root[id] = xdr;
    xdr.open('GET', url);
    xdr.onload = end(200);
    xdr.onerror = xdr.ontimeout = end(0);
    /* Without this one IE 9 aborts. */
    xdr.onprogress = noop;
    xdr.timeout = 600000;
    xdr.send();
    return function () {
      root[id] = 0;
      try {
        xdr.abort();
      } catch (dead) {}
    };
  }

  function sendJsonp(url, done) {
    var name = 'everpoll_' + ++serial, script = root.document.createElement('script');
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
      done(body.status || 200, body, noop);
    };
    script.src = url + '&cb=' + name;
    root.document.getElementsByTagName('head')[0].appendChild(script);
    return end;
  }

  /* Opens a stream, calls got(text) for each message and ended(reason) once, and returns a function that closes it. */
  function open(kind, url, got, ended, options) {
    var stream, link, socket = kind === 'websocket';
    if (socket) {
      link = root.document.createElement('a');
      link.href = url;
      url = link.href.replace(/^http/, 'ws');
    }
    stream = new root[STREAMS[kind]](url, socket ? [] : { withCredentials: options.credentials });
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
    return {
      get: function (key) {
        try {
          return root[name].getItem(key);
        } catch (forbidden) {}
      },
      set: function (key, value) {
        try {
          root[name].setItem(key, value);
          return true;
        } catch (full) {}
      }
    };
  }

  function listen(type, call) {
    if (root.addEventListener) root.addEventListener(type, call, false);
    /* IE 8 tells changes of storage to the document. */
    else if (root.attachEvent) (type === 'storage' ? root.document : root).attachEvent('on' + type, call);
  }

  /* Messages between tabs, and between the subscribers of one page: a BroadcastChannel, or what stands in for it, over
     storage, which tells all tabs but this one. */
  function bus(name, receive) {
    var channel;
    function told(key, text) {
      if (key === name && text) receive(parse(text));
    }
    if (root.BroadcastChannel) {
      try {
        channel = new root.BroadcastChannel(name);
        channel.onmessage = function (event) {
          receive(event.data);
        };
        return channel;
      } catch (forbidden) {
        return;
      }
    }
    mates.push(told);
    listen('storage', function (event) {
      /* IE 8 does not say what changed, and says so before it can be read. */
      if (event.key === undefined) {
        setTimeout(function () {
          told(name, local.get(name));
        }, 50);
      } else told(event.key, event.newValue);
    });
    return {
      postMessage: function (message) {
        var text;
        /* The same text twice would be no change. */
        message.x = ++serial;
        text = JSON.stringify(message);
        if (!local.set(name, text)) {
          /* Too large: let the others read it from the server. */
          message.a = message.c;
          message.e = [];
          text = JSON.stringify(message);
          local.set(name, text);
        }
        each(mates, function (mate) {
          if (mate !== told) {
            setTimeout(function () {
              mate(name, text);
            }, 0);
          }
        });
      },
      close: function () {
        receive = noop;
        local.set(name, '');
      }
    };
  }

  /* Leads one tab of all: calls granted() in the one that has the lock, lost(false) when it is taken away, lost(true) when
     there are no locks here. Returns what gives it back; then none of them is called any more. A lock that is stolen belongs to a tab that answers no more. */
  function lock(name, steal, granted, lost) {
    var release = noop, over = false;
    root.navigator.locks.request(name, steal ? { steal: true } : {}, function () {
      if (over) return;
      granted();
      return new Promise(function (resolve) {
        release = resolve;
      });
    }).then(noop, function (error) {
      if (!over) lost(error.name !== 'AbortError');
    });
    return function () {
      over = true;
      release();
    };
  }

  /* The same by storage: write a name, wait, look whose name stands there. It does not expire: whoever holds it answers
     when it is asked, also in a hidden tab, whose timers are slow. */
  function lease(name, steal, granted) {
    var mine = Math.random() + '', key = name + ':lead';
    if (steal || !local.get(key)) {
      local.set(key, mine);
      setTimeout(function () {
        if (mine && local.get(key) === mine) granted();
      }, 100);
    }
    return function () {
      if (local.get(key) === mine) local.set(key, '');
      mine = '';
    };
  }

  function hostEnv() {
    var page = root.document, locks = page && root.navigator.locks;
    return {
      send: send,
      open: open,
      opens: function (kind) {
        return root.document && root[STREAMS[kind]];
      },
      now: function () {
        return +new Date();
      },
      random: Math.random,
      later: function (call, ms) {
        return setTimeout(call, ms);
      },
      cancel: function (timer) {
        clearTimeout(timer);
      },
      store: local,
      session: storage('sessionStorage'),
      bus: bus,
      locks: locks,
      lock: locks ? lock : page && root.JSON && local.set('everpoll:try', 1) && lease,
      page: function (pause, resume, kick) {
        /* A held request may outlive its page, and one that dies with it must not be tried again. A listener of unload
           would keep newer browsers from going back to the page as it was. */
        listen('onpagehide' in root ? 'pagehide' : 'unload', pause);
        listen('pageshow', function (event) {
          if (event.persisted) resume();
        });
        listen('online', kick);
      }
    };
  }

  /* ---- The page ---- */

  function Everpoll(channels, options) {
    var self = this, page = root.document;
    Core.call(self, channels, options);
    function begin() {
      /* After the load event: until then some browsers show that the page is loading. */
      setTimeout(function () {
        if (self.state === 'connecting') self.start();
      }, 0);
    }
    if ((options || {}).start !== false) {
      self.state = 'connecting';
      if (!page || page.readyState === 'complete') begin();
      else listen('load', begin);
    }
  }

  Everpoll.Core = Core;
  Everpoll.env = hostEnv;
  Core.decide = { above: above, backoff: backoff, verdict: verdict, fresh: fresh, plan: plan, learn: learn, read: read };
  return Everpoll;
})();

if (typeof module === 'object' && module.exports) module.exports = Everpoll;
