/* XMLHttpRequest as browsers really have it: an own one is put in the place of the host's. */
(function () {
  var hosts = typeof XMLHttpRequest === 'undefined' ? undefined : XMLHttpRequest, made = [];

  function FakeXhr() {
    this.readyState = 0;
    this.status = 0;
    this.responseText = '';
    this.headers = {};
    this.calls = [];
    made.push(this);
  }
  FakeXhr.prototype.open = function (method, url, async) {
    this.calls.push('open ' + method + ' ' + async);
    this.url = url;
    this.readyState = 1;
  };
  FakeXhr.prototype.setRequestHeader = function (name) {
    this.calls.push('header ' + name);
  };
  FakeXhr.prototype.send = function (body) {
    this.calls.push('send ' + body);
  };
  FakeXhr.prototype.abort = function () {
    this.calls.push('abort');
    /* As old ones do: an abort is told like an answer. */
    this.to(4);
  };
  FakeXhr.prototype.getResponseHeader = function (name) {
    return this.headers[name] || '';
  };
  FakeXhr.prototype.to = function (state) {
    this.readyState = state;
    this.onreadystatechange();
  };

  function withXhr(run) {
    made = [];
    XMLHttpRequest = FakeXhr;
    try {
      run();
    } finally {
      XMLHttpRequest = hosts;
    }
  }

  /* One request, and what came of it. */
  function request() {
    var it = { got: [] };
    it.abort = Everpoll.env().send('/e/cheese?x=1', function (status, body, header) {
      it.got.push([status, body, header('x-ps-reconnect-in')]);
    }, {});
    it.xhr = made[made.length - 1];
    return it;
  }

  test('request is a GET, async, without any header of its own', function () {
    withXhr(function () {
      var it = request();
      equal(it.xhr.calls, ['open GET true', 'send null']);
      equal(it.xhr.url, '/e/cheese?x=1');
    });
  });

  test('answer is read at readyState 4 only', function () {
    withXhr(function () {
      var it = request();
      it.xhr.status = 200;
      it.xhr.responseText = '[]';
      it.xhr.headers['x-ps-reconnect-in'] = '3';
      it.xhr.to(2);
      it.xhr.to(3);
      it.xhr.to(3);
      equal(it.got, []);
      it.xhr.to(4);
      equal(it.got, [[200, '[]', '3']]);
    });
  });

  test('readyState 4 that fires twice is one answer', function () {
    withXhr(function () {
      var it = request(), handler = it.xhr.onreadystatechange;
      it.xhr.status = 200;
      it.xhr.to(4);
      handler();
      it.xhr.to(4);
      equal(it.got.length, 1);
    });
  });

  test('late answer after an abort is nobody\'s, and the handler stays callable', function () {
    withXhr(function () {
      var it = request(), handler = it.xhr.onreadystatechange;
      it.abort();
      it.xhr.status = 200;
      handler();
      it.xhr.to(4);
      equal(it.got, []);
      equal(typeof it.xhr.onreadystatechange, 'function', 'null would throw in MSXML');
      equal(it.xhr.calls[2], 'abort');
      it.abort();
    });
  });

  test('handlers of all requests are one function in the end, which holds nothing', function () {
    withXhr(function () {
      var one = request(), two = request();
      one.abort();
      two.xhr.to(4);
      truth(one.xhr.onreadystatechange === two.xhr.onreadystatechange, 'the same function');
    });
  });

  test('header that is missing or refused is no failure', function () {
    withXhr(function () {
      var it = request();
      it.xhr.status = 200;
      it.xhr.getResponseHeader = function () {
        throw new Error('refused');
      };
      it.xhr.to(4);
      equal(it.got, [[200, '', undefined]]);
    });
  });

  /* Old engines have no getters; there the host itself throws. */
  test('status that throws is a dead connection', function () {
    var thrower = null;
    try {
      thrower = new Function('f', 'Object.defineProperty(f, "status", { get: function () { throw new Error("c00c023f"); }, set: function () {} });');
      thrower({});
    } catch (old) {
      return;
    }
    withXhr(function () {
      var it = request();
      thrower(it.xhr);
      it.xhr.to(4);
      equal(it.got, [[0, '', '']]);
    });
  });

  test('abort that throws does no harm', function () {
    withXhr(function () {
      var it = request();
      it.xhr.abort = function () {
        throw new Error('80004005');
      };
      it.abort();
      equal(it.got, []);
    });
  });

  test('client goes from poll to poll over XMLHttpRequest', function () {
    withXhr(function () {
      var it = new Scripted({}, { send: Everpoll.env().send });
      made[0].status = 200;
      made[0].responseText = envelope(10);
      made[0].to(4);
      equal(made.length, 2);
      made[1].status = 1223;
      made[1].to(4);
      it.clock.pass(1100);
      equal(made.length, 3);
      made[2].status = 200;
      made[2].responseText = '\ufeff' + envelope(11, [11]) + '\n';
      made[2].to(4);
      equal([it.seen, made.length], [['11'], 4]);
      it.events.stop();
      equal(made[3].calls[2], 'abort');
      equal(made.length, 4);
    });
  });

  test('without XMLHttpRequest an ActiveX object serves', function () {
    var asked = [], host = typeof ActiveXObject === 'undefined' ? undefined : ActiveXObject;
    made = [];
    XMLHttpRequest = undefined;
    ActiveXObject = function (name) {
      asked.push(name);
      if (name !== 'Microsoft.XMLHTTP') throw new Error('no such class');
      return new FakeXhr();
    };
    try {
      request();
    } finally {
      XMLHttpRequest = hosts;
      ActiveXObject = host;
    }
    equal(asked, ['Msxml2.XMLHTTP.6.0', 'Msxml2.XMLHTTP.3.0', 'Microsoft.XMLHTTP']);
    equal(made.length, 1);
  });
})();
