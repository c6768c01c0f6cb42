// Comforts only; the page works without them: a switch of colours, filters of long tables, opening what a link points into.
(function () {
  "use strict";
  var root = document.documentElement, button = document.getElementById("theme");
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function isDark() { return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches; }
  function show() {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", "Switch to " + (isDark() ? "light" : "dark") + " colours");
  }
  button.parentElement.hidden = false;
  button.removeAttribute("aria-pressed");
  button.addEventListener("click", function () { root.dataset.theme = isDark() ? "light" : "dark"; show(); });
  dark.addEventListener("change", show);
  show();

  document.querySelectorAll("input[data-rows]").forEach(function (input) {
    input.parentElement.hidden = false;
    input.addEventListener("input", function () {
      var wanted = input.value.toLowerCase();
      document.querySelectorAll("#" + input.dataset.rows + " tbody tr").forEach(function (row) {
        row.hidden = row.textContent.toLowerCase().indexOf(wanted) < 0;
      });
    });
  });

  function open() {
    var place = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (var node = place; node; node = node.parentElement) { if (node.tagName === "DETAILS") { node.open = true; } }
    if (place) { place.scrollIntoView(); }
  }
  window.addEventListener("hashchange", open);
  if (location.hash) { open(); }
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (one) { one.open = true; });
  });
})();
