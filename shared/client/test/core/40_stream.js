/* EventSource and WebSocket: opened after the first answer, kept while they speak, left when they are mute, cut or
   buffered. */
(function () {
  var second = 1000;

  function iso(ms) {
    function two(n) {
      return (n < 10 ? '0' : '') + n;
    }
    var d = new Date(ms);
    return d.getUTCFullYear() + '-' + two(d.getUTCMonth() + 1) + '-' + two(d.getUTCDate()) + 'T' + two(d.getUTCHours()) +
      ':' + two(d.getUTCMinutes()) + ':' + two(d.getUTCSeconds()) + '.000Z';
  }

  function control(type, data, ms, socket) {
    return socket ? '{"id":10,"channel_id":"cheese","type":"everpoll:' + type + '","data":' + data + ',"ts":"' + iso(ms) + '"}' :
      '{"id":10,"channel_id":"cheese","ts":"' + iso(ms) + '","data":{"type":"everpoll:' + type + '","data":' + data + '}}';
  }

  /* A client whose stream was just opened. */
  function opened(kind, more) {
    return held({ transport: kind || 'eventsource' }, more);
  }

  function hello(it, at) {
    it.streams[it.streams.length - 1].got(control('hello', '{"cursor":"10","beat":5}', at || it.clock.now));
  }

  function beat(it, n, cursor, at) {
    it.streams[it.streams.length - 1].got(control('beat', '{"n":' + n + ',"cursor":"' + cursor + '"}', at || it.clock.now));
  }

  test('stream is opened after the first answer, from its cursor', function () {
    var it = new Scripted({ transport: 'eventsource' }), query;
    equal(it.streams.length, 0);
    it.clock.pass(50);
    it.script.last().answer(200, envelope(10));
    query = it.streams[0].query;
    equal([query.last_event_id, query.flavor, query.envelope, query.beat, query.base], ['10', 'eventsource', '1', '5', '/e']);
    equal(it.script.pending(), 0, 'one connection');
    equal(+query.n, 2, 'counted with the polls');
    hello(it);
    equal([it.events.state, it.events.transport], ['live', 'eventsource']);
  });

  test('events of a stream arrive once, and move the cursor', function () {
    var it = opened();
    hello(it);
    it.streams[0].got(record(11, 'cheese'));
    it.streams[0].got(record(11, 'cheese'));
    it.streams[0].got(record('9007199254740993', 'cheese'));
    equal([it.seen, it.events.cursor], [['11', '9007199254740993'], '9007199254740993']);
  });

  test('frames of a WebSocket are read, too', function () {
    var it = opened('websocket'), got = [];
    it.events.on('made', function (data, event) {
      got.push([data.a, event.id, event.channel]);
    });
    it.streams[0].got(control('hello', '{"cursor":"10","beat":5}', it.clock.now, true));
    it.streams[0].got('{"id":11,"channel_id":"cheese","type":"made","data":{"a":1},"ts":"2014-07-23T14:25:22.123Z"}');
    equal([got, it.events.transport], [[[1, '11', 'cheese']], 'websocket']);
  });

  test('beat moves the cursor of a quiet channel', function () {
    var it = opened();
    hello(it);
    it.clock.pass(5 * second);
    beat(it, 1, 440);
    equal(it.events.cursor, '440');
  });

  test('gap in a stream is told', function () {
    var it = opened();
    hello(it);
    it.streams[0].got(gapRecord(900, 10, 901, 'trimmed'));
    equal([it.gaps.length, it.events.cursor, it.seen], [1, '900', []]);
  });

  test('stream without a first word is left for polls within 5 s, from the same cursor', function () {
    var it = opened();
    it.clock.pass(3900);
    truth(it.streams[0].open, 'patience');
    it.clock.pass(1100);
    truth(!it.streams[0].open, 'closed');
    equal([it.script.pending(), it.script.last().last_event_id], [1, '10']);
    equal(it.events.transport, 'long-poll');
    it.script.last().answer(200, envelope(10));
    equal(it.streams.length, 1, 'not at once again');
    equal(it.script.last().hold, '25');
  });

  test('three mute streams, and polls stay for a day', function () {
    var it = opened(), i, next;
    for (i = 0; i < 400; i++) {
      if (it.script.pending()) it.script.last().answer(200, envelope(10 + i));
      it.clock.pass(second);
    }
    equal(it.streams.length, 3);
    equal(it.script.last().flavor, undefined);
    next = opened('eventsource', { store: it.store });
    equal(next.streams.length, 0, 'also after the next load');
    next = opened('websocket', { store: it.store });
    equal(next.streams.length, 1, 'another transport may work');
  });

  test('stream that goes silent is left after 2.5 beats', function () {
    var it = opened();
    hello(it);
    it.clock.pass(5 * second);
    beat(it, 1, 10);
    it.clock.pass(12 * second);
    truth(it.streams[0].open, 'patience');
    it.clock.pass(second);
    truth(!it.streams[0].open, 'closed');
    equal(it.script.pending(), 1);
  });

  test('beats that were sent apart and arrive together mean a buffer', function () {
    var it = opened(), at = it.clock.now;
    it.clock.pass(3 * second);
    hello(it, at);
    beat(it, 1, 10, at + 5 * second);
    truth(!it.streams[0].open, 'closed');
    equal(it.script.pending(), 1);
  });

  test('old events that arrive together do not', function () {
    var it = opened(), i;
    hello(it);
    for (i = 11; i < 100; i++) it.streams[0].got(record(i, 'cheese'));
    truth(it.streams[0].open, 'open');
    equal(it.seen.length, 89);
  });

  test('stream that was cut is followed by a poll at once, then opened again', function () {
    var it = opened();
    hello(it);
    it.clock.pass(5 * second);
    beat(it, 1, 10);
    it.clock.pass(8 * second);
    it.streams[0].ended('');
    equal([it.script.pending(), it.script.last().hold, it.script.last().last_event_id], [1, '0.1', '10']);
    it.script.last().answer(200, envelope(11, [11]));
    equal([it.streams.length, it.seen, it.streams[1].query.last_event_id], [2, ['11'], '11']);
  });

  test('stream that keeps being cut early is given up', function () {
    var it = opened(), i;
    for (i = 0; i < 300; i++) {
      if (it.streams[it.streams.length - 1].open) {
        hello(it);
        it.clock.pass(2 * second);
        it.streams[it.streams.length - 1].open = false;
        it.streams[it.streams.length - 1].ended('');
      }
      if (it.script.pending()) it.script.last().answer(200, envelope(10));
      it.clock.pass(second);
    }
    equal(it.streams.length, 3);
  });

  test('end of a stream tells when to come back, and is no fault', function () {
    var it = opened(), i;
    for (i = 0; i < 5; i++) {
      hello(it);
      it.clock.pass(second);
      it.streams[i].got(control('end', '{"reconnect_in":3,"reason":"draining"}', it.clock.now));
      equal(it.script.pending(), 0);
      it.clock.pass(2900);
      equal(it.script.pending(), 0);
      it.clock.pass(200);
      equal(it.script.pending(), 1);
      it.script.last().answer(200, envelope(10));
      equal(it.streams.length, i + 2);
    }
  });

  test('reason of a WebSocket\'s close tells when to come back', function () {
    var it = opened('websocket');
    it.clock.pass(second);
    it.streams[0].ended('reconnect_in=3');
    it.clock.pass(2900);
    equal(it.script.pending(), 0);
    it.clock.pass(200);
    equal(it.script.pending(), 1);
  });

  test('fallback is not asked for a stream', function () {
    var it = new Scripted({ transport: 'eventsource' });
    it.script.last().answer(200, envelope(10, [], { short_poll: true, reconnect_in: 5 }));
    it.clock.pass(30000);
    equal(it.streams.length, 0);
  });

  test('browser without the transport polls', function () {
    var it = opened('websocket', { opens: function () {
      return false;
    } });
    equal([it.streams.length, it.script.last().hold], [0, '25']);
  });

  test('stopped client closes its stream, and what comes late is ignored', function () {
    var it = opened();
    hello(it);
    it.events.stop();
    truth(!it.streams[0].open, 'closed');
    it.streams[0].got(record(11, 'cheese'));
    it.streams[0].ended('');
    equal([it.seen, it.script.pending(), it.clock.timers()], [[], 0, 0]);
  });

  test('sleep is no fault of a stream', function () {
    var it = opened(), i;
    hello(it);
    for (i = 0; i < 4; i++) {
      it.clock.pass(5 * second);
      it.clock.sleep(3600000);
      it.clock.pass(100);
      if (it.script.pending()) it.script.last().answer(200, envelope(10));
      hello(it);
    }
    equal([it.events.transport, it.streams[it.streams.length - 1].open], ['eventsource', true]);
  });
})();
