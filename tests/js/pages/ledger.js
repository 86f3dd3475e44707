// The ledger of a page: each event that its code was given, in order. It survives reloads, as the page's cursor does.
//
// Plain old script, since the pages of old clients use it, too.

(function () {
  var name = 'ledger';
  var entries = JSON.parse(sessionStorage.getItem(name) || '[]');

  window.ledger = {
    entries: entries,
    /** Enters an event: what is known of its id, type and data. */
    enter: function (id, type, data) {
      entries.push({ id: id, type: type, n: data && data.n, name: data && data.name });
      sessionStorage.setItem(name, JSON.stringify(entries));
    }
  };

  // How this page was shown: again from the browser's memory, or loaded.
  window.shown = [];
  window.addEventListener('pageshow', function (event) {
    window.shown.push(event.persisted ? 'again' : 'loaded');
  });
})();
