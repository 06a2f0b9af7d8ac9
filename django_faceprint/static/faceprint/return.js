// The waiting page: asks for the status on widening intervals and goes on when there is one.
(function () {
  "use strict";

  var FIRST_WAIT = 1500;
  var LONGEST_WAIT = 20000;
  var SLOW_AFTER = 30000;
  var GIVE_UP_AFTER = 20 * 60000;

  var page = document.getElementById("faceprint-waiting");
  if (!page || !window.fetch) {
    return;
  }
  var started = Date.now();
  var wait = FIRST_WAIT;

  function goOn(answer) {
    if (answer.done) {
      // Without an address to go to, the page itself shows the result.
      window.location.replace(answer.redirect || page.dataset.againUrl);
      return;
    }
    later();
  }

  function later() {
    var waited = Date.now() - started;
    if (waited > SLOW_AFTER) {
      document.getElementById("faceprint-slow").hidden = false;
    }
    if (waited < GIVE_UP_AFTER) {
      window.setTimeout(ask, wait);
      wait = Math.min(wait * 1.5, LONGEST_WAIT);
    }
  }

  function ask() {
    fetch(page.dataset.statusUrl, { cache: "no-store", credentials: "omit" })
      .then(function (response) {
        if (!response.ok) {
          throw new Error("status " + response.status);
        }
        return response.json();
      })
      .then(goOn)
      .catch(later);
  }

  later();
})();
