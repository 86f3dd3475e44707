/* A page of the long-standing interface, as it did it with an old jQuery and Internet Explorer: a plain loop of requests
   with the id of the last event in a header, and nothing learned from failures but when to try again. Arguments: url,
   channel. Prints what comes, and ends a moment after the last event. */
(function () {
  var lastId = 'rt-' + new Date().getTime() / 1000;

  function poll() {
    var request = new ActiveXObject('Microsoft.XMLHTTP');
    var url = argument('url') + '/' + argument('channel') + '/old-page-' + argument('name');
    request.open('GET', url + '?_=' + new Date().getTime(), true);
    request.setRequestHeader('X-Requested-With', 'XMLHttpRequest');
    request.setRequestHeader('Accept', 'application/json, text/javascript, */*; q=0.01');
    request.setRequestHeader('Last-Event-Id', lastId);
    request.onreadystatechange = function () {
      if (request.readyState === 4) {
        /* Not in here: this request is still at work while its handler runs. */
        setTimeout(function () { take(request); }, 0);
      }
    };
    request.send(null);
  }

  function again(seconds) {
    setTimeout(poll, seconds * 1000);
  }

  function take(request) {
    var status = request.status;
    var events, i, delay;
    if (status !== 200) {
      print('status ' + status);
      again(status === 504 || status === 12002 ? 0 : 10);
      return;
    }
    events = eval('(' + request.responseText + ')');
    for (i = 0; i < events.length; i++) {
      lastId = events[i].id;
      print('event ' + lastId + ' ' + events[i].data.type + ' ' + events[i].data.data.text);
      if (events[i].data.type === 'last') {
        setTimeout(function () { exit(0); }, 500);
      }
    }
    delay = parseInt(request.getResponseHeader('x-ps-reconnect-in'), 10);
    print('reply of ' + events.length + ', again in ' + delay);
    again(isNaN(delay) ? 10 : delay);
  }

  poll();
  print('asking');
}());
