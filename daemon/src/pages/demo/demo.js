/* The demo page: four subscribers of one channel, each on a transport of its own, and a ledger that compares them.

   Nothing is kept on the page but a cursor. On the first visit it is the newest of the log; it stays in localStorage, and each load
   counts again what lies behind it. So the count survives a reload without anybody having stored it. */
(function () {
  'use strict';

  var CHANNEL = 'cheese';
  var MEMORY = 'everpoll-demo';
  /* A job publishes twice a second; after this many ms without a word its daemon is gone. */
  var JOB_SILENCE = 6000;
  /* Lines shown of each list. */
  var LAST_SHOWN = 5;
  var JOBS_SHOWN = 3;
  /* Delays of which the median is shown. */
  var DELAYS_KEPT = 99;

  var panels = [];
  var jobs = [];
  /* All cheeses that any of the panels has seen, by id. */
  var known = {};
  /* Server's clock less the browser's, ms. */
  var clockOffset = 0;
  var startedAt = now();
  var notified = {};
  var notifies = false;

  function byId(id) { return document.getElementById(id); }

  function now() { return new Date().getTime(); }

  function element(name, className, text) {
    var made = document.createElement(name);
    if (className) { made.className = className; }
    if (text) { made.textContent = text; }
    return made;
  }

  function plural(number, word) { return number + ' ' + word + (number === 1 ? '' : 's'); }

  /* Sends a request; `done(status, body, took)` gets status 0 when there was no reply, and the body as JSON or null. */
  function send(method, url, body, done) {
    var request = new XMLHttpRequest();
    var began = now();
    request.open(method, url);
    request.setRequestHeader('Accept', 'application/json');
    if (body !== null) { request.setRequestHeader('Content-Type', 'application/json'); }
    request.timeout = 15000;
    request.onloadend = function () {
      var json = null;
      try { json = JSON.parse(request.responseText); } catch (e) { /* A proxy's page, or nothing. */ }
      done(request.status, json, now() - began);
    };
    request.send(body);
  }

  function explain(status, body) {
    if (body && body.detail) { return body.detail; }
    return status ? 'the server answered with status ' + status : 'the server cannot be reached';
  }

  /* What stays over reloads. Where storage is switched off, the count begins anew with each load. */
  function remember(memory) {
    try { localStorage.setItem(MEMORY, JSON.stringify(memory)); } catch (e) { /* See above. */ }
  }

  function recall() {
    try { return JSON.parse(localStorage.getItem(MEMORY)) || {}; } catch (e) { return {}; }
  }

  /* The clocks of server and browser may differ. Of some tries, the one that took least time knows best, to half of that time; a difference
     below it is none that can be seen. */
  function setClock(tries, best) {
    var asked = now();
    send('GET', 'demo/clock?_=' + asked, null, function (status, body, took) {
      if (status === 200 && body && took < best) {
        best = took;
        clockOffset = body.now - (asked + took / 2);
        if (Math.abs(clockOffset) <= took / 2 + 1) { clockOffset = 0; }
      }
      if (tries > 1) { setTimeout(function () { setClock(tries - 1, best); }, 400); }
    });
  }

  /* Finds out where to begin to count, then begins. */
  function begin(memory, failures) {
    if (memory.since) { return start(memory); }
    send('GET', 'e/' + CHANNEL + '?flavor=short-poll&envelope=1&_=' + now(), null, function (status, body) {
      if (status === 200 && body && body.cursor) {
        memory.since = body.cursor;
        remember(memory);
        return start(memory);
      }
      byId('trouble').hidden = false;
      byId('trouble').textContent = 'Cannot begin: ' + explain(status, body) + '. Trying again.';
      setTimeout(function () { begin(memory, failures + 1); }, Math.min(1000 * Math.pow(2, failures), 15000));
    });
  }

  function start(memory) {
    byId('trouble').hidden = true;
    byId('since').textContent = 'This browser counts from event ' + memory.since + ' on; a reload keeps the count.';
    for (var i = 0; i < panels.length; i++) { panels[i].subscribe(memory); }
    compare();
  }

  function Panel(article) {
    this.article = article;
    this.asked = article.getAttribute('data-transport');
    this.seen = {};
    this.count = 0;
    this.twice = 0;
    this.newest = 0;
    this.delays = [];
    this.state = 'connecting';
    this.build();
  }

  Panel.prototype.build = function () {
    var title = this.article.querySelector('h2');
    var head = element('div', 'head');
    this.article.insertBefore(head, title);
    head.appendChild(title);
    this.pill = head.appendChild(element('span', 'pill', 'connecting'));
    this.pill.setAttribute('data-state', 'connecting');
    this.how = this.article.querySelector('.how');
    this.number = this.article.appendChild(element('p', 'count', '0'));
    this.article.appendChild(element('p', 'small', 'cheeses'));
    var list = this.article.appendChild(element('dl'));
    this.delay = row(list, 'newest after', 'delay');
    this.median = row(list, 'median', 'median');
    this.wrong = row(list, 'twice/missed', 'wrongs');
    this.wrong.textContent = '0/0';
    this.last = this.article.appendChild(element('ol', 'last'));
    this.last.setAttribute('aria-label', 'Last cheeses');
    this.gap = this.article.appendChild(element('p', 'notice gap'));
    this.gap.hidden = true;
  };

  function row(list, label, name) {
    list.appendChild(element('dt', '', label));
    var value = list.appendChild(element('dd', name, '\u2013'));
    return value;
  }

  Panel.prototype.subscribe = function (memory) {
    var panel = this;
    this.source = new Everpoll(CHANNEL, {
      transport: this.asked,
      cursor: memory.since,
      /* One for this panel in all tabs of the browser: of two tabs, one holds a connection, the other short-polls. */
      waitId: memory.waitId + '-' + this.asked,
      share: false,
      keep: false,
      start: false
    });
    this.source.on('cheese_created', function (data, event) { panel.take(data, event); });
    this.source.on('job_progress', takeProgress);
    this.source.on('gap', function (gap) { panel.showGap(gap, memory); });
    this.source.on('state', function (state) { panel.showState(state); });
    this.source.start();
  };

  Panel.prototype.showState = function (state) {
    this.state = state;
    this.pill.textContent = state;
    this.pill.setAttribute('data-state', state === 'polling' && this.asked === 'short-poll' ? 'live' : state);
    this.showTransport();
    showOverall();
  };

  /* The client begins each by a long-poll, and leaves a stream that does not work here. */
  Panel.prototype.showTransport = function () {
    var transport = this.source ? this.source.transport : this.asked;
    var other = transport !== this.asked && this.state !== 'stopped' && this.state !== 'down';
    if (!this.usual) { this.usual = this.how.textContent; }
    this.article.setAttribute('data-using', transport);
    var text = other ? 'by ' + transport + ' for now' : this.usual;
    if (this.how.textContent !== text) { this.how.textContent = text; }
  };

  Panel.prototype.take = function (data, event) {
    var id = String(event.id);
    if (this.seen[id]) {
      this.twice++;
    } else {
      this.seen[id] = true;
      this.count++;
    }
    this.newest = Math.max(this.newest, Number(id));
    known[id] = true;
    var arrived = now() + clockOffset;
    var placed = Date.parse(event.ts);
    var item = element('li');
    item.appendChild(element('span', 'cheese', String((data && data.name) || 'a cheese')));
    item.appendChild(element('span', 'id', '#' + id));
    this.last.insertBefore(item, this.last.firstChild);
    if (this.last.childNodes.length > LAST_SHOWN) { this.last.removeChild(this.last.lastChild); }
    /* What was published before the page was there says nothing about delays. */
    if (placed >= startedAt + clockOffset) {
      this.delays.push(Math.max(0, Math.round(arrived - placed)));
      if (this.delays.length > DELAYS_KEPT) { this.delays.shift(); }
      this.delay.textContent = duration(this.delays[this.delays.length - 1]);
      this.median.textContent = duration(middle(this.delays));
      notify(id, data);
    }
    compareSoon();
  };

  function duration(ms) { return ms < 1000 ? ms + ' ms' : (ms / 1000).toFixed(1) + ' s'; }

  function middle(numbers) {
    var sorted = numbers.slice().sort(function (a, b) { return a - b; });
    return sorted[Math.floor(sorted.length / 2)];
  }

  /* What others have seen and this panel has not, although it has seen later events. */
  Panel.prototype.missed = function () {
    var missed = 0;
    for (var id in known) {
      if (Object.prototype.hasOwnProperty.call(known, id) && Number(id) < this.newest && !this.seen[id]) { missed++; }
    }
    return missed;
  };

  Panel.prototype.showGap = function (gap, memory) {
    this.gap.hidden = false;
    this.gap.textContent = gap.reason === 'ahead' ?
      'Gap: this log is another one, or was restored from a copy. Counting goes on with what it has.' :
      'Gap: the log no longer has the events between ' + gap.after + ' and ' + gap.before + '. Counting goes on behind it.';
    /* The next load begins behind it, and is not told of it again. */
    memory.since = String(Math.max(0, Number(gap.before) - 1));
    remember(memory);
  };

  /* Many events come at once; once for all of them is enough. */
  var comparing = false;
  function compareSoon() {
    if (comparing) { return; }
    comparing = true;
    setTimeout(function () {
      comparing = false;
      compare();
    }, 0);
  }

  function compare() {
    var all = 0;
    var behind = [];
    var wrong = 0;
    for (var id in known) { if (Object.prototype.hasOwnProperty.call(known, id)) { all++; } }
    for (var i = 0; i < panels.length; i++) {
      var panel = panels[i];
      var missed = panel.missed();
      wrong += missed + panel.twice;
      panel.number.textContent = panel.count;
      panel.wrong.textContent = panel.twice + '/' + missed;
      panel.wrong.className = 'wrongs' + (missed + panel.twice ? ' wrong' : '');
      if (panel.count < all) { behind.push(panel.article.querySelector('h2').textContent + ' ' + (all - panel.count)); }
    }
    var verdict = byId('verdict');
    if (wrong) {
      verdict.setAttribute('data-state', 'wrong');
      verdict.textContent = plural(wrong, 'event') + ' came twice or not at all. That is a fault; please report it.';
    } else if (behind.length) {
      verdict.setAttribute('data-state', 'connecting');
      verdict.textContent = 'On the way: ' + behind.join(', ') + ' to come.';
    } else if (all) {
      verdict.setAttribute('data-state', 'equal');
      verdict.textContent = '\u2713 All four have counted ' + plural(all, 'cheese') + ', each exactly once.';
    } else {
      verdict.setAttribute('data-state', 'connecting');
      verdict.textContent = 'No events yet. Deliver a cheese.';
    }
  }

  function showOverall() {
    var states = { live: 0, polling: 0, connecting: 0, down: 0, stopped: 0 };
    for (var i = 0; i < panels.length; i++) {
      var panel = panels[i];
      states[panel.state === 'polling' && panel.asked === 'short-poll' ? 'live' : panel.state]++;
    }
    var overall = byId('overall');
    var text = 'all live';
    var state = 'live';
    if (states.stopped) {
      state = 'stopped';
      text = states.stopped + ' of ' + panels.length + ' stopped';
    } else if (states.down) {
      state = 'down';
      text = states.down + ' of ' + panels.length + ' down';
    } else if (states.connecting) {
      state = 'connecting';
      text = 'connecting';
    } else if (states.polling) {
      state = 'polling';
      text = states.polling + ' of ' + panels.length + ' polling';
    }
    overall.setAttribute('data-state', state);
    if (overall.textContent !== text) { overall.textContent = text; }
  }

  function publish(events, done) {
    send('POST', 'publish', JSON.stringify(events), function (status, body) {
      byId('published').textContent = status === 201 ?
        'In the log: ' + (body.ids.length === 1 ? 'event ' + body.ids[0] : 'events ' + body.ids[0] + ' to ' + body.ids[body.ids.length - 1]) + '.' :
        'Not published: ' + explain(status, body) + '.';
      done();
    });
  }

  function deliver(button) {
    var events = [];
    var buttons = byId('cheeses').querySelectorAll('[data-cheese]');
    var crate = Number(button.getAttribute('data-crate') || 0);
    for (var i = 0; i < (crate || 1); i++) {
      var from = crate ? buttons[i % buttons.length] : button;
      events.push({ channel: CHANNEL, type: 'cheese_created', data: { name: from.getAttribute('data-cheese') } });
    }
    button.disabled = true;
    publish(crate ? events : events[0], function () {
      button.disabled = false;
      button.focus();
    });
  }

  function startJob() {
    var button = byId('job');
    button.disabled = true;
    send('POST', 'demo/job', '{}', function (status, body) {
      button.disabled = false;
      byId('job-trouble').textContent = status === 202 ? '' : 'Not started: ' + explain(status, body) + '.';
    });
  }

  /* Progress comes four times, once by each panel; the first is the quickest. */
  function takeProgress(data, event) {
    var job = null;
    for (var i = 0; i < jobs.length; i++) { if (jobs[i].name === data.job) { job = jobs[i]; } }
    if (!job) {
      job = { name: data.job, percent: -1, item: element('li') };
      job.label = job.item.appendChild(element('span'));
      job.bar = job.item.appendChild(element('progress'));
      job.bar.max = 100;
      job.bar.setAttribute('aria-label', 'Progress of ' + data.job);
      jobs.push(job);
      byId('jobs').insertBefore(job.item, byId('jobs').firstChild);
      if (jobs.length > JOBS_SHOWN) { byId('jobs').removeChild(jobs.shift().item); }
    }
    if (data.percent <= job.percent) { return; }
    job.percent = data.percent;
    job.heard = Date.parse(event.ts);
    job.bar.value = data.percent;
    job.label.textContent = (data.percent < 100 ? 'aging, ' : 'ripe, ') + data.percent + ' %';
  }

  /* What comes to pass without an event. */
  setInterval(function () {
    var i;
    for (i = 0; i < panels.length; i++) { panels[i].showTransport(); }
    for (i = 0; i < jobs.length; i++) {
      if (jobs[i].percent < 100 && now() + clockOffset - jobs[i].heard > JOB_SILENCE) {
        jobs[i].label.textContent = 'no news since ' + jobs[i].percent + ' %';
      }
    }
  }, 1000);

  function notify(id, data) {
    if (!notifies || notified[id]) { return; }
    notified[id] = true;
    /* On phones only a service worker may notify. With a tag, a crate of cheese is one notification. */
    try {
      new Notification('New cheese: ' + ((data && data.name) || 'a cheese'), { body: 'Event ' + id + ' on ' + CHANNEL, tag: MEMORY, icon: 'demo/icon.svg' });
    } catch (e) { notifies = false; }
  }

  function offerNotifications() {
    var button = byId('notify');
    if (!window.Notification || !Notification.requestPermission) { return; }
    button.hidden = false;
    button.setAttribute('aria-pressed', 'false');
    function show(permission) {
      notifies = permission === 'granted' && !notifies;
      button.setAttribute('aria-pressed', String(notifies));
      button.disabled = permission === 'denied';
      button.textContent = permission === 'denied' ? 'The browser blocks notifications' :
        notifies ? 'Stop desktop notifications' : 'Notify me on the desktop';
    }
    button.onclick = function () {
      if (Notification.permission === 'granted') { return show('granted'); }
      var answer = Notification.requestPermission(show);
      /* Newer browsers give a promise, and some of them call nobody back. */
      if (answer && answer.then) { answer.then(function (permission) { if (!notifies) { show(permission); } }); }
    };
  }

  function prepare() {
    var articles = byId('panels').querySelectorAll('.panel');
    for (var i = 0; i < articles.length; i++) { panels.push(new Panel(articles[i])); }
    byId('cheeses').onclick = function (event) {
      if (event.target.tagName === 'BUTTON') { deliver(event.target); }
    };
    byId('job').onclick = startJob;
    byId('reset').onclick = function () {
      var memory = recall();
      delete memory.since;
      remember(memory);
      location.reload();
    };
    offerNotifications();
    if (!window.Everpoll) {
      byId('trouble').hidden = false;
      byId('trouble').textContent = 'The client, everpoll.js, was not loaded. Reload the page; if it stays away, look at the server.';
      return;
    }
    var memory = recall();
    if (!memory.waitId) {
      memory.waitId = 'demo-' + Math.floor(Math.random() * 1e15).toString(36);
      remember(memory);
    }
    setClock(4, 10000);
    begin(memory, 0);
  }

  prepare();
}());
