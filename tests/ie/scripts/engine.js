/* What tells the engines apart: faults of the old ones that a script for all must get along with. */
(function () {
  function parses(source) {
    try {
      eval(source);
      return 'yes';
    } catch (e) {
      return 'no';
    }
  }

  print('JSON ' + typeof JSON);
  print('indexOf ' + typeof [].indexOf);
  print('trailing comma in an object ' + parses('({a: 1,})'));
  print('trailing comma counts ' + [1, 2, ].length);
  print('reserved word as a name ' + parses('({}).default'));
  print('index of a string ' + 'abc'[0]);
  print('vertical tab is v ' + ('\v' === 'v'));
  print('captures in split ' + 'a,b'.split(/(,)/).length);
  print('setTimeout ' + typeof setTimeout + ', its call ' + typeof setTimeout.call);
  print('window ' + typeof window + ', document ' + typeof document);
  print('umlaut, separator, emoji: \u00e4 \u2028 \ud83d\ude00');
  print('argument ' + argument('name') + ', another ' + argument('other'));
  setTimeout(function () { exit(parseInt(argument('code'), 10)); }, 1);
}());
