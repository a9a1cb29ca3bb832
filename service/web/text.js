// A model's text as elements: paragraphs, lists, tables, headings, code, emphasis, links. Nothing is ever parsed as
// HTML, and nothing that is shown loads anything: a link goes nowhere until somebody follows it, and says where to.

export function render(text) {
  const out = document.createDocumentFragment();
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  let paragraph = [];
  let list = null;
  const flush = () => {
    if (paragraph.length) out.append(inline(make("p"), paragraph.join("\n")));
    paragraph = [];
    list = null;
  };
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i];
    const fence = line.match(/^\s*```\s*([\w+-]*)/);
    const item = line.match(/^\s*(?:([-*•])|(\d{1,3})[.)])\s+(.*)/);
    const heading = line.match(/^(#{1,4})\s+(.*)/);
    if (fence) {
      flush();
      const code = [];
      while (++i < lines.length && !/^\s*```\s*$/.test(lines[i])) code.push(lines[i]);
      out.append(block(code.join("\n"), fence[1]));
    } else if (heading) {
      flush();
      out.append(inline(make("h3"), heading[2]));
    } else if (isRow(line) && /^\s*\|?\s*:?-{2,}/.test(lines[i + 1] ?? "")) {
      flush();
      const rows = [line];
      for (i++; isRow(lines[i + 1] ?? ""); i++) rows.push(lines[i + 1]);
      out.append(table(rows));
    } else if (item) {
      const kind = item[1] ? "UL" : "OL";
      if (paragraph.length) flush();
      if (list?.tagName !== kind) {
        list = make(kind.toLowerCase());
        if (kind === "OL") list.start = Number(item[2]);
        out.append(list);
      }
      list.append(inline(make("li"), item[3]));
    } else if (line.trim() === "") {
      flush();
    } else {
      list = null;
      paragraph.push(line);
    }
  }
  flush();
  return out;
}

const isRow = (line) => /^\s*\|.*\|\s*$/.test(line);

function table(rows) {
  const box = make("div", "table");
  box.tabIndex = 0;
  const body = make("table");
  rows.forEach((row, index) => {
    const line = make("tr");
    for (const cell of row.trim().slice(1, -1).split("|")) line.append(inline(make(index ? "td" : "th"), cell.trim()));
    body.append(line);
  });
  box.append(body);
  return box;
}

function block(text, language) {
  const box = make("div", "code");
  const copy = make("button", "quiet copy", "Copy");
  copy.type = "button";
  copy.addEventListener("click", async () => {
    await navigator.clipboard?.writeText(text);
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  });
  const pre = make("pre");
  pre.tabIndex = 0;
  pre.append(make("code", "", text));
  box.append(make("span", "lang", language), copy, pre);
  return box;
}

function inline(element, text) {
  for (const part of text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*|(?<![\w*])\*[^*\s][^*\n]*\*(?![\w*])|\[[^\]\n]+\]\(https?:[^)\s]+\))/)) {
    const link = part.match(/^\[([^\]]+)\]\((https?:[^)\s]+)\)$/);
    if (link) element.append(anchor(link[1], link[2]));
    else if (/^`[^`]+`$/.test(part)) element.append(make("code", "", part.slice(1, -1)));
    else if (/^\*\*[^*]+\*\*$/.test(part)) element.append(make("strong", "", part.slice(2, -2)));
    else if (/^\*[^*]+\*$/.test(part)) element.append(make("em", "", part.slice(1, -1)));
    else element.append(part);
  }
  return element;
}

function anchor(text, address) {
  const link = make("a", "", text);
  link.href = address;
  link.title = address;
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow";
  return link;
}

export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}
