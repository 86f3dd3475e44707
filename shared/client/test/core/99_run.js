/* Runs what the other files registered. `only`, where it is set, is a part of the names to run. */
(function () {
  var failed = 0, ran = 0, i;
  for (i = 0; i < tests.length; i++) {
    if (typeof only !== 'undefined' && tests[i].name.indexOf(only) < 0) continue;
    ran++;
    try {
      tests[i].run();
      print('ok ' + ran + ' - ' + tests[i].name);
    } catch (error) {
      failed++;
      print('not ok ' + ran + ' - ' + tests[i].name + ': ' + (error.message || error));
      if (error.stack && typeof console !== 'undefined') print('# ' + String(error.stack).split('\n').join('\n# '));
    }
  }
  print('# ' + ran + ' tests, ' + failed + ' failed');
})();
