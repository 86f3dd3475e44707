/* The loop of polls on a scripted transport: what it asks, what it does with each answer and each failure. */
(function () {
  /* Fails the held request after `ms`, and says in how many ms the next one goes out (-1: not within two minutes). */
  function failAfter(it, ms, status, body, header) {
    var before = it.script.sent.length, waited = 0;
    it.clock.pass(ms);
    it.script.last().answer(status, body || '', header);
    while (it.script.sent.length === before && waited < 120000) {
      it.clock.pass(10);
      waited += 10;
    }
    return it.script.sent.length === before ? -1 : waited;
  }

  test('first request asks for the cursor at once, the second one is held from there', function () {
    var it = new Scripted(), first = it.script.last();
    equal([first.last_event_id, first.hold, first.envelope, first.flavor], ['now', '0.1', '1', undefined]);
    equal([first.base, first.channels, first.n], ['/e', ['cheese'], '1']);
    it.clock.pass(150);
    first.answer(200, envelope(10));
    equal([it.events.state, it.events.cursor], ['live', '10']);
    equal([it.script.last().last_event_id, it.script.last().hold, it.script.last().n], ['10', '25', '2']);
    equal(it.script.last().tab, first.tab);
    equal(it.script.last().waitId, first.waitId);
    equal(it.script.pending(), 1);
  });

  test('first request that fails does not move the cursor', function () {
    var it = new Scripted();
    it.script.last().answer(502, '<html>');
    it.clock.pass(5000);
    equal(it.script.last().last_event_id, 'now');
    equal(it.events.cursor, 'now');
  });

  test('events arrive once, in order, with their parts', function () {
    var it = held(), got = [];
    it.events.on('made', function (data, event) {
      got.push([data.name, event.id, event.channel, event.type, event.ts, this === it.events]);
    });
    it.script.last().answer(200, '{"events":[' + record(11, 'cheese', 'made', '{"name":"Gouda"}') + '],"cursor":"11","reconnect_in":0,"hold":25,"short_poll":false,"end":1}');
    equal(got, [['Gouda', '11', 'cheese', 'made', '2014-07-23T14:25:22.123Z', true]]);
    it.script.last().answer(200, envelope(12, [11, 12]));
    equal(it.seen, ['11', '12']);
    equal(it.script.last().last_event_id, '12');
  });

  test('cursor of the reply is gone on from, also when no event came', function () {
    var it = held();
    it.clock.pass(25000);
    it.script.last().answer(200, envelope(99));
    equal(it.script.last().last_event_id, '99');
  });

  test('stale answer from a cache moves nothing back', function () {
    var it = held();
    it.script.last().answer(200, envelope(20, [15, 20]));
    it.script.last().answer(200, envelope(15, [12, 15]));
    equal(it.seen, ['15', '20']);
    equal(it.script.last().last_event_id, '20');
  });

  test('ids beyond 2^53 are told apart', function () {
    var it = held();
    it.script.last().answer(200, envelope('9007199254740993', ['9007199254740992', '9007199254740993']));
    equal(it.seen, ['9007199254740992', '9007199254740993']);
    equal(it.script.last().last_event_id, '9007199254740993');
  });

  test('delays of the server are obeyed: envelope', function () {
    var it = held(), count = it.script.sent.length;
    it.script.last().answer(200, envelope(10, [], { reconnect_in: 7, short_poll: true }));
    equal(it.events.state, 'polling');
    it.clock.pass(6999);
    equal(it.script.sent.length, count);
    it.clock.pass(1);
    equal(it.script.sent.length, count + 1);
    equal(it.script.last().hold, '0.1', 'whether it may be held again is asked first');
  });

  test('delays of the server are obeyed: header, of an array without envelope', function () {
    var it = held(), count = it.script.sent.length;
    it.script.last().answer(200, '[]', function (name) {
      return name === 'x-ps-reconnect-in' ? '10' : '';
    });
    it.clock.pass(9999);
    equal(it.script.sent.length, count);
    it.clock.pass(1);
    equal(it.script.sent.length, count + 1);
    equal(it.events.cursor, '10');
  });

  test('without a delay it is 0 after a full hold and after news, 5 s after a quick empty answer', function () {
    var it = held();
    it.clock.pass(24000);
    it.script.last().answer(200, '[]');
    equal(it.script.pending(), 1);
    it.script.last().answer(200, '[' + record(11, 'cheese') + ']');
    equal([it.script.pending(), it.seen, it.events.cursor], [1, ['11'], '11']);
    it.clock.pass(100);
    it.script.last().answer(200, '[]');
    it.clock.pass(4999);
    equal(it.script.pending(), 0);
    it.clock.pass(1);
    equal(it.script.pending(), 1);
  });

  test('delay of an error is obeyed, from its body and from its header', function () {
    var it = held(), wait;
    wait = failAfter(it, 20, 503, '{"title":"x","status":503,"code":"log_unavailable","detail":"y","reconnect_in":7}');
    equal(wait, 7000);
    equal(it.events.state, 'down');
    it.script.last().answer(200, envelope(10));
    equal(it.events.state, 'live');
    wait = failAfter(it, 20, 503, '<html>', function (name) {
      return name === 'x-ps-reconnect-in' ? '9' : '';
    });
    equal(wait, 9000);
  });

  test('error in the body of a padded hold is the server speaking, not a cut', function () {
    var it = held(), wait;
    failAfter(it, 20000, 504);
    it.script.last().answer(200, envelope(10));
    equal(it.script.last().pad, '4096');
    wait = failAfter(it, 15000, 200, '   {"title":"x","status":503,"code":"log_unavailable","detail":"y","reconnect_in":6}    ');
    equal(wait, 6000);
    equal(it.script.last().cut, undefined);
  });

  test('hold that is cut late is followed at once, and reported once', function () {
    var rows = [0, 502, 503, 504, 408, 12002, 12030, 12031, 12152, 200], i, it, wait;
    for (i = 0; i < rows.length; i++) {
      it = held();
      wait = failAfter(it, 20013, rows[i], rows[i] === 200 ? '<html>Too long</html>' : '');
      equal(wait, 0, 'status ' + rows[i]);
      equal([it.script.last().cut, it.script.last().hold], [undefined, '0.1'], 'is the server there?');
      equal(it.events.state, 'live', 'nobody is down');
      it.script.last().answer(200, envelope(10));
      equal(it.script.last().cut, '20013.' + rows[i]);
      equal([it.script.last().pad, it.script.last().beat], ['4096', '8'], 'padded from now on');
      it.script.last().answer(200, envelope(10));
      equal(it.script.last().cut, undefined, 'once');
    }
  });

  test('time-outs by code are followed at once, however quick', function () {
    var rows = [504, 408, 12002], i;
    for (i = 0; i < rows.length; i++) equal(failAfter(held(), 3000, rows[i]), 0, 'status ' + rows[i]);
  });

  test('quick failures are backed off', function () {
    var rows = [500, 502, 503, 404, 401, 407, 302, 200, 204, 1223], i, wait;
    for (i = 0; i < rows.length; i++) {
      wait = failAfter(held(), 20, rows[i], rows[i] === 200 ? '<html>Welcome to the hotel</html>' : '');
      truth(wait >= 500 && wait <= 1010, 'status ' + rows[i] + ' waits ' + wait);
    }
  });

  test('dead kept connection is tried anew once, then backed off', function () {
    var rows = [0, 12029, 12030, 12031, 12152], i, it, wait;
    for (i = 0; i < rows.length; i++) {
      it = held();
      equal(failAfter(it, 20, rows[i]), 0, 'status ' + rows[i]);
      wait = failAfter(it, 20, rows[i]);
      truth(wait >= 1000 && wait <= 2010, 'then waits ' + wait);
      wait = failAfter(it, 20, rows[i]);
      truth(wait >= 2000 && wait <= 4010, 'then waits ' + wait);
    }
  });

  test('failures in a row wait up to a minute, and one success forgets them', function () {
    var it = held(), wait, i;
    for (i = 0; i < 10; i++) wait = failAfter(it, 20, 500);
    truth(wait >= 30000 && wait <= 60010, 'waits ' + wait);
    equal(it.events.state, 'down');
    it.script.last().answer(200, envelope(10));
    wait = failAfter(it, 20, 500);
    truth(wait <= 1010, 'waits ' + wait);
  });

  test('body that was cut is a failure and applies nothing', function () {
    var whole = envelope(12, [11, 12]), i, it;
    for (i = 1; i < whole.length; i += 7) {
      it = held();
      it.script.last().answer(200, whole.slice(0, i));
      equal([it.seen, it.events.cursor], [[], '10'], 'cut after ' + i);
      it.clock.pass(2000);
      equal(it.script.last().last_event_id, '10');
      it.script.last().answer(200, whole);
      equal(it.seen, ['11', '12']);
    }
  });

  test('server that dies is no cut', function () {
    var it = held();
    failAfter(it, 20000, 0);
    it.script.last().answer(0, '');
    it.clock.pass(3000);
    it.script.last().answer(200, envelope(10));
    equal([it.script.last().cut, it.script.last().pad, it.script.last().hold], [undefined, undefined, '25']);
  });

  test('page that is left while its request is cut learns nothing', function () {
    var it = held(), next;
    it.clock.pass(20000);
    it.script.last().answer(0, '');
    it.hooks.pause();
    next = held({}, { store: it.store });
    equal(next.script.last().pad, undefined);
  });

  test('body that was cut teaches nothing about holds', function () {
    var it = held();
    failAfter(it, 20000, 200, envelope(12, [11, 12]).slice(0, 60));
    it.script.last().answer(200, envelope(10));
    equal(it.script.last().pad, undefined);
    equal(it.script.last().hold, '25');
  });

  test('403, 410 and errors of the request stop the client, which says so', function () {
    var rows = [[403, '', undefined], [410, '', undefined],
      [403, '{"title":"x","status":403,"code":"token_expired","detail":"get a new one"}', 'token_expired'],
      [400, '{"title":"x","status":400,"code":"channel_empty","detail":"name it","reconnect_in":60}', 'channel_empty']];
    var i, it;
    for (i = 0; i < rows.length; i++) {
      it = held();
      equal(failAfter(it, 20, rows[i][0], rows[i][1]), -1, 'status ' + rows[i][0]);
      equal(it.events.state, 'stopped');
      equal([it.detail.status, it.detail.code], [rows[i][0], rows[i][2]]);
      equal(it.clock.timers(), 0, 'no timer is left');
      it.events.start();
      equal(it.script.last().last_event_id, '10', 'it can be started anew');
    }
  });

  test('404 of somebody else may be a deployment', function () {
    truth(failAfter(held(), 20, 404, '<html>not found</html>') > 0, 'comes back');
  });

  test('request that never ends is given up, whatever its readyState', function () {
    var it = held(), lost = it.script.last();
    it.clock.pass(34000);
    truth(lost.open, 'hold and 10 s are not over');
    it.clock.pass(1100);
    truth(lost.aborted, 'aborted');
    equal(it.script.pending(), 1);
    lost.done(200, envelope(50, [50]), noHeader);
    equal([it.seen, it.script.pending()], [[], 1], 'what comes late is ignored');
    it.script.last().answer(200, envelope(10));
    equal([it.script.last().cut, it.script.last().pad, it.script.last().beat], [undefined, '4096', '1'],
      'nobody knows when it died');
  });

  test('slow line gets more time', function () {
    var it = new Scripted();
    it.clock.pass(6100);
    it.script.last().answer(200, envelope(10));
    it.clock.pass(42000);
    truth(it.script.last().open, 'hold and three round trips are not over');
    it.clock.pass(1100);
    equal(it.script.sent.length, 3);
  });

  test('batch too slow for the watchdog gets longer each time', function () {
    var it = held(), limits = [], i, began;
    for (i = 0; i < 4; i++) {
      began = it.clock.now;
      while (it.script.sent.length < 3 + i) it.clock.pass(100);
      limits.push(Math.round((it.clock.now - began) / 1000));
    }
    truth(limits[1] >= 20 && limits[2] >= 40, text(limits));
  });

  test('callback that comes twice counts once', function () {
    var it = held(), first = it.script.last();
    first.answer(200, envelope(11, [11]));
    first.done(200, envelope(11, [11]), noHeader);
    first.done(0, '', noHeader);
    equal([it.seen, it.script.pending(), it.script.sent.length], [['11'], 1, 3]);
  });

  test('send that throws is a failure like others', function () {
    var thrown = 0, it = held(), send = it.env.send;
    it.env.send = function () {
      thrown++;
      throw new Error('0x800C0008');
    };
    it.script.last().answer(200, envelope(10));
    it.clock.pass(600);
    equal(thrown, 2, 'one at once, the next after a second');
    it.env.send = send;
    it.clock.pass(3000);
    equal(it.script.pending(), 1);
  });

  test('browser that answers from within send does not pile up calls', function () {
    var depth = 0, deepest = 0, sent = 0, it;
    it = new Scripted({}, {
      send: function (url, done) {
        depth++;
        sent++;
        deepest = Math.max(deepest, depth);
        if (sent < 50) done(200, envelope(10 + sent, [10 + sent]), noHeader);
        depth--;
        return function () {};
      }
    });
    it.clock.pass(1000);
    equal([deepest, sent, it.seen.length], [1, 50, 49]);
  });

  test('not more than 3 requests go out at once within 10 s, whatever a proxy answers', function () {
    var times = [], it = new Scripted({}, {
      send: function (url, done) {
        times.push(it ? it.clock.now : 0);
        it.clock.later(function () {
          done(200, envelope(10), noHeader);
        }, 1);
        return function () {};
      }
    }), i, worst = 0;
    it.clock.pass(60000);
    for (i = 5; i < times.length; i++) {
      if (times[i] - times[i - 1] < 490 && times[i - 4] && times[i] - times[i - 4] < 10000 &&
          times[i - 1] - times[i - 2] < 490 && times[i - 2] - times[i - 3] < 490 && times[i - 3] - times[i - 4] < 490) worst++;
    }
    equal(worst, 0, 'four at once');
    truth(times.length < 120, times.length + ' requests in a minute');
  });

  test('504 of a dead server behind a proxy does not become a storm', function () {
    var count = 0, it = held();
    it.env.send = function (url, done) {
      count++;
      it.clock.later(function () {
        done(504, '', noHeader);
      }, 5);
      return function () {};
    };
    it.script.last().answer(504, '');
    it.clock.pass(60000);
    truth(count >= 4 && count < 30, count + ' requests in a minute');
  });

  test('shortened hold of the server is obeyed', function () {
    var it = held();
    it.script.last().answer(200, envelope(10, [], { hold: 12 }));
    equal(it.script.last().hold, '12');
  });

  test('own shorter hold is asked for', function () {
    equal(held({ hold: 8 }).script.last().hold, '8');
  });

  test('padded hold that is cut again at the same time becomes a shorter one, and errors end', function () {
    var it = held();
    failAfter(it, 20000, 502);
    it.script.last().answer(200, envelope(10));
    equal(it.events.transport, 'padded');
    failAfter(it, 20000, 502);
    it.script.last().answer(200, envelope(10));
    equal([it.script.last().hold, it.script.last().pad], ['16', undefined]);
    equal(it.events.transport, 'long-poll');
  });

  test('cuts within 3 s end in short-polls', function () {
    var it = held(), i;
    for (i = 0; i < 2; i++) {
      it.clock.pass(3000);
      it.script.last().answer(0, '');
      while (!it.script.pending()) it.clock.pass(100);
      it.script.last().answer(200, envelope(10));
    }
    equal(it.script.last().flavor, 'short-poll');
    it.script.last().answer(200, envelope(10, [], { reconnect_in: 5, short_poll: true }));
    equal([it.events.state, it.events.transport], ['polling', 'short-poll']);
  });

  test('what was learned is known after the next load, for a day', function () {
    var it = held(), next, i;
    failAfter(it, 20000, 502);
    it.script.last().answer(200, envelope(10));
    for (i = 0; i < 2; i++) {
      next = new Scripted({}, { store: it.store });
      if (i) it.clock.pass(0);
      next.clock.now = it.clock.now + (i ? 864e5 + 100000 : 3600000);
      next.events.stop();
      next.events.start();
      next.clock.pass(100);
      next.script.last().answer(200, envelope(10));
      equal(next.script.last().pad, i ? undefined : '4096', i ? 'after a day' : 'after an hour');
    }
  });

  test('sleep is not a cut: asks at once and reports nothing', function () {
    var it = held(), before = it.script.last();
    it.clock.pass(5000);
    it.clock.sleep(3600000);
    it.clock.pass(10);
    truth(before.aborted, 'the dead request is dropped');
    equal(it.script.pending(), 1);
    equal([it.script.last().cut, it.script.last().hold, it.script.last().last_event_id], [undefined, '0.1', '10']);
    it.script.last().answer(200, envelope(10));
    equal(it.script.last().pad, undefined);
  });

  test('request that dies in sleep is not a cut either', function () {
    var it = held();
    it.clock.sleep(3600000);
    it.script.last().answer(0, '');
    equal([it.script.pending(), it.script.last().hold], [1, '0.1']);
    it.script.last().answer(200, envelope(10));
    equal([it.script.last().cut, it.script.last().pad], [undefined, undefined]);
  });

  test('sleep is seen within 5 s where timers sleep as well', function () {
    var it = held(), before = it.script.last();
    it.clock.pass(2000);
    it.clock.sleep(100000, true);
    it.clock.pass(5000);
    truth(before.aborted, 'the dead request is dropped');
    equal(it.script.last().hold, '0.1');
  });

  test('page that goes away aborts and does not come back; one that returns goes on', function () {
    var it = held(), gone = it.script.last(), count;
    it.hooks.pause();
    truth(gone.aborted, 'aborted');
    count = it.script.sent.length;
    it.clock.pass(200000);
    equal([it.script.sent.length, it.clock.timers()], [count, 0]);
    it.hooks.resume();
    equal([it.script.pending(), it.script.last().last_event_id], [1, '10']);
  });

  test('page that was stopped stays stopped when it returns', function () {
    var it = held();
    it.events.stop();
    it.hooks.pause();
    it.hooks.resume();
    equal([it.script.pending(), it.events.state], [0, 'stopped']);
  });

  test('network that returns is asked at once', function () {
    var it = held(), i;
    for (i = 0; i < 8; i++) failAfter(it, 20, 0);
    it.script.last().answer(0, '');
    equal(it.script.pending(), 0);
    it.hooks.kick();
    equal(it.script.pending(), 1);
  });

  test('gap is told, and gone on behind', function () {
    var it = held();
    it.script.last().answer(200, '{"events":[' + gapRecord(900, 10, 901, 'trimmed') + ',' + record(901, 'cheese') +
      '],"cursor":"901","reconnect_in":0,"hold":25,"short_poll":false,"end":1}');
    equal([it.gaps, it.seen], [[{ after: 10, before: 901, reason: 'trimmed' }], ['901']]);
    equal(it.script.last().last_event_id, '901');
  });

  test('log that begins anew is followed to its lower ids', function () {
    var it = held();
    it.script.last().answer(200, '{"events":[' + gapRecord(2, 10, 3, 'ahead') + ',' + record(3, 'cheese') +
      '],"cursor":"4","reconnect_in":0,"hold":25,"short_poll":false,"end":1}');
    equal([it.gaps.length, it.seen, it.events.cursor], [1, ['3'], '4']);
    it.script.last().answer(200, envelope(5, [5]));
    equal(it.seen, ['3', '5']);
  });

  test('handlers: off, many, and one that throws stops nobody', function () {
    var it = held(), calls = [], thrown = null;
    function one() {
      calls.push(1);
    }
    it.events.on('made', function () {
      throw new Error('mine');
    }).on('made', one).on('made', function () {
      calls.push(2);
    });
    it.script.last().answer(200, envelope(11, [11]));
    try {
      it.clock.pass(1);
    } catch (error) {
      thrown = error.message;
    }
    equal([calls, thrown], [[1, 2], 'mine'], 'the page hears of it');
    it.events.off('made', one);
    it.script.last().answer(200, envelope(12, [12]));
    equal(calls, [1, 2, 2]);
    try {
      it.clock.pass(1);
    } catch (again) {}
    it.events.off('made');
    it.script.last().answer(200, envelope(13, [13]));
    equal(calls, [1, 2, 2]);
  });

  test('types may be named like properties of objects', function () {
    var it = held(), got = 0;
    it.events.on('constructor', function () {
      got++;
    });
    it.script.last().answer(200, '[' + record(11, 'cheese', 'toString') + ',' + record(12, 'cheese', '__proto__') + ',' +
      record(13, 'cheese', 'constructor') + ',' + record(14, 'cheese', 'state') + ']');
    equal([got, it.seen, it.states.length], [1, ['11', '12', '13', '14'], 2]);
  });

  test('handler that stops the client gets nothing more, and all of it after a new start', function () {
    var it = held();
    it.events.on('made', function () {
      if (it.seen.length === 1) it.events.stop();
    });
    it.script.last().answer(200, envelope(13, [11, 12, 13]));
    equal([it.seen, it.events.cursor, it.script.pending()], [['11', '12'], '12', 0]);
    it.events.start();
    equal(it.script.last().last_event_id, '12');
    it.script.last().answer(200, envelope(13, [13]));
    equal(it.seen, ['11', '12', '13']);
  });

  test('handler that stops and starts loses and doubles nothing', function () {
    var it = held();
    it.events.on('made', function () {
      it.events.stop();
      it.events.start();
    });
    it.script.last().answer(200, envelope(13, [11, 12, 13]));
    equal([it.seen, it.script.pending()], [['11', '12', '13'], 1]);
  });

  test('cursor is kept over loads when asked', function () {
    var session = new Store(), it = held({ keep: true }, { session: session }), next;
    it.script.last().answer(200, envelope(12, [11, 12]));
    it.hooks.pause();
    next = new Scripted({ keep: true }, { session: session });
    equal(next.script.last().last_event_id, '12');
    next.script.last().answer(200, envelope(14, [12, 13, 14]));
    equal(next.seen, ['13', '14']);
  });

  test('parameters, several channels and odd names are in the URL', function () {
    var it = new Scripted({ parameters: { token: 'a b&c' }, url: '/e.php', waitId: 'me' }), request;
    equal([it.script.last().token, it.script.last().base, it.script.last().waitId], ['a b&c', '/e.php', 'me']);
    request = new Scripted({ parameters: { token: 'a b&c' } }, {});
    it = new Everpoll.Core(['k\u00e4se', 'a b'], { share: false }, request.env).start();
    truth(request.script.last().url.indexOf('/e/k%C3%A4se,a%20b/') === 0, request.script.last().url);
  });

  test('next endpoint serves while the first is down, and the first is returned to', function () {
    var it = new Scripted({ url: ['https://one/e', '/e.php'] }), i, last;
    it.script.last().answer(502, '');
    it.clock.pass(10);
    equal(it.script.last().base, '/e.php', 'at once');
    it.script.last().answer(200, envelope(10, [], { short_poll: true, reconnect_in: 5 }));
    equal(it.events.state, 'polling');
    for (i = 0; i < 40; i++) {
      it.clock.pass(1000);
      last = it.script.last();
      if (last.open && last.base === '/e.php') last.answer(200, envelope(10, [], { short_poll: true, reconnect_in: 5 }));
    }
    equal(it.script.last().base, 'https://one/e', 'it is tried again');
    it.script.last().answer(502, '');
    it.clock.pass(10);
    equal(it.script.last().base, '/e.php', 'still down');
    for (i = 0; i < 70; i++) {
      it.clock.pass(1000);
      last = it.script.last();
      if (last.open) last.answer(200, envelope(10, [], last.base === '/e.php' ? { short_poll: true, reconnect_in: 5 } : {}));
      if (last.base !== '/e.php') break;
    }
    it.clock.pass(100);
    equal([it.script.last().base, it.events.state, it.script.last().hold], ['https://one/e', 'live', '25']);
  });

  test('when all endpoints are down they are backed off together', function () {
    var it = new Scripted({ url: ['/a', '/b', '/c'] }), bases = [], i;
    for (i = 0; i < 6; i++) {
      bases.push(it.script.last().base);
      it.script.last().answer(502, '');
      it.clock.pass(i < 2 ? 10 : 5000);
    }
    equal(bases.slice(0, 3), ['/a', '/b', '/c']);
    equal(bases[3], '/a');
    equal(it.events.state, 'down');
  });

  test('stopped client has neither requests nor timers', function () {
    var it = held();
    it.events.stop();
    equal([it.clock.timers(), it.script.pending(), it.events.state], [0, 0, 'stopped']);
  });

  test('2,000 polls leave one timer and one request', function () {
    var it = held(), i;
    for (i = 0; i < 2000; i++) it.script.last().answer(200, envelope(11 + i, [11 + i]));
    equal([it.seen.length, it.script.pending()], [2000, 1]);
    truth(it.clock.timers() <= 3, it.clock.timers() + ' timers');
  });

  test('jQuery hears of events without its methods being called', function () {
    var heard = [], it, $ = function (object) {
      return {
        triggerHandler: function (type, values) {
          heard.push([type, object === it.events, values.length]);
        }
      };
    };
    it = new Scripted({ jQuery: $ });
    heard = [];
    it.script.last().answer(200, envelope(10));
    it.script.last().answer(200, '[' + record(11, 'cheese', 'product.data') + ',' + record(12, 'cheese', 'stop') + ']');
    equal(heard, [['state', true, 2], ['product.data', true, 2], ['*', true, 2], ['stop', true, 2], ['*', true, 2]]);
    equal(it.events.state, 'live');
  });
})();
