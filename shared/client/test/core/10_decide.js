/* The pure decisions: order of ids, delays, kinds of failure, choice of hold, reading of replies. */
(function () {
  var decide = Everpoll.Core.decide, PLAIN = 0, PADDED = 1, SHORTENED = 2, SHORT = 3;

  function after(cuts, wanted, longest, pads) {
    var fit = decide.fresh(), i;
    for (i = 0; i < cuts.length; i++) {
      fit = decide.learn(fit, cuts[i], wanted || 25, longest || 120, pads === undefined ? true : pads);
    }
    return fit;
  }

  function clean(fit, times) {
    for (; times > 0; times--) fit = decide.learn(fit, 0, 25, 120, true);
    return fit;
  }

  test('ids are ordered as numbers of any size', function () {
    truth(decide.above('10', '9'), '10 > 9');
    truth(!decide.above('9', '10'), '9 < 10');
    truth(!decide.above('9', '9'), '9 = 9');
    truth(decide.above('9007199254740993', '9007199254740992'), 'beyond 2^53');
    truth(decide.above('1', 'now') && decide.above('1', 'rt-1400000000.5'), 'before the first reply all is new');
  });

  test('backoff doubles from 1 to 60 s, less up to a half', function () {
    var low = [], high = [], i;
    for (i = 1; i < 10; i++) {
      high.push(decide.backoff(i, 0));
      low.push(decide.backoff(i, 0.999999));
    }
    equal(high, [1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000]);
    equal(low[0], 500);
    equal(low[8], 30000);
  });

  test('failures are told apart by the time they took', function () {
    var cases = [
      [0, 20000, '', 'cut'], [0, 9999, '', 'fail'], [502, 20000, '', 'cut'], [503, 61000, '', 'cut'],
      [502, 20, '', 'fail'], [500, 20, '', 'fail'], [503, 20, '', 'fail'], [504, 20, '', 'cut'], [408, 20, '', 'cut'],
      [12002, 20, '', 'cut'], [12007, 20, '', 'fail'], [12029, 20, '', 'fail'], [12030, 20, '', 'fail'],
      [12031, 20, '', 'fail'], [12152, 20, '', 'fail'], [12030, 15000, '', 'cut'], [200, 20000, '', 'cut'],
      [200, 20, '', 'fail'], [204, 20, '', 'fail'], [1223, 20, '', 'fail'], [302, 20, '', 'fail'],
      [403, 20, '', 'stop'], [410, 20, '', 'stop'], [403, 20000, '', 'stop'],
      [404, 20, '', 'fail'], [404, 20, 'not_found', 'stop'], [400, 20, 'cursor_malformed', 'stop'],
      [429, 20, 'too_many_requests', 'fail'], [408, 20, 'head_timeout', 'fail'], [503, 20000, 'log_unavailable', 'fail'],
      [407, 20, '', 'fail'], [401, 20, '', 'fail']
    ], i, one;
    for (i = 0; i < cases.length; i++) {
      one = cases[i];
      equal(decide.verdict(one[0], one[1], one[2]), one[3], one[0] + ' after ' + one[1] + ' ' + one[2]);
    }
  });

  test('hold is padded after the first cut, with a beat below 0.4 of it', function () {
    var fit = after([20000]);
    equal([fit.m, fit.b], [PADDED, 8]);
    equal(decide.plan(fit, 25, 120), { hold: 25, beat: 8 });
    equal(after([60000]).b, 10);
    equal(after([3000]).b, 1);
    equal(after([8000]).b, 3);
  });

  test('padded hold grows while it is clean, to the longest', function () {
    var fit = clean(after([20000]), 1);
    equal(decide.plan(fit, 25, 120).hold, 31.25);
    equal(decide.plan(clean(fit, 12), 25, 120).hold, 120);
    equal(decide.plan(clean(after([20000], 25, 40), 12), 25, 40).hold, 40);
  });

  test('padded hold that is cut at the same time is shortened instead', function () {
    var fit = after([20000, 20500]);
    equal(fit.m, SHORTENED);
    equal(decide.plan(fit, 25, 120), { hold: 16.4, beat: 0 });
  });

  test('padded hold that is cut much later stays padded, below that', function () {
    var fit = decide.learn(clean(after([20000]), 7), 90000, 25, 120, true);
    equal(decide.plan(fit, 25, 120), { hold: 72, beat: 8 });
    equal(decide.plan(clean(fit, 5), 25, 120).hold, 72);
  });

  test('shortened hold is shortened again by the next cut', function () {
    equal(decide.plan(after([20000, 20000, 10000]), 25, 120).hold, 8);
  });

  test('two cuts within 5 s make short-polls', function () {
    equal(after([3000, 3000]).m, SHORT);
    equal(decide.plan(after([3000, 3000]), 25, 120).hold, 0);
    equal(after([3000, 8000]).m, PADDED);
    equal(clean(after([3000]), 1).q, 0);
  });

  test('transport that cannot pad is shortened at once', function () {
    var fit = after([20000], 25, 120, false);
    equal([fit.m, fit.h], [SHORTENED, 16]);
  });

  test('after 20 clean holds a better kind is tried, and kept when it holds', function () {
    var fit = clean(after([20000]), 20);
    equal(fit.m, PLAIN);
    fit = clean(fit, 1);
    equal([fit.m, fit.p], [PLAIN, -1]);
  });

  test('better kind that is cut is left at once, and tried half as often', function () {
    var fit = clean(after([20000, 20000]), 20);
    equal(fit.m, SHORTENED);
    equal(fit.h, 20);
    fit = decide.learn(fit, 19500, 25, 120, true);
    equal([fit.m, fit.h, fit.n], [SHORTENED, 16, 40]);
    equal(clean(fit, 39).h, 16);
    equal(clean(fit, 40).h, 20);
  });

  test('short-polls try a padded hold after 20 clean ones', function () {
    var fit = clean(after([3000, 3000]), 20);
    equal([fit.m, fit.b], [PADDED, 1]);
    equal(decide.learn(fit, 3000, 25, 120, true).m, SHORT);
  });

  test('shortened hold is 1 s at least and becomes plain at the wanted length', function () {
    var fit = after([6000, 6000]);
    equal(fit.m, SHORTENED);
    equal(decide.plan(after([6000, 6000, 1000]), 25, 120).hold, 1);
    fit.h = 24;
    equal(clean(fit, 20).m, PLAIN);
  });

  test('reply is read only when it is whole', function () {
    var whole = '{"events":[],"cursor":"1","end":1}', i;
    equal(decide.read(whole).cursor, '1');
    for (i = 1; i < whole.length; i++) equal(decide.read(whole.slice(0, i)), null, whole.slice(0, i));
    equal(decide.read(''), null);
    equal(decide.read('<html>Please pay</html>'), null);
    equal(decide.read('{"events":[{"id":1,"data":{"x":{"end":1}'), null);
    equal(decide.read('"text"'), null);
  });

  test('mark of byte order, padding and an appended comment are taken off', function () {
    var whole = '{"events":[],"cursor":"1","end":1}';
    equal(decide.read('\ufeff' + whole).cursor, '1');
    equal(decide.read('    ' + whole + '     ').cursor, '1');
    equal(decide.read(whole + '<!-- seen by a proxy {1} -->').cursor, '1');
    equal(decide.read('[]<!-- seen -->').length, 0);
    equal(decide.read('[{"id":1}'), null);
  });

  test('ids beyond 2^53 survive, and numbers of the page stay numbers', function () {
    var big = '9007199254740993', data = '{"id":' + big + ',"list":[{"id":' + big + '}],"text":"\\"id\\":' + big + '"}',
      one = '{"id":' + big + ',"channel_id":"cheese","ts":"x","data":{"type":"a","data":' + data + '}}', body;
    body = decide.read('{"events":[' + one + '],"cursor":"' + big + '","end":1}');
    equal(body.events[0].id, big);
    equal(typeof body.events[0].data.data.id, 'number');
    equal(typeof body.events[0].data.data.list[0].id, 'number');
    equal(body.events[0].data.data.text, '"id":' + big);
    equal(decide.read('[' + one + ']')[0].id, big);
    equal(decide.read(one).id, big);
  });

  test('text comes through: umlauts, line separators, emoji', function () {
    var body = decide.read('{"events":[{"id":1,"channel_id":"c","data":{"type":"t","data":"\\u00e4\\u2028\\ud83e\\uddc0\\u003c"}}],"end":1}');
    equal(body.events[0].data.data, '\u00e4\u2028\ud83e\uddc0<');
  });

  test('without JSON, text is checked before it is evaluated', function () {
    var json = typeof JSON === 'undefined' ? undefined : JSON, parsed, refused = 0, i, evil = [
      '{"a":alert(1)}', '[x]', '{"a":b}', '[function(){}]', '["a"+"b"]', '[1;2]', '["\\"" ,window]', '{a:1}', "['a']"
    ];
    JSON = undefined;
    try {
      parsed = decide.read('{"events":[{"id":1,"channel_id":"\\u00e4 \\"q\\" {x}","data":{"type":"t","data":[-1.5e3,true,false,null,"\\\\"]}}],"cursor":"1","end":1}');
      for (i = 0; i < evil.length; i++) if (decide.read(evil[i]) === null) refused++;
    } finally {
      JSON = json;
    }
    equal(parsed.events[0].channel_id, '\u00e4 "q" {x}');
    equal(parsed.events[0].data.data, [-1500, true, false, null, '\\']);
    equal(refused, evil.length);
  });
})();
