/* Many tabs of one browser: one of them holds the request, and none misses or doubles anything, whoever dies. */
(function () {
  var kinds = [true, false];

  function world(seed, locks) {
    var it = { clock: new Clock(seed) };
    it.site = new Site(it.clock);
    it.browser = new Browser(it.clock, it.site, locks);
    return it;
  }

  function open(it, count, channels) {
    var tabs = [];
    for (; count > 0; count--) tabs.push(it.browser.open(channels || ['a']));
    it.clock.pass(3000);
    return tabs;
  }

  function checkAll(it) {
    var i;
    for (i = 0; i < it.browser.tabs.length; i++) it.browser.check(it.browser.tabs[i], it.browser.tabs[i].open);
  }

  function both(name, run) {
    var i;
    function add(locks) {
      test(name + (locks ? ' (locks)' : ' (storage)'), function () {
        run(locks);
      });
    }
    for (i = 0; i < kinds.length; i++) add(kinds[i]);
  }

  both('twenty tabs hold one request, and all get every event soon', function (locks) {
    var it = world(1, locks), tabs = open(it, 20), i;
    equal(it.site.held(), 1);
    for (i = 0; i < 10; i++) {
      it.site.publish('a');
      it.clock.pass(200);
    }
    checkAll(it);
    for (i = 0; i < tabs.length; i++) equal([tabs[i].events.state, tabs[i].seen.length], ['live', 10]);
    equal([it.site.held(), it.site.most], [1, 1]);
  });

  both('tabs want different channels', function (locks) {
    var it = world(2, locks);
    it.browser.open(['a']);
    it.clock.pass(1000);
    it.browser.open(['b']);
    it.clock.pass(1000);
    it.browser.open(['a', 'c']);
    it.clock.pass(1000);
    equal(it.site.held(), 1);
    it.site.publish('a');
    it.site.publish('b');
    it.site.publish('c');
    it.clock.pass(300);
    checkAll(it);
    equal([it.browser.tabs[0].seen.length, it.browser.tabs[1].seen.length, it.browser.tabs[2].seen.length], [1, 1, 2]);
  });

  both('tab that says it is live gets what is published from then on', function (locks) {
    var it = world(7, locks), tab, id = 0, took;
    open(it, 1);
    took = it.clock.now;
    tab = it.browser.open(['a'], { cursor: 'now' });
    tab.events.on('state', function (state) {
      if (state !== 'live' || id) return;
      took = it.clock.now - took;
      id = it.site.publish('a');
    });
    it.clock.pass(3000);
    equal(tab.seen, [id]);
    truth(took < 150, 'live after ' + took + ' ms');
  });

  both('leader that closes is followed at once', function (locks) {
    var it = world(3, locks), tabs = open(it, 5);
    it.site.publish('a');
    it.clock.pass(100);
    it.browser.close(tabs[0]);
    it.site.publish('a');
    it.clock.pass(1500);
    checkAll(it);
    equal([tabs[1].seen.length, it.site.held()], [2, 1]);
  });

  both('leader that crashes is followed soon', function (locks) {
    var it = world(4, locks), tabs = open(it, 5), waited = 0;
    it.browser.crash(tabs[0]);
    it.site.kill();
    it.site.publish('a');
    while (!tabs[4].seen.length && waited < 60000) {
      it.clock.pass(100);
      waited += 100;
    }
    truth(waited <= (locks ? 1000 : 15000), 'after ' + waited + ' ms');
    it.clock.pass(2000);
    checkAll(it);
  });

  both('leader that freezes is followed soon, and follows when it thaws', function (locks) {
    var it = world(5, locks), tabs = open(it, 5), waited = 0, i;
    it.browser.freeze(tabs[0], 60000);
    for (i = 0; i < 5; i++) {
      it.site.publish('a');
      it.clock.pass(1000);
    }
    while (tabs[4].seen.length < 5 && waited < 60000) {
      it.clock.pass(100);
      waited += 100;
    }
    truth(waited <= 40000, 'after ' + waited + ' ms');
    it.clock.pass(60000);
    it.site.publish('a');
    it.clock.pass(40000);
    checkAll(it);
    equal(it.site.held(), 1);
  });

  both('tab that joins late and stands behind reads by itself', function (locks) {
    var it = world(6, locks), tabs = open(it, 2), i, late;
    for (i = 0; i < 30; i++) it.site.publish('a');
    it.clock.pass(500);
    late = it.browser.open(['a'], { cursor: '100' });
    late.began = 100;
    it.clock.pass(1500);
    checkAll(it);
    equal([late.seen.length, tabs[0].seen.length], [30, 30]);
  });

  both('log that begins anew is told to each tab, also to one that is frozen', function (locks) {
    beginsAnew(world(11, locks), 0);
  });

  both('log that begins anew is told to each tab, also when no tab hears of it', function (locks) {
    beginsAnew(world(12, locks), 1);
  });

  function beginsAnew(it, loss) {
    var tabs = open(it, 4), gaps = [0, 0, 0, 0], i;
    function count(n) {
      tabs[n].events.on('gap', function (gap) {
        if (gap.reason === 'ahead') gaps[n]++;
      });
    }
    for (i = 0; i < 4; i++) count(i);
    for (i = 0; i < 10; i++) it.site.publish('a');
    it.clock.pass(1000);
    if (!loss) it.browser.freeze(tabs[3], 20000);
    it.browser.loss = loss;
    it.site.restore(105);
    it.clock.pass(1000);
    it.browser.loss = 0;
    it.clock.pass(4000);
    for (i = 0; i < 4; i++) tabs[i].seen = [];
    it.site.publish('a');
    it.site.publish('a');
    it.clock.pass(60000);
    it.site.publish('a');
    it.clock.pass(1000);
    equal(gaps, [1, 1, 1, 1]);
    /* Who asks late is told of a gap up to then. */
    for (i = 0; i < 4; i++) {
      if (!loss) equal(tabs[i].seen.length, 3, 'tab ' + i);
      equal(tabs[i].seen[tabs[i].seen.length - 1], it.site.head(), 'tab ' + i);
    }
  }

  both('forbidden channel of one tab does not stop the others', function (locks) {
    var it = world(7, locks), request = it.site.request, tabs, bad;
    it.site.request = function (url, done) {
      if (parseUrl(url).channels.join().indexOf('secret') < 0) return request(url, done);
      it.clock.later(function () {
        done(403, '{"status":403,"code":"channel_forbidden","detail":"no"}', noHeader, {});
      }, 10);
      return function () {};
    };
    tabs = open(it, 3);
    bad = it.browser.open(['secret']);
    it.clock.pass(5000);
    it.site.publish('a');
    it.clock.pass(12000);
    equal(bad.events.state, 'stopped');
    equal([tabs[0].seen.length, tabs[1].seen.length, tabs[2].seen.length], [1, 1, 1]);
  });

  both('tab with too many channels for one request polls alone', function (locks) {
    var it = world(8, locks), many = [], i, tab;
    open(it, 1);
    for (i = 0; i < 64; i++) many.push('c' + i);
    tab = it.browser.open(many);
    it.clock.pass(3000);
    it.site.publish('c63');
    it.site.publish('a');
    it.clock.pass(12000);
    checkAll(it);
    equal(tab.seen.length, 1);
  });

  both('all tabs that stop leave no timer', function (locks) {
    var it = world(9, locks), tabs = open(it, 4), i;
    for (i = 0; i < 4; i++) tabs[i].events.stop();
    it.clock.pass(60000);
    equal([it.clock.timers(), it.site.held()], [0, 0]);
  });

  test('tab without locks or storage polls alone', function () {
    var it = world(10, true), lonely;
    lonely = new Scripted({}, { lock: function (name, steal, granted, lost) {
      it.clock.later(function () {
        lost(true);
      }, 1);
      return function () {};
    }, bus: function () {
      return { postMessage: function () {}, close: function () {} };
    } });
    it.clock.pass(10);
    equal(lonely.script.pending(), 1);
  });

  /* Random schedules: tabs come, go, crash and freeze, the server dies, the way is broken. */
  function schedule(seed, locks) {
    var it = world(seed, locks), random = it.clock.random, steps, tabs, tab, chance, i, names = ['a', 'b', 'c'];
    it.site.broken = random() < 0.5 ? 0 : 0.15;
    it.browser.loss = random() < 0.3 ? 0.1 : 0;
    it.site.cutAfter = random() < 0.3 ? 8000 + random() * 15000 : 0;
    it.browser.open(['a']);
    for (steps = 0; steps < 60; steps++) {
      chance = random();
      tabs = it.browser.living();
      tab = tabs[Math.floor(random() * tabs.length)];
      if (chance < 0.14 && tabs.length < 6) it.browser.open(random() < 0.5 ? ['a'] : [names[Math.floor(random() * 3)], 'b']);
      else if (chance < 0.2 && tab) it.browser.close(tab);
      else if (chance < 0.25 && tab) it.browser.crash(tab);
      else if (chance < 0.3 && tab) it.browser.freeze(tab, random() * 40000);
      else if (chance < 0.34) it.site.kill();
      else if (chance < 0.38) {
        it.site.down = !it.site.down;
        it.site.kill();
      } else if (chance < 0.42) it.site.fallback = !it.site.fallback;
      else for (i = random() * 6; i > 0; i--) it.site.publish(names[Math.floor(random() * 3)]);
      it.clock.pass(random() < 0.5 ? random() * 300 : random() * 8000);
    }
    it.site.down = it.site.fallback = false;
    it.site.broken = it.site.cutAfter = it.browser.loss = 0;
    it.clock.pass(150000);
    it.site.publish('a');
    it.site.publish('b');
    i = it.site.requests;
    it.clock.pass(40000);
    checkAll(it);
    truth(it.site.requests - i < 60, (it.site.requests - i) + ' requests in 40 quiet seconds');
    if (!it.browser.living().length) return;
    /* A short hold may just be between two requests. */
    for (i = 0; i < 20 && !it.site.held(); i++) it.clock.pass(50);
    equal(it.site.held(), 1, 'one request is held in the end');
  }

  function schedules(from, to, locks) {
    test('each event comes exactly once to each tab: seeds ' + from + ' to ' + to + (locks ? ' (locks)' : ' (storage)'), function () {
      var seed;
      for (seed = from; seed < to; seed++) {
        try {
          schedule(seed, locks);
        } catch (error) {
          fail('seed ' + seed + ': ' + error.message);
        }
      }
    });
  }

  /* How many: by the host, since old engines are slow. */
  (function (last) {
    schedules(1, last, true);
    schedules(1, last, false);
  })(typeof seeds === 'undefined' ? 20 : seeds);
})();
