/* Polls 2,000 times with the client, each answered with news, and says when 500 and when all are done. Arguments: url,
   channel. Wine's own requests are in it; bare-requests.js shows what those cost. */
(function () {
  var polls = 0, env = Everpoll.env(), send = env.send, events;

  env.send = function (url, done, options) {
    polls++;
    /* Collected by itself only every 30 s. What is asked here is what stays, not what piles up till then. */
    if (polls % 50 === 0) CollectGarbage();
    if (polls === 500 || polls === 2000) print('polls ' + polls);
    return send(url, done, options);
  };
  events = new Everpoll.Core(argument('channel'), { url: argument('url') }, env);
  events.on('state', function (state) {
    print(state === 'live' || state === 'polling' ? 'asking' : state);
  });
  events.start();
}());
