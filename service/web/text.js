// A model's text as elements: paragraphs, lists, headings, code, bold. Nothing is ever parsed as HTML, and no link is
// made that could carry data away by being shown.

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
  for (const part of text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/)) {
    if (/^`[^`]+`$/.test(part)) element.append(make("code", "", part.slice(1, -1)));
    else if (/^\*\*[^*]+\*\*$/.test(part)) element.append(make("strong", "", part.slice(2, -2)));
    else element.append(part);
  }
  return element;
}

export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}
