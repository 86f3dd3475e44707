/* A page that uses the client as it is shipped. Arguments: url, channel; cursor, hold if they are to be set. Prints what
   comes, and ends a moment after the last event: one that came twice would still be seen. */
(function () {
  var options = { url: argument('url') };
  var events;

  if (argument('cursor')) {
    options.cursor = argument('cursor');
  }
  if (argument('hold')) {
    options.hold = parseFloat(argument('hold'));
  }
  options.start = false;
  events = new Everpoll(argument('channel'), options);
  events.on('*', function (data, event) {
    print('event ' + event.id + ' ' + event.type + ' ' + data.text);
    if (event.type === 'last') {
      setTimeout(function () {
        events.stop();
        print('transport ' + events.transport + ', cursor ' + events.cursor);
        exit(0);
      }, 500);
    }
  });
  events.on('gap', function (gap) {
    print('gap ' + gap.reason);
  });
  events.on('state', function (state, detail) {
    print('state ' + state + ' ' + (detail && (detail.detail || detail.message || detail.code) || ''));
  });
  events.start();
}());
