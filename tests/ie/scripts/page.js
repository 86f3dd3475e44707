/* A page that uses the client as it is shipped. Arguments: url, channel. Prints what comes and which requests failed, and
   ends a moment after the last event: one that came twice would still be seen. */
(function () {
  var events, env = Everpoll.env(), send = env.send, ended, began = new Date().getTime();

  function seconds() {
    return ((new Date().getTime() - began) / 1000).toFixed(1) + ' s: ';
  }

  /* What fails here is what the client saw fail: WinInet sends again by itself what a proxy closed without an answer. */
  env.send = function (url, done, options) {
    var giveUp = send(url, function (status, text, header) {
      if (status !== 200 || !/^\s*[\[{]/.test(text)) {
        print(seconds() + 'failed ' + status);
      }
      done(status, text, header);
    }, options);
    return function () {
      if (!ended) {
        print(seconds() + 'failed by silence');
      }
      giveUp();
    };
  };
  events = new Everpoll.Core(argument('channel'), { url: argument('url') }, env);
  events.on('*', function (data, event) {
    print('event ' + event.id + ' ' + event.type + ' ' + data.text);
    if (event.type === 'last') {
      setTimeout(function () {
        ended = true;
        events.stop();
        print(seconds() + 'transport ' + events.transport + ', cursor ' + events.cursor);
        exit(0);
      }, 500);
    }
  });
  events.on('gap', function (gap) {
    print('gap ' + gap.reason);
  });
  events.on('state', function (state, detail) {
    /* From now on it knows where it stands. */
    if (state === 'live' || state === 'polling') {
      print('asking');
    }
    print(seconds() + 'state ' + state + ' ' + (detail && (detail.message || detail.status) || '') + ' by ' + events.transport);
  });
  events.start();
}());
