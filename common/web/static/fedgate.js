// Puts the parts of the page that are sent in the place of those that are there.
// Each part is an element with an id. Without this script the page is loaded again instead.
"use strict";

const following = document.getElementById("following");
const events = new EventSource(following.dataset.events);

function say(text) {
  if (following.textContent !== text) following.textContent = text;
}

// A reader's place in the page stays: focus, and how far a table was scrolled.
function replace(old, fresh) {
  if (old.getAttribute("role") === "status") {
    if (old.textContent !== fresh.textContent) old.textContent = fresh.textContent;
    return;
  }
  const focused = old.contains(document.activeElement);
  const place = focused ? [...old.querySelectorAll("a, button, [tabindex]")].indexOf(document.activeElement) : -1;
  const scrolled = [...old.querySelectorAll(".scroll")].map((each) => [each.scrollLeft, each.scrollTop]);
  old.replaceWith(fresh);
  fresh.querySelectorAll(".scroll").forEach((each, n) => {
    if (scrolled[n]) [each.scrollLeft, each.scrollTop] = scrolled[n];
  });
  if (focused) (fresh.querySelectorAll("a, button, [tabindex]")[place] || document.getElementById("main")).focus();
}

events.addEventListener("parts", (event) => {
  const begun = performance.now();
  for (const part of JSON.parse(event.data)) {
    const made = document.createElement("template"); // one for each: a row stands beside rows alone
    made.innerHTML = part.trim();
    const fresh = made.content.firstElementChild;
    const old = document.getElementById(fresh.id);
    if (old) replace(old, fresh);
  }
  say("This page follows what happens.");
  document.dispatchEvent(new CustomEvent("fedgate:updated", { detail: { begun } }));
});

events.addEventListener("end", () => {
  events.close();
  say("The run has ended: this page changes no more.");
});

events.addEventListener("error", () => {
  const closed = events.readyState === EventSource.CLOSED;
  say(closed ? "This page does not follow any more: load it again." : "The connection was lost; trying again.");
});
