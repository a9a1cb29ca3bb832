// One turn of a conversation: the person's words, the run's steps and tools as they happen, the answer, what it cost.

import { make, render } from "/web/text.js";

const ENDS = {
  cancelled: "Stopped",
  client_gone: "Stopped: the reader left",
  interrupted: "Interrupted by a restart",
  max_steps: "Stopped at the limit of steps",
  max_tool_calls: "Stopped at the limit of tool calls",
  max_time: "Stopped at the time limit",
  max_tokens: "Stopped at the token limit",
  max_cost: "Stopped at the cost limit",
  tool_error: "A tool kept failing",
  model_error: "The model failed",
};

export class Turn {
  // `again` asks the same again; `rate(id, thumbs)` tells the service what the reader thinks of run `id`.
  constructor(input, { again, rate } = {}) {
    this.again = again;
    this.rate = rate;
    this.id = null;
    this.thumbs = null;
    this.steps = new Map();
    this.tools = new Map();
    this.answer = "";
    this.ended = false;
    this.element = make("article", "turn");
    this.element.append(question(input));
    this.run = make("div", "run");
    this.run.setAttribute("aria-busy", "true");
    this.work = make("details", "work");
    this.work.open = true;
    this.summary = make("summary");
    this.label = make("span", "label", "Waiting for its turn");
    this.clock = make("span", "clock");
    this.summary.append(make("span", "spin"), this.label, this.clock);
    this.list = make("ol", "steps");
    this.work.append(this.summary, this.list);
    this.body = make("div", "answer");
    this.foot = make("footer", "cost");
    this.run.append(this.work, this.body, this.foot);
    this.element.append(this.run);
    this.began = performance.now();
    this.ticking = setInterval(() => this.tick(), 100);
    this.tick();
  }

  tick() {
    this.clock.textContent = seconds((performance.now() - this.began) / 1000, 1);
  }

  // Takes one event of the run's log.
  take({ type, data, at }) {
    this.from ??= at;
    switch (type) {
      case "run.created":
        this.model = data.model;
        break;
      case "run.started":
        this.protocol = data.protocol;
        this.say("Thinking");
        break;
      case "step.started":
        this.step(data.step);
        this.say("Thinking");
        break;
      case "thinking.delta":
        this.think(data.step, data.text);
        break;
      case "text.delta":
        this.write(data.step, data.text);
        break;
      case "step.completed":
        this.complete(data);
        break;
      case "tool.started":
        this.call(data);
        break;
      case "tool.completed":
        this.result(data);
        break;
      case "run.ended":
        this.end(data, at);
        break;
    }
  }

  say(text) {
    if (this.label.textContent !== text) this.label.textContent = text;
  }

  step(number) {
    let step = this.steps.get(number);
    if (!step) {
      const item = make("li", "step");
      const head = make("div", "line");
      const meta = make("span", "meta");
      head.append(make("span", "name", `Step ${number}`), meta);
      item.append(head);
      this.list.append(item);
      step = { item, meta, text: "", thinking: "" };
      this.steps.set(number, step);
      // A step that goes on after text means that the text was not the answer yet.
      this.answer = "";
      this.draw();
    }
    return step;
  }

  think(number, text) {
    const step = this.step(number);
    step.thinking += text;
    if (!step.thoughts) {
      step.thoughts = make("p", "thoughts");
      step.item.append(step.thoughts);
    }
    step.thoughts.textContent = step.thinking;
  }

  write(number, text) {
    const step = this.step(number);
    step.text += text;
    this.answer = step.text;
    this.say("Answering");
    this.draw();
  }

  complete(data) {
    const step = this.step(data.step);
    step.meta.textContent = [
      seconds(data.seconds),
      `${count(data.usage.prompt_tokens)} in, ${count(data.usage.completion_tokens)} out`,
      data.finish_reason === "length" ? "cut at its length limit" : "",
    ].filter(Boolean).join(" · ");
    if (data.thinking && !step.thinking) this.think(data.step, data.thinking);
    step.text = data.text;
    if (data.tool_calls.length && data.text) {
      const note = make("div", "note");
      note.append(render(data.text));
      step.item.append(note);
      this.answer = "";
      this.draw();
    } else if (data.text) {
      this.answer = data.text;
      this.draw();
    }
  }

  call(data) {
    const box = make("details", "tool");
    box.dataset.state = "running";
    const head = make("summary");
    const meta = make("span", "meta", "running");
    head.append(make("span", "spin"), make("code", "", data.name), make("span", "args", brief(data.arguments)), meta);
    box.append(head, part("Arguments", pretty(data.arguments)));
    this.step(data.step).item.append(box);
    this.tools.set(data.id, { box, meta });
    this.say(`Using ${data.name}`);
  }

  result(data) {
    const tool = this.tools.get(data.id);
    if (!tool) return;
    tool.box.dataset.state = data.ok ? "ok" : "failed";
    tool.meta.textContent = (data.ok ? "" : "failed · ") + seconds(data.seconds);
    tool.box.append(part(data.ok ? "Result" : "Error", pretty(data.content)));
    this.say("Thinking");
  }

