/* Fails where nobody catches it, in the third line of what a timer calls. */
setTimeout(function () {
  nothing.of.that.name();
}, 1);
