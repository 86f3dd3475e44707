/* The self-test page: tries each way in which events reach this browser, and says what the network does to it.

   Written for old browsers as well: ES3 syntax, XMLHttpRequest, and streams only where the browser has them. What is measured is what
   a proxy can do to a request: cut it when it is quiet, keep its bytes back, take headers away, answer from a cache, put in a page of its own. */
(function () {
  /* Seconds after the end that a hold should have, until it counts as never answered. */
  var PATIENCE = 15;
  /* Streams send a beat each second. When so many messages have come at distinct times, it streams; so long, ms, it is waited for. */
  var STREAM_BEATS = 4;
  var STREAM_LISTEN = 12000;
  /* A stream that is refused is so sooner than this, ms. */
  var REFUSED = 2500;
  /* Beats that arrive closer together than this, ms, came in one piece. */
  var DISTINCT = 200;
  /* What streams listen to. Nobody publishes there. */
  var CHANNEL = 'everpoll-self-test';

  var base = String(location.pathname).replace(/\/*$/, '');
  /* /e/_probe is below /e, or below /shop/e.php. */
  var polls = base.replace(/\/_probe$/, '');
  var tests = [];
  var waiting = [];
  var running = 0;
  var began = 0;
  /* Connections to the server at once: browsers before IE 8 have two for all, later ones six, of which one is left free. */
  var budget = document.querySelector ? 5 : 2;

  function now() { return new Date().getTime(); }

  function byId(id) { return document.getElementById(id); }

  function seconds(ms) { return (Math.round(ms / 100) / 10).toFixed(1) + ' s'; }

  function unique(url) {
    return url + (url.indexOf('?') < 0 ? '?' : '&') + '_=' + key();
  }

  /* Names a request, so that the server knows it again when it is sent twice on the way. */
  function key() { return now().toString(36) + Math.floor(Math.random() * 1e9).toString(36); }

  function write(node, text) {
    while (node.firstChild) { node.removeChild(node.firstChild); }
    node.appendChild(document.createTextNode(text));
  }

  /* --- Requests ----------------------------------------------------------------------------------------------------------------- */

  /* Sends a request. `done` gets {status, text, json, ms, timedOut, header(name)}; status 0 when there was no reply. `limit` in ms ends a
     request that is never answered; `progress` is told how many bytes there are, and after how many ms. */
  function send(method, url, options, done) {
    var request = new XMLHttpRequest();
    var start = now();
    var over = false;
    var reply = { status: 0, text: '', json: null, ms: 0, timedOut: false, header: function () { return null; } };
    var timer = setTimeout(function () {
      reply.timedOut = true;
      finish();
      try { request.abort(); } catch (e) { /* It has ended anyway. */ }
    }, options.limit);

    function finish() {
      if (over) { return; }
      over = true;
      clearTimeout(timer);
      reply.ms = now() - start;
      done(reply);
    }

    request.open(method, url, true);
    /* Browsers before IE 10 tell of nothing but the end. Not before `open`, which would take it away again. */
    if (options.progress) { request.onprogress = function (event) { options.progress(event.loaded, now() - start); }; }
    var headers = options.headers || {};
    for (var name in headers) {
      if (Object.prototype.hasOwnProperty.call(headers, name)) { request.setRequestHeader(name, headers[name]); }
    }
    request.onreadystatechange = function () {
      if (over) { return; }
      if (request.readyState !== 4) { return; }
      try {
        reply.status = request.status;
        reply.text = request.responseText;
        reply.header = function (name) { return request.getResponseHeader(name); };
      } catch (e) { reply.status = 0; }
      try { reply.json = JSON.parse(reply.text); } catch (e) { reply.json = null; }
      /* `end` is the last of it: what was cut short or put in by somebody else has none. */
      if (reply.json && reply.json.end !== 1) { reply.json = null; }
      finish();
    };
    try {
      request.send(options.body || null);
    } catch (e) { finish(); }
  }

  /* What came instead of a test's answer, as a result. */
  function failure(reply, what) {
    if (reply.timedOut) {
      return { grade: 'bad', result: 'no answer', ms: reply.ms, advice: 'Something on the way keeps ' + what + ' and never answers. Network: let replies pass, or except this host from inspection.' };
    }
    var problem = null;
    try { problem = JSON.parse(reply.text); } catch (e) { /* Not one of ours. */ }
    if (problem && problem.code) {
      return { grade: 'middle', result: 'not tested', ms: reply.ms, advice: 'The server says: ' + (problem.detail || problem.code) };
    }
    if (reply.status === 200) {
      return { grade: 'bad', result: 'replaced', ms: reply.ms, advice: 'Another page came in place of the answer. Network: a login page, block page or scanner changes it; except this host.' };
    }
    return null;
  }

  /* --- Tests -------------------------------------------------------------------------------------------------------------------- */

  function hold(length) {
    return {
      id: 'hold-' + length,
      name: 'Quiet request of ' + length + ' s',
      what: length === 25 ? 'a long-poll, as Everpoll holds it by default' : 'longer than Everpoll holds by default',
      expected: length,
      run: function (done) {
        send('GET', unique(base + '/hold?seconds=' + length + '&key=' + key()), { limit: (length + PATIENCE) * 1000 }, function (reply) {
          if (reply.status === 200 && reply.json) { return done(heldResult(reply, length)); }
          done(failure(reply, 'quiet requests') || cutResult(reply, length));
        });
      }
    };
  }

  function heldResult(reply, length) {
    if (reply.json.ended === 'again') {
      /* The browser, or a proxy, sent it again when it was cut, and did not say so. */
      return cutResult({ status: 0, ms: reply.json.held_ms }, length);
    }
    if (reply.json.ended !== 'time') {
      return { grade: 'middle', result: 'not tested', ms: reply.ms, advice: 'The server was restarted meanwhile; test again.' };
    }
    return { grade: 'good', result: 'works', ms: reply.ms, advice: length === 25 ? 'Nothing to do: hold_max = 25, the default, lives here.' : 'Nothing to do; hold_max could be as long as this.' };
  }

  function cutResult(reply, length) {
    var after = Math.round(reply.ms / 100) / 10;
    var fit = Math.max(1, Math.floor(after * 0.8));
    var how = reply.status ? ' (status ' + reply.status + ')' : '';
    var result = { grade: length === 25 ? 'bad' : 'middle', result: 'cut after ' + after + ' s' + how, ms: reply.ms, cutAfter: after, status: reply.status };
    if (after < 2) {
      result.advice = 'It did not get through at all. Network: allow requests to this host; server: look whether /e reaches Everpoll.';
    } else if (length === 25) {
      result.advice = 'Something on the way ends quiet requests. Everpoll\u2019s client adapts by itself; set hold_max = ' + Math.min(fit, 24) + ' to spare it the cuts. Network: raise the proxy\u2019s read time-out above 30 s.';
    } else {
      result.advice = 'Usual: many proxies end quiet requests after 30 or 60 s. Keep hold_max at ' + Math.min(25, fit) + ' or below, or let clients pad their holds.';
    }
    return result;
  }

  function paddedCut(result) {
    if (result.cutAfter >= 2) {
      result.advice = 'Even a request that is not quiet is ended. The client falls back to short holds and short polls by itself. Network: raise the limit on how long a request may take.';
    }
    return result;
  }

  var padded = {
    id: 'padded-60',
    name: 'Padded request of 60 s',
    what: 'a space every 10 s keeps it alive',
    expected: 60,
    run: function (done) {
      var times = [];
      var length = 0;
      send('GET', unique(base + '/hold?seconds=60&pad=4096&beat=10&key=' + key()), {
        limit: (60 + PATIENCE) * 1000,
        progress: function (size, ms) {
          if (size > length) {
            length = size;
            times.push(ms);
          }
        }
      }, function (reply) {
        if (reply.status === 200 && reply.json) {
          var result = heldResult(reply, 60);
          if (result.grade !== 'good') { return done(paddedCut(result)); }
          result.advice = distinct(times) >= 4 ?
            'Nothing to do: the spaces arrive one by one, so padded holds are as good as streams here.' :
            'Nothing to do: padded holds live here, although the spaces are kept back on the way, or this browser does not show them.';
          return done(result);
        }
        done(paddedCut(failure(reply, 'padded requests') || cutResult(reply, 60)));
      });
    }
  };

  /* How many of these times are apart from the one before. */
  function distinct(times) {
    var count = 0;
    var last = -DISTINCT;
    for (var i = 0; i < times.length; i++) {
      if (times[i] - last >= DISTINCT) {
        count++;
        last = times[i];
      }
    }
    return count;
  }

  /* What a stream's messages say, by when they came. `unavailable`: what the server itself said against it. */
  function streamResult(name, heard, ended) {
    var transport = { EventSource: 'eventsource', WebSocket: 'websocket' }[name];
    if (ended.unavailable) {
      return { grade: 'middle', result: 'not tested', ms: ended.ms, advice: ended.unavailable };
    }
    if (distinct(heard) >= STREAM_BEATS) {
      return { grade: 'good', result: 'works', ms: heard[0], advice: 'Nothing to do: transport \u201c' + transport + '\u201d can be used.', heard: heard };
    }
    if (heard.length >= STREAM_BEATS) {
      return { grade: 'bad', result: 'buffered', ms: heard[0], advice: 'Messages arrive late or together. Stay with long-poll, which is the default. Network: switch off buffering or scanning for ' + (name === 'WebSocket' ? 'WebSocket' : 'text/event-stream') + '.', heard: heard };
    }
    if (heard.length && ended.failed) {
      return { grade: 'bad', result: 'cut after ' + seconds(ended.ms), ms: ended.ms, advice: 'It begins, and is ended. Stay with long-poll. Network: let connections live that carry little.', heard: heard };
    }
    if (ended.opened || heard.length || ended.ms > REFUSED) {
      return { grade: 'bad', result: 'buffered', ms: ended.ms, advice: 'Little or nothing arrives, and nothing is refused: something keeps it back. Stay with long-poll. Network: switch off buffering or scanning for this host.', heard: heard };
    }
    return { grade: 'bad', result: name === 'WebSocket' ? 'stripped' : 'refused', ms: ended.ms, advice: name === 'WebSocket' ?
      'The upgrade does not get through. Stay with long-poll. Server: pass on the headers Upgrade and Connection; network: allow WebSocket, or use https.' :
      'The stream does not begin. Stay with long-poll. Server: look whether /e reaches Everpoll; network: allow text/event-stream.', heard: heard };
  }

  function missing(name) {
    return { grade: 'middle', result: 'not in this browser', ms: null, advice: 'Everpoll\u2019s client uses long-poll in this browser, without being told. ' + name + ' came with later browsers.' };
  }

  var eventSource = {
    id: 'eventsource',
    name: 'EventSource',
    what: 'a stream over HTTP, a beat each second',
    expected: STREAM_BEATS,
    run: function (done) {
      if (!window.EventSource) { return done(missing('EventSource')); }
      var start = now();
      var heard = [];
      var ended = { opened: false, failed: false, ms: 0, unavailable: null };
      var source = new EventSource(unique(polls + '/' + CHANNEL + '?flavor=eventsource&beat=1'));
      var over = false;
      function finish() {
        if (over) { return; }
        over = true;
        source.close();
        ended.ms = now() - start;
        done(streamResult('EventSource', heard, ended));
      }
      function hear() {
        heard.push(now() - start);
        if (distinct(heard) >= STREAM_BEATS) { finish(); }
      }
      source.onopen = function () { ended.opened = true; };
      source.addEventListener('everpoll:hello', hear);
      source.addEventListener('everpoll:beat', hear);
      source.addEventListener('everpoll:end', function (event) {
        var reason = null;
        try { reason = JSON.parse(event.data).reason; } catch (e) { /* It has ended in any case. */ }
        if (reason) { ended.unavailable = 'The server ended the stream (' + reason + '); test again later.'; }
        finish();
      });
      /* A browser tries again by itself; the first failure is what is asked about. */
      source.onerror = function () {
        ended.failed = true;
        finish();
      };
      setTimeout(finish, STREAM_LISTEN);
    }
  };

  var webSocket = {
    id: 'websocket',
    name: 'WebSocket',
    what: 'a stream of frames, a beat each second',
    expected: STREAM_BEATS,
    run: function (done) {
      if (!window.WebSocket) { return done(missing('WebSocket')); }
      var start = now();
      var heard = [];
      var ended = { opened: false, failed: false, ms: 0, unavailable: null };
      var over = false;
      var socket;
      function finish() {
        if (over) { return; }
        over = true;
        try { socket.close(); } catch (e) { /* It never opened. */ }
        ended.ms = now() - start;
        done(streamResult('WebSocket', heard, ended));
      }
      try {
        socket = new WebSocket(location.protocol.replace('http', 'ws') + '//' + location.host + unique(polls + '/' + CHANNEL + '?flavor=websocket&beat=1'));
      } catch (e) { return finish(); }
      socket.onopen = function () { ended.opened = true; };
      socket.onmessage = function () {
        heard.push(now() - start);
        if (distinct(heard) >= STREAM_BEATS) { finish(); }
      };
      socket.onclose = socket.onerror = function () {
        ended.failed = true;
        finish();
      };
      setTimeout(finish, STREAM_LISTEN);
    }
  };

  var headers = {
    id: 'headers',
    name: 'Headers',
    what: 'Last-Event-Id there, x-ps-\u2026 back',
    expected: 1,
    run: function (done) {
      var mark = 'probe-' + Math.floor(Math.random() * 1e9);
      send('GET', unique(base + '/echo'), { limit: PATIENCE * 1000, headers: { 'Last-Event-Id': mark, 'X-Requested-With': 'XMLHttpRequest' } }, function (reply) {
        if (reply.status !== 200 || !reply.json) { return done(failure(reply, 'requests') || cutResult(reply, 1)); }
        var lost = [];
        if (reply.json.last_event_id !== mark) { lost.push('Last-Event-Id'); }
        var names = ['x-ps-reconnect-in', 'x-ps-cursor', 'x-shortpoll-info'];
        for (var i = 0; i < names.length; i++) {
          if (!reply.header(names[i])) { lost.push(names[i]); }
        }
        if (String(reply.header('Cache-Control')).indexOf('no-store') < 0) { lost.push('Cache-Control'); }
        var notes = [];
        var vias = [reply.json.via, reply.header('Via')];
        if (vias[0] || vias[1]) { notes.push('On the way: ' + (vias[0] || vias[1]) + '.'); }
        var encoding = reply.header('Content-Encoding');
        if (encoding) { notes.push('Replies are compressed on the way (' + encoding + '), against no-transform; that may delay padded holds.'); }
        var detail = { lost: lost, via: reply.json.via, viaBack: reply.header('Via'), contentEncoding: encoding, protocol: reply.json.protocol, forwardedFor: reply.json.forwarded_for };
        if (lost.length) {
          return done({ grade: 'middle', result: 'stripped', ms: reply.ms, detail: detail, advice: 'Lost: ' + lost.join(', ') + '. Everpoll\u2019s client says all of it in the URL and the body as well; a client of your own should use last_event_id and envelope=1. ' + notes.join(' ') });
        }
        done({ grade: encoding ? 'middle' : 'good', result: encoding ? 'compressed' : 'works', ms: reply.ms, detail: detail, advice: (encoding ? '' : 'Nothing to do: they arrive on both sides. ') + notes.join(' ') });
      });
    }
  };

  var cache = {
    id: 'cache',
    name: 'Cache',
    what: 'one URL twice, then unique ones',
    expected: 2,
    run: function (done) {
      var same = unique(base + '/echo');
      var replies = [];
      var urls = [same, same, unique(base + '/echo'), unique(base + '/echo')];
      var total = 0;
      function next() {
        send('GET', urls[replies.length], { limit: PATIENCE * 1000 }, function (reply) {
          total += reply.ms;
          if (reply.status !== 200 || !reply.json) { return done(failure(reply, 'requests') || cutResult(reply, 1)); }
          replies.push(reply.json.serial);
          if (replies.length < urls.length) { return next(); }
          var ages = { detail: { sameUrl: replies[0] !== replies[1], uniqueUrl: replies[2] !== replies[3] } };
          if (replies[2] === replies[3] || replies[1] === replies[2]) {
            return done(add({ grade: 'bad', result: 'cached', ms: total, advice: 'Even different URLs get one stored answer. Network: except this host from the cache; https helps as well.' }, ages));
          }
          if (replies[0] === replies[1]) {
            return done(add({ grade: 'middle', result: 'cached', ms: total, advice: 'One URL gets the same answer twice, against no-store. Everpoll\u2019s client makes each URL unique; a client of your own must do so, too (_=time).' }, ages));
          }
          done(add({ grade: 'good', result: 'works', ms: total, advice: 'Nothing to do: nothing is stored on the way.' }, ages));
        });
      }
      next();
    }
  };

  var post = {
    id: 'post',
    name: 'POST',
    what: 'a body that arrives whole',
    expected: 1,
    run: function (done) {
      var body = 'last_event_id=now&filler=' + new Array(201).join('0123456789');
      send('POST', unique(base + '/echo'), { limit: PATIENCE * 1000, body: body, headers: { 'Content-Type': 'application/x-www-form-urlencoded' } }, function (reply) {
        if (reply.status !== 200 || !reply.json) { return done(failure(reply, 'POSTs') || cutResult(reply, 1)); }
        if (reply.json.method !== 'POST' || reply.json.body_bytes !== body.length) {
          return done({ grade: 'bad', result: 'changed', ms: reply.ms, advice: 'Of ' + body.length + ' bytes ' + reply.json.body_bytes + ' arrived, by ' + reply.json.method + '. Poll by GET, as Everpoll\u2019s client does.' });
        }
        done({ grade: 'good', result: 'works', ms: reply.ms, advice: 'Nothing to do: polling by POST works where a cache stores GETs.' });
      });
    }
  };

  function add(to, from) {
    for (var name in from) {
      if (Object.prototype.hasOwnProperty.call(from, name)) { to[name] = from[name]; }
    }
    return to;
  }

  /* --- The page ----------------------------------------------------------------------------------------------------------------- */

  function cell(row, kind, className) {
    var made = document.createElement(kind);
    made.className = className;
    row.appendChild(made);
    return made;
  }

  function show(test) {
    var row = document.createElement('tr');
    row.id = 'test-' + test.id;
    var title = cell(row, 'th', 'test');
    title.setAttribute('scope', 'row');
    title.appendChild(document.createTextNode(test.name));
    cell(title, 'span', '').appendChild(document.createTextNode(test.what));
    test.badge = cell(cell(row, 'td', 'result'), 'span', 'badge');
    test.time = cell(row, 'td', 'time');
    test.advice = cell(row, 'td', 'advice');
    write(test.badge, 'waits');
    byId('rows').appendChild(row);
  }

  function finished(test, result) {
    if (test.result) { return; }
    test.result = result;
    running--;
    test.badge.className = 'badge ' + result.grade;
    write(test.badge, result.result);
    write(test.time, result.ms === null ? '' : seconds(result.ms));
    write(test.advice, result.advice);
    next();
  }

  function run(test) {
    running++;
    test.started = now();
    write(test.badge, 'runs');
    test.run(function (result) { finished(test, result); });
  }

  function next() {
    while (running < budget && waiting.length) { run(waiting.shift()); }
    if (!running && !waiting.length) { report(); }
  }

  function tick() {
    var left = 0;
    var done = 0;
    for (var i = 0; i < tests.length; i++) {
      var test = tests[i];
      if (test.result) {
        done++;
        continue;
      }
      if (!test.started) {
        left = Math.max(left, test.expected);
        continue;
      }
      var spent = (now() - test.started) / 1000;
      write(test.time, Math.floor(spent) + ' s');
      left = Math.max(left, test.expected - spent);
    }
    if (done === tests.length) { return; }
    var elapsed = (now() - began) / 1000;
    byId('bar').style.width = Math.min(98, Math.round(100 * elapsed / (elapsed + left + 0.5))) + '%';
    write(byId('status'), done + ' of ' + tests.length + ' tests are done, ' + (left > 0 ? 'about ' + Math.ceil(left) + ' s to go.' : 'waiting for what is overdue.'));
    setTimeout(tick, 500);
  }

  function pad(text, length) {
    while (text.length < length) { text += ' '; }
    return text;
  }

  function report() {
    var bad = 0;
    var middle = 0;
    var results = [];
    var lines = ['Everpoll self-test', 'page:    ' + location.protocol + '//' + location.host + base, 'browser: ' + navigator.userAgent, 'date:    ' + new Date().toUTCString(), ''];
    for (var i = 0; i < tests.length; i++) {
      var result = tests[i].result;
      bad += result.grade === 'bad' ? 1 : 0;
      middle += result.grade === 'middle' ? 1 : 0;
      lines.push(pad(tests[i].name, 26) + pad(result.result, 32) + (result.ms === null ? '' : seconds(result.ms)));
      lines.push('    ' + result.advice);
      results.push(add({ test: tests[i].id }, result));
    }
    lines.push('');
    lines.push(JSON.stringify({ everpoll: 'self-test', page: location.protocol + '//' + location.host + base, browser: navigator.userAgent, date: new Date().toUTCString(), tests: results }));
    byId('text').value = lines.join('\n');
    byId('bar').style.width = '100%';
    write(byId('status'), bad || middle ?
      'Done: ' + (tests.length - bad - middle) + ' of ' + tests.length + ' tests found nothing in the way; see the advice on the others.' :
      'Done: nothing is in the way, every transport works here.');
    byId('copy').disabled = false;
    byId('again').disabled = false;
    document.body.setAttribute('data-finished', 'true');
  }

  function copy() {
    var text = byId('text');
    function said(well) { write(byId('copied'), well ? 'Copied.' : 'Press Ctrl+C to copy the marked text.'); }
    text.focus();
    text.select();
    /* Older, but it needs neither https nor a permission. */
    var copied = false;
    try { copied = document.execCommand('copy'); } catch (e) { /* Said below. */ }
    said(copied);
  }

  function begin() {
    var all = [headers, cache, post, eventSource, webSocket, hold(25), hold(60), padded];
    for (var i = 0; i < all.length; i++) {
      tests.push(all[i]);
      show(all[i]);
    }
    /* The longest first, since they decide how long it takes; WebSockets are not counted among the connections by browsers. */
    waiting = [all[6], all[7], all[5], all[3], all[0], all[1], all[2], all[4]];
    began = now();
    byId('copy').onclick = copy;
    byId('again').onclick = function () { location.reload(); };
    next();
    tick();
  }

  if (!window.XMLHttpRequest || !window.JSON) {
    write(byId('status'), 'This browser is too old for the self-test. Everpoll\u2019s client works in it all the same, by long-poll.');
    return;
  }
  begin();
}());
