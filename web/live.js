// Keeps the page current: fetches its live part again and puts what has changed in the place of what was there. Rests while
// the tab is hidden, looks at once when it is seen again, and says so when nobody answers.
"use strict";
(() => {
  const EVERY_MS = 2000;
  const TIMEOUT_MS = 5000;
  const live = document.getElementById("live");
  const lost = document.getElementById("lost");
  const lostFor = document.getElementById("lost-for");
  const parser = new DOMParser();
  let seen = Date.now();
  let timer = 0;
  let asked = null;
  // What somebody has selected, if anything: asked once, since an answer costs a layout of the page.
  let reading = null;

  // What has an id is put in place piece by piece: who reads, selects or stands on something else is not disturbed.
  function patch(old, now) {
    if (old.isEqualNode(now)) return;
    const parts = [...now.children];
    const keyed = parts.length > 0 && parts.every((part) => part.id) && old.attributes.length === now.attributes.length;
    if (!keyed) {
      // What somebody has opened, or closed, stays so.
      const shown = new Map([...old.querySelectorAll("details[id]")].map((part) => [part.id, part.open]));
      for (const part of now.querySelectorAll("details[id]")) part.open = shown.get(part.id) ?? part.open;
      if (reading?.containsNode(old, true)) return;
      if (!old.isEqualNode(now)) old.replaceWith(now);
      return;
    }
    const before = new Map([...old.children].map((part) => [part.id, part]));
    let place = old.firstElementChild;
    for (const part of parts) {
      const there = before.get(part.id);
      before.delete(part.id);
      if (there && there === place) {
        place = place.nextElementSibling;
        patch(there, part);
      } else {
        if (there) there.remove();
        old.insertBefore(part, place);
      }
    }
    for (const gone of before.values()) gone.remove();
  }

  // Where the keyboard is: the nearest part with an id, and the how-manieth thing in it that can be reached.
  const REACHED = "a[href], button, summary, input, select";
  function whereKeyboardIs() {
    const at = document.activeElement;
    const part = at && live.contains(at) && at.closest("[id]");
    return part && part !== live && { id: part.id, nth: [...part.querySelectorAll(REACHED)].indexOf(at), at };
  }

  function putKeyboardBack(where) {
    if (!where || where.at.isConnected) return;
    const part = document.getElementById(where.id);
    (part?.querySelectorAll(REACHED)[where.nth] ?? part)?.focus({ preventScroll: true });
  }

  async function look() {
    clearTimeout(timer);
    asked?.abort();
    const mine = (asked = new AbortController());
    try {
      const signal = AbortSignal.any([mine.signal, AbortSignal.timeout(TIMEOUT_MS)]);
      const answer = await fetch(live.dataset.from, { signal });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      // Rendered and escaped by the same server as this page; a document made so runs no script.
      const html = await answer.text();
      if (mine !== asked) return;
      const now = live.cloneNode(false);
      now.append(...parser.parseFromString(html, "text/html").body.childNodes);
      const where = whereKeyboardIs();
      const selected = getSelection();
      reading = selected.isCollapsed ? null : selected;
      const key = (part) => part.querySelector("[data-key]")?.dataset.key;
      if (key(live) !== key(now)) return location.reload();
      patch(live, now);
      putKeyboardBack(where);
      const headline = live.querySelector("[data-verdict] h1");
      if (headline) document.title = `${headline.textContent} · Biotope`;
      seen = Date.now();
      lost.hidden = true;
    } catch {
      if (mine !== asked) return;
      lostFor.textContent = `${Math.round((Date.now() - seen) / 1000)} s ago`;
      lost.hidden = false;
    }
    if (!document.hidden) timer = setTimeout(look, EVERY_MS);
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));
  addEventListener("pageshow", (event) => event.persisted && look());
  addEventListener("online", look);
  timer = setTimeout(look, EVERY_MS);
})();