  draw() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = 0;
      this.body.replaceChildren(render(this.answer));
      this.changed?.();
    });
  }

  end(data, at) {
    this.stop();
    const good = data.outcome === "completed";
    const steps = Math.max(data.steps, this.steps.size);
    const time = at - this.from;
    this.say(`${plural(steps, "step")}${data.tool_calls ? `, ${plural(data.tool_calls, "tool call")}` : ""}`);
    this.clock.textContent = seconds(time);
    // A run of one plain step has nothing to show that the line below does not say.
    this.work.open = !good || this.tools.size > 0;
    this.work.hidden = good && this.tools.size === 0 && ![...this.steps.values()].some((step) => step.thinking);
    if (data.output && good) this.answer = data.output;
    this.draw();
    if (!good) this.notice(ENDS[data.outcome] ?? data.outcome, data.error?.message, data.outcome === "cancelled" ? "calm" : "bad");
    const usage = data.usage ?? {};
    this.facts([
      ["tokens", usage.total_tokens ? `${count(usage.prompt_tokens)} in, ${count(usage.completion_tokens)} out` : ""],
      ["time", seconds(time)],
      ["first token", data.ttft == null ? "" : seconds(data.ttft)],
      ["cost", data.cost ? money(data.cost) : ""],
      ["tools", data.protocol === "constrained" ? "by constrained output" : ""],
      ["model", this.model],
    ]);
    if (good && this.answer) this.foot.append(this.acts());
  }

  // The run could not be started or read.
  fail(title, message) {
    this.stop();
    this.work.hidden = this.steps.size === 0;
    this.work.open = false;
    this.say("Broken off");
    this.notice(title, message, "bad");
  }

  stop() {
    clearInterval(this.ticking);
    this.ended = true;
    this.run.setAttribute("aria-busy", "false");
    for (const { box, meta } of this.tools.values()) {
      if (box.dataset.state === "running") {
        box.dataset.state = "failed";
        meta.textContent = "not finished";
      }
    }
  }

  notice(title, message, kind) {
    const box = make("div", `notice ${kind}`);
    box.setAttribute("role", kind === "bad" ? "alert" : "status");
    const words = make("div");
    words.append(make("strong", "", title));
    if (message) words.append(make("p", "", message));
    box.append(words);
    if (this.again) {
      const button = make("button", "quiet", "Try again");
      button.type = "button";
      button.addEventListener("click", this.again);
      box.append(button);
    }
    this.run.insertBefore(box, this.foot);
  }

  // What the reader may do with the answer: copy it, and say whether it was good.
  acts() {
    const box = make("span", "acts");
    const copy = act("icon-copy", "Copy the answer", async () => {
      await navigator.clipboard?.writeText(this.answer);
      copy.classList.add("done");
      setTimeout(() => copy.classList.remove("done"), 1200);
    });
    box.append(copy);
    if (!this.rate) return box;
    const opinions = [["up", "Good answer"], ["down", "Bad answer"]].map(([thumbs, label]) => {
      const button = act("icon-thumb", label, async () => {
        await this.rate(this.id, thumbs);
        this.thumbs = thumbs;
        mark();
      });
      button.classList.add(thumbs);
      button.dataset.thumbs = thumbs;
      return button;
    });
    const mark = () => opinions.forEach((each) => each.setAttribute("aria-pressed", String(each.dataset.thumbs === this.thumbs)));
    mark();
    box.append(...opinions);
    return box;
  }

  facts(pairs) {
    this.foot.replaceChildren(...pairs.filter(([, value]) => value).map(([name, value]) => {
      const fact = make("span");
      fact.append(make("b", "", name), ` ${value}`);
      return fact;
    }));
  }
}

function act(icon, label, work) {
  const button = make("button", "act");
  button.type = "button";
  button.title = label;
  button.setAttribute("aria-label", label);
  const picture = document.getElementById(icon).content.firstElementChild.cloneNode(true);
  button.append(picture);
  button.addEventListener("click", work);
  return button;
}

function question(text) {
  const box = make("div", "question");
  box.append(make("span", "hidden", "You: "), make("p", "", text));
  return box;
}

function part(title, text) {
  const box = make("div", "part");
  const pre = make("pre", "", text);
  pre.tabIndex = 0;
  box.append(make("span", "", title), pre);
  return box;
}

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

function brief(text) {
  try {
    const values = Object.values(JSON.parse(text || "{}"));
    return values.map((value) => (typeof value === "string" ? value : JSON.stringify(value))).join(", ");
  } catch { return text; }
}

const count = (number = 0) => number.toLocaleString("en");
const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
const money = (value) => value.toLocaleString("en", { maximumSignificantDigits: 2, useGrouping: false });

export function seconds(value, digits = 2) {
  if (value == null) return "";
  if (value < 0.1 && digits > 1) return `${Math.max(1, Math.round(value * 1000))} ms`;
  if (value < 60) return `${value.toFixed(value < 10 ? digits : 1)} s`;
  return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}
