/* A model of the server, of the way to it, and of a browser with many tabs: what the client meets in the field, by a
   seeded chance. */

/* The server: a log, holds, the one held place of each wait_id, and all that can go wrong between it and a page. */
function Site(clock) {
  var self = this, log = [], waiting = [], head = 100;
  self.down = false;      /* nothing answers */
  self.fallback = false;  /* answers at once, and tells to come back */
  self.cutAfter = 0;      /* ms until a silent hold is cut by somebody between */
  self.broken = 0;        /* share of replies that come cut short, as HTML or not at all */
  self.most = 0;          /* most requests that were held for one wait_id at once */
  self.requests = 0;
  self.log = log;

  self.publish = function (channel) {
    head += 1 + Math.floor(clock.random() * 3);
    log.push({ id: head, channel: channel });
    wake();
    return head;
  };
  /* The log is restored from an older copy: all after `id` never was. */
  self.restore = function (id) {
    while (log.length && log[log.length - 1].id > id) log.pop();
    head = id;
    self.kill();
  };
  self.head = function () {
    return head;
  };
  self.held = function () {
    return waiting.length;
  };

  function news(request) {
    var found = [], i;
    for (i = 0; i < log.length && found.length < 20; i++) {
      if (log[i].id > request.after && has(request.channels, log[i].channel)) found.push(log[i]);
    }
    return found;
  }
  function has(list, value) {
    for (var i = 0; i < list.length; i++) if (list[i] === value) return true;
    return false;
  }
  function remove(request) {
    for (var i = 0; i < waiting.length; i++) {
      if (waiting[i] === request) {
        waiting.splice(i, 1);
        return true;
      }
    }
    return false;
  }
  function wake() {
    for (var i = waiting.length - 1; i >= 0; i--) {
      if (waiting[i] && news(waiting[i]).length) reply(waiting[i], 0, false);
    }
  }
  /* Answers after the way back. */
  function reply(request, delay, short_) {
    var found = news(request), records = [], i, cursor = found.length === 20 ? found[19].id : Math.max(head, request.after);
    remove(request);
    for (i = 0; i < found.length; i++) records.push(record(found[i].id, found[i].channel));
    deliver(request, 200, '{"events":[' + records.join(',') + '],"cursor":"' + cursor + '","reconnect_in":' +
      (found.length === 20 ? 0 : delay) + ',"hold":25,"short_poll":' + short_ + ',"end":1}');
  }
  function deliver(request, status, body) {
    var chance = clock.random();
    if (chance < self.broken) {
      if (chance < self.broken / 3) body = body.slice(0, body.length / 2);
      else if (chance < self.broken / 1.5) body = '<html>Your session with this hotel has ended</html>';
      else {
        status = 0;
        body = '';
      }
    }
    clock.later(function () {
      if (!request.gone) request.done(status, body, noHeader, request);
    }, 2 + clock.random() * 30);
  }
  /* A request of a tab: returns what gives it up. */
  self.request = function (url, done) {
    var request = parseUrl(url);
    self.requests++;
    request.done = done;
    clock.later(function () {
      arrive(request);
    }, 2 + clock.random() * 30);
    return function () {
      request.gone = true;
      remove(request);
    };
  };
  function arrive(request) {
    var i, taken = false, hold = request.flavor === 'short-poll' ? 0 : Math.min(25, +request.hold) * 1000, held = 0;
    if (request.gone) return;
    if (self.down) {
      deliver(request, clock.random() < 0.5 ? 0 : 502, '');
      return;
    }
    request.after = /^\d+$/.test(request.last_event_id) ? +request.last_event_id : head;
    request.began = request.after;
    if (request.channels.length > 64) fail('too many channels');
    if (request.after > head) {
      deliver(request, 200, '{"events":[' + gapRecord(head, request.after, head + 1, 'ahead') + '],"cursor":"' + head +
        '","reconnect_in":0,"hold":25,"short_poll":false,"end":1}');
      return;
    }
    if (self.fallback || request.flavor === 'short-poll' || news(request).length) {
      reply(request, self.fallback || request.flavor ? 5 : 0, self.fallback || !!request.flavor);
      return;
    }
    for (i = waiting.length - 1; i >= 0; i--) {
      if (waiting[i].waitId !== request.waitId) continue;
      if (waiting[i].tab === request.tab && +waiting[i].n < +request.n) {
        waiting[i].gone = true;
        waiting.splice(i, 1);
      } else taken = true;
    }
    if (taken) {
      reply(request, 5, true);
      return;
    }
    waiting.push(request);
    for (i = 0; i < waiting.length; i++) if (waiting[i].waitId === request.waitId) held++;
    self.most = Math.max(self.most, held);
    clock.later(function () {
      if (remove(request)) reply(request, 0, false);
    }, hold);
    if (self.cutAfter && hold > self.cutAfter && !request.pad) {
      clock.later(function () {
        if (remove(request)) deliver(request, 502, '<html>');
      }, self.cutAfter);
    }
  }
  /* The daemon dies: all that was held is cut. */
  self.kill = function () {
    while (waiting.length) deliver(waiting.pop(), 0, '');
  };
}

