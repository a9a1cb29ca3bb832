// The page's state and events: which conversation is shown, which run is under way, and what a key press does.

import * as api from "/web/api.js";
import { make } from "/web/text.js";
import { Turn } from "/web/view.js";

const $ = (id) => document.getElementById(id);
const el = Object.fromEntries(
  ["ask", "empty", "form", "input", "menu", "model", "more", "past", "ready", "say", "scroll", "send", "shade", "side", "stop", "title", "turns"]
    .map((id) => [id, $(id)]),
);

let session = null;   // the conversation shown; null: a new one
let running = null;   // { id, abort, turn } of the run under way here
let oldest = null;    // the last run listed, for "Show older"
const listed = new Set();

// Sending and reading

async function send(text) {
  if (running || !text.trim()) return;
  el.empty.hidden = true;
  const turn = new Turn(text, { again: () => send(text), rate });
  show(turn);
  if (!session) title(text);
  const named = el.title.textContent.slice(0, 200);
  const [agent, model] = choice();
  const body = {
    input: text, agent, model, session_id: session ?? undefined,
    // Closing the tab does not end the run; the page finds it again.
    on_disconnect: "continue", metadata: { page_input: text.slice(0, 4000), page_title: named },
  };
  await read(turn, (signal) => api.startRun(body, signal, (id, of) => { running.id = turn.id = id; session = of; remember(); }));
}

async function read(turn, open, id = null) {
  const abort = new AbortController();
  running = { id, abort, turn };
  busy(true);
  try {
    for await (const event of open(abort.signal)) {
      turn.take(event);
      follow();
    }
    announce(turn.answer || "The run has ended.");
  } catch (error) {
    if (error.name === "AbortError") return;
    turn.fail(error.status === 401 ? "A key is needed" : "That did not work", error.message);
    if (error.status === 401) ask("The key was not accepted.");
  } finally {
    if (running?.turn === turn) {
      running = null;
      busy(false);
    }
    follow();
    list();
  }
}

async function stop() {
  if (!running) return;
  el.stop.disabled = true;
  try {
    if (running.id) await api.post(`/v1/runs/${running.id}/cancel`);
    else leave();
  } catch (error) {
    announce(error.message);
  } finally {
    el.stop.disabled = false;
  }
}

async function rate(id, thumbs) {
  try {
    await api.post(`/v1/runs/${id}/feedback`, { thumbs });
    announce("Thank you.");
  } catch (error) {
    announce(error.message);
    throw error;
  }
}

// Stops reading, not the run.
function leave() {
  running?.abort.abort();
  running?.turn.stop();
  running = null;
  busy(false);
}

// Conversations

function fresh() {
  leave();
  session = null;
  remember();
  el.turns.replaceChildren();
  el.empty.hidden = false;
  title("");
  mark();
  drawer(false);
  el.input.focus();
}

async function open(id) {
  leave();
  session = id;
  remember();
  drawer(false);
  el.empty.hidden = true;
  el.turns.replaceChildren();
  try {
    const { data } = await api.get(`/v1/runs?limit=50&session_id=${encodeURIComponent(id)}`);
    if (session !== id) return;
    if (!data.length) return fresh();
    const runs = data.reverse();
    title(runs[0].metadata.page_title ?? words(runs[0]));
    for (const run of runs) {
      const turn = new Turn(words(run), { again: () => send(words(run)), rate });
      turn.id = run.id;
      turn.thumbs = run.feedback?.thumbs ?? null;
      show(turn);
      if (run.status === "running") {
        await Promise.resolve();
        read(turn, (signal) => api.follow(run.id, signal), run.id);
      } else {
        for (const event of await api.allEvents(run.id)) turn.take(event);
        if (session !== id) return;
      }
    }
    follow(true);
  } catch (error) {
    const turn = new Turn("");
    show(turn);
    turn.fail("The conversation cannot be read", error.message);
    if (error.status === 401) ask();
  }
  mark();
}

async function list(older = false) {
  try {
    const page = await api.get(`/v1/runs?limit=30${older && oldest ? `&before=${oldest}` : ""}`);
    if (!older) { listed.clear(); el.past.replaceChildren(); }
    for (const run of page.data) {
      oldest = run.id;
      if (listed.has(run.session_id)) continue;
      listed.add(run.session_id);
      el.past.append(entry(run));
    }
    el.more.hidden = !page.has_more;
    if (!listed.size) el.past.append(make("p", "none", "Nothing yet."));
  } catch (error) {
    if (error.status === 401) ask();
    else el.past.replaceChildren(make("p", "none", "The list cannot be read."));
  }
  mark();
}

function entry(run) {
  const button = make("button", "past");
  button.type = "button";
  button.dataset.session = run.session_id;
  const state = run.status === "running" ? "running" : run.outcome;
  button.append(make("span", "words", run.metadata.page_title ?? words(run)), make("span", `when ${state}`, run.status === "running" ? "running" : ago(run.created_at)));
  button.addEventListener("click", () => open(run.session_id));
  return button;
}

