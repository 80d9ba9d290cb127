// Comfort for the pages; everything works without it. It writes times in the
// viewer's zone, counts running clocks, and when the server says that
// something has changed it fetches the page again and replaces the parts that
// differ. The page never becomes text here and text never becomes markup.
"use strict";
(() => {
  const two = (n) => String(n).padStart(2, "0");
  const dateTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

  function distance(seconds) {
    const ahead = seconds < 0;
    const s = Math.abs(seconds);
    if (s < 10) return ahead ? "in a moment" : "just now";
    const [n, unit] = s < 60 ? [s, "second"] : s < 3600 ? [s / 60, "minute"] :
      s < 172800 ? [s / 3600, "hour"] : [s / 86400, "day"];
    const k = Math.floor(n);
    const text = k + " " + unit + (k === 1 ? "" : "s");
    return ahead ? "in " + text : text + " ago";
  }
  function clock(seconds) {
    const s = Math.max(0, Math.floor(seconds));
    const tail = two(Math.floor(s / 60) % 60) + ":" + two(s % 60);
    return s >= 3600 ? Math.floor(s / 3600) + ":" + tail : tail;
  }
  function set(el, text) { if (el.textContent !== text) el.textContent = text; }

  function tick(root) {
    const now = Date.now();
    for (const el of root.querySelectorAll("[data-ago]")) set(el, distance((now - Date.parse(el.dateTime)) / 1000));
    for (const el of root.querySelectorAll("[data-clock]")) set(el, clock((now - Date.parse(el.dataset.clock)) / 1000));
  }
  function localise(root) {
    for (const el of root.querySelectorAll("time[datetime]")) {
      const t = new Date(el.dateTime);
      if (isNaN(t)) continue;
      el.title = exact.format(t) + " (" + t.toISOString().replace(".000", "") + ")";
      if (!("ago" in el.dataset)) el.textContent = dateTime.format(t);
    }
    tick(root);
  }
  function tail(root) {
    for (const el of root.querySelectorAll("pre[data-tail]")) el.scrollTop = el.scrollHeight;
  }

  // Parts that may be replaced have an id and data-part. What the server sent
  // last is kept, because the page's own copy has been localised.
  const sent = new Map();
  for (const el of document.querySelectorAll("[data-part]")) sent.set(el.id, el.innerHTML);

  function replace(part, fresh) {
    const html = fresh.innerHTML;
    if (sent.get(part.id) === html) return;
    sent.set(part.id, html);
    const active = document.activeElement;
    const focus = part.contains(active) ? active.id : "";
    const open = [...part.querySelectorAll("details[open][id]")].map((d) => d.id);
    const scroll = [...part.querySelectorAll("pre[id]")].map((p) =>
      [p.id, p.scrollTop, p.scrollTop + p.clientHeight >= p.scrollHeight - 8]);
    part.replaceChildren(...[...fresh.childNodes].map((n) => document.importNode(n, true)));
    part.className = fresh.className;
    localise(part);
    for (const id of open) { const d = document.getElementById(id); if (d) d.open = true; }
    for (const [id, top, atEnd] of scroll) {
      const p = document.getElementById(id);
      if (p) p.scrollTop = atEnd ? p.scrollHeight : top;
    }
    if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
  }

  let loading = false, again = false;
  function refresh() {
    if (loading) { again = true; return; }
    loading = true;
    const req = new XMLHttpRequest();
    req.open("GET", location.href);
    req.responseType = "document";
    req.onloadend = () => {
      loading = false;
      const doc = req.response;
      if (req.status === 401 || (doc && doc.body && doc.body.dataset.live !== document.body.dataset.live)) {
        location.reload(); // logged out, or the page has become another one
        return;
      }
      if (req.status === 200 && doc) {
        document.title = doc.title;
        for (const part of document.querySelectorAll("[data-part]")) {
          const fresh = doc.getElementById(part.id);
          if (fresh) replace(part, fresh);
        }
        // A screen reader says what changes here, so it changes only when the words do.
        const say = document.getElementById("announce"), words = doc.getElementById("announce");
        if (say && words) set(say, words.textContent);
      }
      if (again) { again = false; refresh(); }
    };
    req.send();
  }

  function listen(url) {
    const state = document.getElementById("connection");
    const source = new EventSource(url);
    let lost = false;
    source.addEventListener("change", refresh);
    source.onopen = () => {
      if (state) set(state, "Live");
      if (lost) { lost = false; refresh(); }
    };
    source.onerror = () => {
      lost = true;
      if (state) set(state, "Connection lost, trying again");
      if (source.readyState === EventSource.CLOSED) setTimeout(() => { listen(url); refresh(); }, 3000);
    };
  }

  localise(document);
  tail(document);
  setInterval(() => tick(document), 1000);
  if (document.body.dataset.live) listen(document.body.dataset.live);

  // A time that people pick is in their zone; the instant goes to the server.
  for (const el of document.querySelectorAll("input[data-at]")) {
    const local = el.form.elements[el.dataset.at], zone = el.form.querySelector("[data-zone]");
    if (zone) zone.textContent = "in your zone, " + Intl.DateTimeFormat().resolvedOptions().timeZone;
    el.form.addEventListener("submit", () => {
      const picked = new Date(local.value);
      if (!isNaN(picked)) el.value = picked.toISOString();
    });
  }

  // One click is one request.
  document.addEventListener("submit", (e) => {
    const button = e.submitter;
    if (button) setTimeout(() => { button.disabled = true; }, 0);
  });
  window.addEventListener("pageshow", () => {
    for (const b of document.querySelectorAll("button:disabled:not([data-off])")) b.disabled = false;
  });
  // Buttons that copy a command line; without the script the text can be selected.
  for (const el of document.querySelectorAll("[data-copy]")) {
    const target = document.getElementById(el.dataset.copy);
    if (!navigator.clipboard || !target) continue;
    el.hidden = false;
    el.addEventListener("click", async () => {
      await navigator.clipboard.writeText(target.textContent.trim());
      const old = el.textContent;
      el.textContent = "Copied";
      setTimeout(() => { el.textContent = old; }, 1500);
    });
  }
})();
