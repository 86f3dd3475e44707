/* A registry of tests, a clock that moves by hand, and a model of the server. ES3 and without modules, so that the same
   files run in node and in the script engine of old browsers: load everpoll.js, then these files in the order of their
   names. The last one runs all tests and says `ok` or `not ok` for each by print(). */
var tests = [];

function test(name, run) {
  tests.push({ name: name, run: run });
}

function text(value) {
  var parts = [], key, i;
  if (value === null || typeof value !== 'object') return typeof value === 'string' ? '"' + value + '"' : String(value);
  if (value instanceof Array) {
    for (i = 0; i < value.length; i++) parts.push(text(value[i]));
    return '[' + parts.join(',') + ']';
  }
  for (key in value) parts.push(key + ':' + text(value[key]));
  return '{' + parts.join(',') + '}';
}

function fail(message) {
  throw new Error(message);
}

function equal(actual, expected, about) {
  if (text(actual) !== text(expected)) fail((about ? about + ': ' : '') + text(actual) + ' is not ' + text(expected));
}

function truth(value, about) {
  if (!value) fail(about);
}

/* Numbers in [0, 1) from a seed, the same in each engine. */
function seeded(seed) {
  var state = seed % 2147483646 + 1;
  return function () {
    state = state * 16807 % 2147483647;
    return (state - 1) / 2147483646;
  };
}

/* ---- A clock ---- */

function Clock(seed) {
  var self = this, queue = [], serial = 0;
  self.now = 1400000000000;
  self.random = seeded(seed || 1);
  self.later = function (call, ms) {
    serial++;
    queue.push({ id: serial, at: self.now + Math.max(0, ms), call: call });
    return serial;
  };
  self.cancel = function (id) {
    var i;
    for (i = 0; i < queue.length; i++) {
      if (queue[i].id === id) {
        queue.splice(i, 1);
        return;
      }
    }
  };
  /* Lets `ms` pass, and calls what is due in order. */
  self.pass = function (ms) {
    var end = self.now + ms, next, i, steps = 0;
    for (;;) {
      next = -1;
      for (i = 0; i < queue.length; i++) {
        if (queue[i].at <= end && (next < 0 || queue[i].at < queue[next].at)) next = i;
      }
      if (next < 0) break;
      steps++;
      if (steps > 300000) fail('the clock does not come to rest');
      i = queue.splice(next, 1)[0];
      if (i.at > self.now) self.now = i.at;
      i.call();
    }
    self.now = end;
  };
  /* The machine sleeps: time passes, and nothing is called. Timers of some systems sleep as well (`too`), and are due as
     much later. */
  self.sleep = function (ms, too) {
    var i;
    self.now += ms;
    if (too) for (i = 0; i < queue.length; i++) queue[i].at += ms;
  };
  self.timers = function () {
    return queue.length;
  };
}

function Store() {
  var kept = {};
  this.get = function (key) {
    return kept[' ' + key] === undefined ? null : kept[' ' + key];
  };
  this.set = function (key, value) {
    kept[' ' + key] = String(value);
    return true;
  };
  this.kept = kept;
}

/* ---- Requests ---- */

function noHeader() {
  return '';
}

/* The parts of a poll's URL. */
function parseUrl(url) {
  var parts = /^(.*?)\/([^\/?]*)\/([^\/?]*)\?(.*)$/.exec(url), query = parts[4].split('&'), found = {}, i, pair;
  for (i = 0; i < query.length; i++) {
    pair = query[i].split('=');
    found[decodeURIComponent(pair[0])] = decodeURIComponent(pair[1]);
  }
  found.base = parts[1];
  found.channels = decodeURIComponent(parts[2]).split(',');
  found.waitId = decodeURIComponent(parts[3]);
  return found;
}

/* A transport that does nothing by itself: `sent` has the requests, newest last. */
function Script() {
  var self = this;
  self.sent = [];
  self.send = function (url, done) {
    var request = parseUrl(url);
    request.url = url;
    request.open = true;
    request.done = done;
    request.answer = function (status, body, header) {
      request.open = false;
      done(status, body, header || noHeader);
    };
    self.sent.push(request);
    return function () {
      request.open = false;
      request.aborted = true;
    };
  };
  self.last = function () {
    return self.sent[self.sent.length - 1];
  };
  self.pending = function () {
    var open = 0, i;
    for (i = 0; i < self.sent.length; i++) if (self.sent[i].open) open++;
    return open;
  };
}

/* One client on a scripted transport, started, with all that it said in lists. */
function Scripted(options, more) {
  var self = this, key, env;
  self.clock = new Clock(7);
  self.script = new Script();
  self.store = new Store();
  self.hooks = null;
  self.streams = [];
  env = {
    send: self.script.send, later: self.clock.later, cancel: self.clock.cancel, random: self.clock.random,
    now: function () {
      return self.clock.now;
    },
    store: self.store, session: new Store(), bus: null, lock: null, locks: false,
    opens: function () {
      return true;
    },
    open: function (kind, url, got, ended) {
      var stream = { kind: kind, url: url, open: true, got: got, ended: ended, query: parseUrl(url) };
      self.streams.push(stream);
      return function () {
        stream.open = false;
      };
    },
    page: function (pause, resume, kick) {
      self.hooks = { pause: pause, resume: resume, kick: kick };
    }
  };
  for (key in more) env[key] = more[key];
  self.env = env;
  self.states = [];
  self.seen = [];
  self.gaps = [];
  self.events = new Everpoll.Core('cheese', options || {}, env);
  self.events.on('state', function (state, detail) {
    self.states.push(state);
    self.detail = detail;
  }).on('*', function (data, event) {
    self.seen.push(event.id);
  }).on('gap', function (gap) {
    self.gaps.push(gap);
  });
  self.events.start();
}

/* An envelope as the server writes it. */
function envelope(cursor, ids, more) {
  var records = [], i, extra = { reconnect_in: 0, hold: 25, short_poll: false }, key;
  for (key in more) extra[key] = more[key];
  for (i = 0; ids && i < ids.length; i++) records.push(record(ids[i], 'cheese'));
  return '{"events":[' + records.join(',') + '],"cursor":"' + cursor + '","reconnect_in":' + extra.reconnect_in +
    ',"hold":' + extra.hold + ',"short_poll":' + extra.short_poll + ',"end":1}';
}

function record(id, channel, type, data) {
  return '{"id":' + id + ',"channel_id":"' + channel + '","ts":"2014-07-23T14:25:22.123Z","data":{"type":"' +
    (type || 'made') + '","data":' + (data || '{}') + '}}';
}

function gapRecord(id, after, before, reason) {
  return record(id, 'cheese', 'everpoll:gap',
    '{"after":' + after + ',"before":' + before + ',"reason":"' + reason + '"}');
}

/* A client that has its cursor (10) and holds its first long request. */
function held(options, more) {
  var it = new Scripted(options, more);
  it.clock.pass(50);
  it.script.last().answer(200, envelope(10));
  return it;
}
