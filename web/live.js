// Keeps the page live: fetches the fragment again, and says so when nobody answers. Rests while the tab is hidden.
"use strict";
(() => {
  const EVERY_MS = 2000;
  const TIMEOUT_MS = 5000;
  const live = document.getElementById("live");
  const lost = document.getElementById("lost");
  const lostFor = document.getElementById("lost-for");
  let seen = Date.now();
  let timer = 0;

  async function look() {
    clearTimeout(timer);
    try {
      const answer = await fetch("/fragment", { signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const html = await answer.text();
      // Rendered and escaped by the same server as this page.
      if (html !== live.innerHTML) {
        // What somebody has opened, or closed, stays so.
        const shown = new Map([...live.querySelectorAll("details[id]")].map((part) => [part.id, part.open]));
        live.innerHTML = html;
        for (const part of live.querySelectorAll("details[id]")) part.open = shown.get(part.id) ?? part.open;
      }
      document.title = `${live.querySelector("h1").textContent} · Biotope`;
      seen = Date.now();
      lost.hidden = true;
    } catch {
      lostFor.textContent = `${Math.round((Date.now() - seen) / 1000)} s ago`;
      lost.hidden = false;
    }
    if (!document.hidden) timer = setTimeout(look, EVERY_MS);
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));
  timer = setTimeout(look, EVERY_MS);
})();