/* A browser: storage, messages between its tabs, and locks; `locks`: real ones, else a name in the storage. */
function Browser(clock, site, locks) {
  var self = this, store = new Store(), lines = [], owner = {}, queue = [];
  self.store = store;
  self.tabs = [];
  self.loss = 0;          /* share of messages between tabs that get lost */

  function later(tab, call, ms) {
    return clock.later(function () {
      run(tab, call);
    }, ms);
  }
  /* What happens to a frozen tab happens when it thaws; what happens to a dead one does not. */
  function run(tab, call) {
    if (tab.dead) return;
    if (tab.thaws > clock.now) clock.later(function () {
      run(tab, call);
    }, tab.thaws - clock.now);
    else call();
  }
  function next(name) {
    for (var i = 0; i < queue.length; i++) {
      if (queue[i].name === name && !owner[name]) {
        owner[name] = queue.splice(i, 1)[0];
        grant(owner[name]);
        return;
      }
    }
  }
  function grant(entry) {
    later(entry.tab, function () {
      if (owner[entry.name] === entry) entry.granted();
    }, 1);
  }
  function robbed(entry) {
    later(entry.tab, function () {
      if (!entry.over) entry.lost();
    }, 1);
  }
  function lock(tab) {
    return function (name, steal, granted, lost) {
      var entry = { name: name, tab: tab, granted: granted, lost: lost };
      if (steal && owner[name]) {
        robbed(owner[name]);
        owner[name] = entry;
        grant(entry);
      } else queue.push(entry);
      next(name);
      return function () {
        var i;
        entry.over = true;
        for (i = 0; i < queue.length; i++) {
          if (queue[i] === entry) {
            queue.splice(i, 1);
            break;
          }
        }
        if (owner[name] === entry) {
          owner[name] = null;
          next(name);
        }
      };
    };
  }
  function lease(tab) {
    return function (name, steal, granted) {
      var mine = String(clock.random());
      if (steal || !store.get(name)) {
        store.set(name, mine);
        later(tab, function () {
          if (mine && store.get(name) === mine) granted();
        }, 100);
      }
      return function () {
        if (store.get(name) === mine) store.set(name, '');
        mine = '';
      };
    };
  }

  /* Opens a tab that subscribes to `channels`. */
  self.open = function (channels, options) {
    var tab = { seen: [], channels: channels, thaws: 0, began: 0, dead: false, open: true }, key;
    options = options || {};
    if (clock.random() < 0.5 && !options.cursor) {
      options.cursor = String(site.head());
      tab.began = site.head();
    }
    tab.events = new Everpoll.Core(channels, options, {
      now: function () {
        return clock.now;
      },
      random: clock.random, store: store, session: new Store(), locks: locks, cancel: clock.cancel,
      later: function (call, ms) {
        return later(tab, call, ms);
      },
      send: function (url, done) {
        return site.request(url, function (status, body, header, request) {
          run(tab, function () {
            var knew = /^\d+$/.test(tab.events.cursor);
            if (request.gone) return;
            if (!knew) tab.waits = request.began;
            done(status, body, header);
          });
        });
      },
      opens: function () {
        return false;
      },
      bus: function (name, receive) {
        var line = { name: name, receive: receive, tab: tab };
        lines.push(line);
        return {
          postMessage: function (message) {
            var copy = JSON_copy(message), i;
            for (i = 0; i < lines.length; i++) pass(lines[i], line, copy);
          },
          close: function () {
            for (var i = 0; i < lines.length; i++) if (lines[i] === line) lines.splice(i, 1);
          }
        };
      },
      lock: locks ? lock(tab) : lease(tab),
      page: function (pause) {
        tab.hooks = { pause: pause };
      }
    });
    tab.events.on('*', function (data, event) {
      if (!tab.began) tab.began = tab.waits;
      tab.seen.push(+event.id);
    });
    self.tabs.push(tab);
    tab.events.start();
    return tab;
  };
  function pass(line, from, copy) {
    if (line === from || line.name !== from.name || clock.random() < self.loss) return;
    later(line.tab, function () {
      for (var i = 0; i < lines.length; i++) if (lines[i] === line) line.receive(copy);
    }, 1 + clock.random() * 3);
  }
  self.close = function (tab) {
    tab.hooks.pause();
    tab.open = false;
  };
  /* The tab's process dies: nothing in it runs any more, and the browser frees its locks. */
  self.crash = function (tab) {
    var i, name;
    tab.open = false;
    tab.dead = true;
    for (i = lines.length - 1; i >= 0; i--) if (lines[i].tab === tab) lines.splice(i, 1);
    for (i = queue.length - 1; i >= 0; i--) if (queue[i].tab === tab) queue.splice(i, 1);
    for (name in owner) {
      if (owner[name] && owner[name].tab === tab) {
        owner[name] = null;
        next(name);
      }
    }
  };
  self.freeze = function (tab, ms) {
    tab.thaws = clock.now + ms;
  };
  /* The tabs that are open. */
  self.living = function () {
    var list = [], i;
    for (i = 0; i < self.tabs.length; i++) if (self.tabs[i].open) list.push(self.tabs[i]);
    return list;
  };
  /* What `tab` saw is what was published for it since it began: once, in order, and when `all`, to the end. */
  self.check = function (tab, all) {
    var due = [], i;
    for (i = 0; i < site.log.length; i++) {
      if (site.log[i].id > tab.began && (',' + tab.channels + ',').indexOf(',' + site.log[i].channel + ',') >= 0) {
        due.push(site.log[i].id);
      }
    }
    if (!tab.began && !tab.seen.length) return;
    if (!all) due = due.slice(0, tab.seen.length);
    equal(tab.seen, due, 'seen by a tab of ' + tab.channels + ' since ' + tab.began);
  };
}

function JSON_copy(value) {
  var copy, key, i;
  if (value === null || typeof value !== 'object') return value;
  if (value instanceof Array || Object.prototype.toString.call(value) === '[object Array]') {
    copy = [];
    for (i = 0; i < value.length; i++) copy.push(JSON_copy(value[i]));
    return copy;
  }
  copy = {};
  for (key in value) copy[key] = JSON_copy(value[key]);
  return copy;
}