const words = (run) => run.metadata.page_input ?? (run.output ? `… ${run.output.slice(0, 80)}` : `Run by ${run.agent}`);

function mark() {
  for (const each of el.past.querySelectorAll("button")) {
    if (each.dataset.session === session) each.setAttribute("aria-current", "true");
    else each.removeAttribute("aria-current");
  }
}

function remember() {
  api.sticky.session = session;
  history.replaceState(null, "", session ? `#${session}` : location.pathname);
}

// The page

function show(turn) {
  turn.changed = follow;
  el.turns.append(turn.element);
  follow(true);
}

// Keeps the end in view, unless the reader has scrolled away from it.
let stuck = true;
function follow(force = false) {
  if (force === true) stuck = true;
  if (stuck) el.scroll.scrollTop = el.scroll.scrollHeight;
}

function busy(on) {
  el.send.hidden = on;
  el.stop.hidden = !on;
  if (!on) el.input.focus({ preventScroll: true });
}

function title(text) {
  el.title.textContent = text || "New conversation";
  document.title = text ? `${text.slice(0, 60)} · Agent Loop` : "Agent Loop";
}

function announce(text) {
  el.say.textContent = text;
}

function grow() {
  el.input.style.height = "auto";
  el.input.style.height = `${Math.min(el.input.scrollHeight, window.innerHeight * 0.4)}px`;
}

function drawer(on) {
  document.body.classList.toggle("drawer", on);
  el.shade.hidden = !on;
  el.menu.setAttribute("aria-expanded", String(on));
  if (on) el.side.querySelector("button").focus();
}

function choice() {
  const value = el.model.value;
  return value.startsWith("agent/") ? [value.slice(6), undefined] : ["default", value || undefined];
}

async function models() {
  try {
    const { data } = await api.get("/v1/models");
    const agents = data.filter((each) => each.id.startsWith("agent/"));
    const plain = data.filter((each) => !each.id.startsWith("agent/"));
    el.model.replaceChildren(group("Agents", agents), group("Models, with the default agent", plain));
    el.model.value = agents[0]?.id ?? plain[0]?.id ?? "";
  } catch (error) {
    if (error.status === 401) ask();
  }
}

function group(label, entries) {
  const box = make("optgroup");
  box.label = label;
  box.append(...entries.map(({ id }) => {
    const option = make("option", "", id.replace(/^agent\//, ""));
    option.value = id;
    return option;
  }));
  return box;
}

async function ready() {
  let state = "down";
  let words = "no answer";
  try {
    const response = await fetch("/ready");
    state = response.ok ? "up" : "wait";
    words = response.ok ? "ready" : "model not ready";
  } catch { /* it is down */ }
  el.ready.dataset.state = state;
  el.ready.textContent = words;
}

// The key

function ask(why) {
  if (el.ask.open) return;
  if (why) $("ask-why").textContent = why;
  $("ask-key").value = "";
  $("ask-forget").hidden = !api.key.get();
  el.ask.showModal();
}

$("ask-form").addEventListener("submit", () => {
  api.key.set($("ask-key").value.trim(), $("ask-keep").checked);
  begin();
});
$("ask-cancel").addEventListener("click", () => el.ask.close());
$("ask-forget").addEventListener("click", () => { api.key.forget(); el.ask.close(); location.reload(); });
$("key").addEventListener("click", () => ask());

// What people do

el.form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = el.input.value;
  if (running || !text.trim()) return;
  el.input.value = "";
  grow();
  send(text);
});
el.input.addEventListener("input", grow);
el.input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    el.form.requestSubmit();
  }
});
el.stop.addEventListener("click", stop);
el.scroll.addEventListener("scroll", () => {
  stuck = el.scroll.scrollHeight - el.scroll.scrollTop - el.scroll.clientHeight < 60;
}, { passive: true });
$("new").addEventListener("click", fresh);
el.more.addEventListener("click", () => list(true));
el.menu.addEventListener("click", () => drawer(!document.body.classList.contains("drawer")));
el.shade.addEventListener("click", () => drawer(false));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.body.classList.contains("drawer")) drawer(false);
  else if (event.key === "Escape" && !el.ask.open) stop();
  else if (event.altKey && event.code === "KeyN") { event.preventDefault(); fresh(); }
});
for (const idea of document.querySelectorAll(".idea")) idea.addEventListener("click", () => send(idea.textContent));
document.addEventListener("visibilitychange", () => { if (!document.hidden) ready(); });

function ago(at) {
  const minutes = (Date.now() / 1000 - at) / 60;
  if (minutes < 1) return "now";
  if (minutes < 60) return `${Math.floor(minutes)} min`;
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h`;
  return new Date(at * 1000).toLocaleDateString(undefined, { day: "numeric", month: "short" });
}

async function begin() {
  ready();
  await models();
  await list();
  const wanted = location.hash.slice(1);
  if (/^sess_[a-z0-9_-]+$/.test(wanted) && wanted !== session) await open(wanted);
}

setInterval(() => { if (!document.hidden) ready(); }, 15000);
grow();
el.input.focus();
begin();
