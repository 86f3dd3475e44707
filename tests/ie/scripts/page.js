/* A page that uses the client as it is shipped. Arguments: url, channel. Prints what comes, and ends a moment after the
   last event: one that came twice would still be seen. */
(function () {
  var events, began = new Date().getTime();

  function seconds() {
    return ((new Date().getTime() - began) / 1000).toFixed(1) + ' s: ';
  }

  events = new Everpoll(argument('channel'), { url: argument('url'), start: false });
  events.on('*', function (data, event) {
    print('event ' + event.id + ' ' + event.type + ' ' + data.text);
    if (event.type === 'last') {
      setTimeout(function () {
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
