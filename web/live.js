// Keeps the page current. A stream of events tells when something has changed of what is shown; then the live part is fetched
// again, and what differs is put in its place: at most once a second, however much happens. Ages and rates move without an
// event, so it is fetched now and then anyway, and that is all there is where no stream can be had. Rests while the tab is
// hidden; looks at once when it is seen again, wakes from sleep or is back on the net; says so when nobody answers; and
// goes to the form when the session has ended.
"use strict";
(() => {
  // At least between two looks; and no more than a quarter of the time is spent on putting things in their place.
  const LEAST_MS = 1000;
  const SHARE = 4;
  const TIMEOUT_MS = 10000;
  // After one that failed, and before another stream is asked for where there are too many.
  const AGAIN_MS = 2000;
  const BUSY_MS = 30000;
  // The stream says something every 15 s, and this page looks at the clock every second: longer, and the line is dead, or
  // the machine has slept.
  const SILENT_MS = 40000;
  const SLEPT_MS = 10000;
  const live = document.getElementById("live");
  const lost = document.getElementById("lost");
  const lostSays = document.getElementById("lost-says");
  const lostFor = document.getElementById("lost-for");
  const pulse = document.getElementById("pulse");
  const told = document.getElementById("told");
  const icon = document.getElementById("icon");
  const COLOURS = { ok: "3f8a5b", look: "d29b2b", bad: "c62828" };
  // What this page is about, if it is about one type, and how often it is fetched anyway.
  const { from, of } = live.dataset;
  const everyMs = Number(live.dataset.every) || 5000;
  const parser = new DOMParser();
  const clock = () => performance.now();
  // The look under way, whether something has changed since it began, when the next one is due, and from when on it may be.
  let asked = null;
  let wanted = false;
  let timer = 0;
  let due = 0;
  let free = clock() + LEAST_MS;
  // The stream that is followed, the last event of it, when it was heard last, and when it is taken up again.
  let stream = null;
  let last = "";
  let heard = Date.now();
  let retryMs = AGAIN_MS;
  let retry = 0;
  // When somebody answered last, and how often nobody has since.
  let seen = Date.now();
  let misses = 0;
  let ticking = 0;
  let ticked = 0;
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
      // Nor is who writes something disturbed.
      const at = document.activeElement;
      if (at?.matches("input") && at.value && old.contains(at)) return;
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

  // Rendered and escaped by the same server as this page; a document made so runs no script.
  function put(html) {
    const now = live.cloneNode(false);
    now.append(...parser.parseFromString(html, "text/html").body.childNodes);
    const where = whereKeyboardIs();
    const selected = getSelection();
    reading = selected.isCollapsed ? null : selected;
    const key = (part) => part.querySelector("[data-key]")?.dataset.key;
    if (key(live) !== key(now)) return location.reload();
    const headline = (part) => part.querySelector("[data-verdict] h1")?.textContent;
    const [before, after] = [headline(live), headline(now)];
    patch(live, now);
    putKeyboardBack(where);
    if (before === after) return;
    document.title = `${after} · Biotope`;
    told.textContent = after;
    sayByIcon();
  }

  // Among other tabs, too, it is seen whether all is well.
  function sayByIcon() {
    const colour = COLOURS[live.querySelector("[data-verdict]")?.dataset.verdict];
    if (colour) icon.href = icon.href.replace(/%23[0-9a-f]{6}/, `%23${colour}`);
  }

  function plan(ms) {
    const at = clock() + ms;
    if (timer && due <= at) return;
    clearTimeout(timer);
    due = at;
    timer = setTimeout(look, ms);
  }

  // Something has changed that is shown.
  function changed() {
    wanted = true;
    if (!asked) plan(Math.max(0, free - clock()));
  }

  async function look() {
    clearTimeout(timer);
    timer = 0;
    asked?.abort();
    const mine = (asked = new AbortController());
    const deadline = setTimeout(() => mine.abort(), TIMEOUT_MS);
    wanted = false;
    let status = 0;
    let html = null;
    try {
      const answer = await fetch(from, { signal: mine.signal });
      status = answer.status;
      if (answer.ok) html = await answer.text();
    } catch {
      // Nobody answers: that is told below.
    }
    clearTimeout(deadline);
    // Another look has begun, or this page rests.
    if (mine !== asked) return;
    asked = null;
    if (status === 401) return leave();
    const began = clock();
    if (html === null) miss(status);
    else {
      put(html);
      [seen, misses, lost.hidden] = [Date.now(), 0, true];
    }
    free = clock() + Math.max(LEAST_MS, SHARE * (clock() - began));
    if (wanted) changed();
    else plan(misses === 0 ? everyMs : misses === 1 ? LEAST_MS : AGAIN_MS);
    sayPulse();
  }

  function miss(status) {
    misses += 1;
    // Once may be the moment in which one process follows another.
    if (misses < 2) return;
    const says =
      status === 0 ? "Biotope does not answer."
      : status === 404 ? "This is not here any more."
      : `Biotope cannot show this now (status ${status}).`;
    if (lost.hidden || lostSays.textContent !== says) lostSays.textContent = says;
    lost.hidden = false;
    sayHowLong();
  }

  function sayHowLong() {
    const seconds = Math.round((Date.now() - seen) / 1000);
    lostFor.textContent = seconds < 120 ? `${seconds} s ago` : `${Math.round(seconds / 60)} min ago`;
  }

  function sayPulse() {
    const says = misses > 0 ? "" : stream && last ? "live" : `every ${everyMs / 1000} s`;
    if (pulse.textContent !== says) [pulse.textContent, pulse.hidden] = [says, says === ""];
  }

  // The session has ended: the form takes whoever knows a token back to where he was.
  function leave() {
    rest();
    location.assign(`/login?then=${encodeURIComponent(location.pathname + location.search)}`);
  }

  // Not by EventSource, which tells neither why it was refused nor whether a line that is silent is still one.
  async function follow() {
    clearTimeout(retry);
    stream?.abort();
    const mine = (stream = new AbortController());
    heard = Date.now();
    let status = 0;
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const answer = await fetch("/v1/events", { headers, signal: mine.signal });
      status = answer.status;
      if (answer.ok) await listen(answer.body.pipeThrough(new TextDecoderStream()).getReader(), mine);
    } catch {
      // The line broke, or there is none.
    }
    if (mine !== stream) return;
    stream = null;
    if (status === 401) return leave();
    retry = setTimeout(follow, status === 429 ? BUSY_MS : retryMs);
    // Whether there is still somebody is seen at once.
    if (status === 200) look();
    else sayPulse();
  }

  async function listen(reader, mine) {
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done || mine !== stream) return;
      heard = Date.now();
      const events = (text + value).split("\n\n");
      text = events.pop();
      events.forEach(hear);
      sayPulse();
    }
  }

  function hear(event) {
    let data = "";
    for (const line of event.split("\n")) {
      const [name, value] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)];
      if (name === "id") last = value;
      else if (name === "data") data += value;
      else if (name === "retry") retryMs = Number(value) || retryMs;
    }
    // Once a look is due, nothing more needs to be understood.
    if (data && !wanted && concerns(JSON.parse(data))) changed();
  }

  const concerns = (what) => !of || what.types?.some((type) => type.type === of);

  function rest() {
    clearTimeout(timer);
    clearTimeout(retry);
    clearInterval(ticking);
    asked?.abort();
    stream?.abort();
    asked = stream = null;
    timer = 0;
  }

  function begin() {
    rest();
    ticked = Date.now();
    ticking = setInterval(tick, 1000);
    follow();
  }

  // What happened meanwhile is seen at once, and what happens from now on is told.
  function wake() {
    if (document.hidden) return;
    begin();
    look();
  }

  function tick() {
    const now = Date.now();
    const slept = now - ticked > SLEPT_MS;
    ticked = now;
    if (slept || (stream && now - heard > SILENT_MS)) wake();
    else if (!lost.hidden) sayHowLong();
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : wake()));
  addEventListener("pagehide", rest);
  addEventListener("pageshow", (event) => event.persisted && wake());
  addEventListener("online", wake);
  sayByIcon();
  if (!document.hidden) {
    begin();
    plan(everyMs);
  }
})();
