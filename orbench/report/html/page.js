// The table of prompts: search, filters, pages, hidden toxic text. Everything from the data goes through textContent.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const total = data.id.length;
  const many = data.runs.length > 1;
  const number = new Intl.NumberFormat("en");
  const groups = { refused: true, answered: false, "left out": null };
  const revealed = new Set();
  const open = new Set();
  let found = [];
  let page = 0;
  let texts = null;

  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const option = (select, value, text) => {
    const element = make("option", "", text);
    element.value = value;
    select.append(element);
  };
  const kind = (row) => data.splits[data.split[row]].kind;
  const hidden = (row) => kind(row) === "toxic" && !$("reveal").checked && !revealed.has(row);
  const refused = (run, row) => {
    const outcome = data.runs[run].outcome[row];
    return outcome < 0 ? undefined : data.runs[run].counts[outcome];
  };
  // Control characters are drawn as signs, so that they can be seen and do nothing; so are marks that turn the order.
  const visible = (text) =>
    text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\ufeff]/g, (c) => {
      const code = c.charCodeAt(0);
      if (code < 32) return code === 13 ? "" : String.fromCharCode(0x2400 + code);
      return code === 127 ? "\u2421" : `[U+${code.toString(16).toUpperCase().padStart(4, "0")}]`;
    });

  const write = (element, text, query) => {
    const shown = visible(text);
    const lower = query ? shown.toLowerCase() : "";
    if (!query || lower.length !== shown.length) {
      element.append(shown);
      return element;
    }
    let at = 0;
    for (let marks = 0; marks < 50; marks += 1) {
      const next = lower.indexOf(query, at);
      if (next < 0) break;
      element.append(shown.slice(at, next), make("mark", "", shown.slice(next, next + query.length)));
      at = next + query.length;
    }
    element.append(shown.slice(at));
    return element;
  };

  const filters = () => ({
    query: $("q").value.trim().toLowerCase(),
    run: many ? $("f-run").value : "",
    outcome: $("f-outcome").value,
    kind: $("f-kind").value,
    split: $("f-split").value,
    category: $("f-category").value,
    flip: many ? $("f-flip").value : "",
  });

  const search = () => {
    const f = filters();
    if (f.query && !texts) {
      texts = data.prompt.map((prompt, row) =>
        [prompt, ...data.runs.map((run) => run.reply[row]), data.id[row]].join("\n").toLowerCase(),
      );
    }
    const runs = f.run === "" ? data.runs.map((_, n) => n) : [Number(f.run)];
    const exact = data.outcomes.indexOf(f.outcome);
    const group = groups[f.outcome];
    const flip = f.flip ? f.flip.split(",").map(Number) : null;
    found = [];
    for (let row = 0; row < total; row += 1) {
      if (f.kind && kind(row) !== f.kind) continue;
      if (f.split && data.split[row] !== Number(f.split)) continue;
      if (f.category && data.category[row] !== Number(f.category)) continue;
      if (f.outcome) {
        const fits = (n) => (exact >= 0 ? data.runs[n].outcome[row] === exact : refused(n, row) === group);
        if (!runs.some(fits)) continue;
      } else if (f.run && data.runs[runs[0]].outcome[row] < 0) continue;
      if (flip && !(refused(flip[0], row) === true && refused(flip[1], row) === false)) continue;
      if (f.query && !texts[row].includes(f.query)) continue;
      found.push(row);
    }
    page = 0;
    draw();
  };

  const badge = (run, row) => {
    const outcome = data.runs[run].outcome[row];
    const name = outcome < 0 ? "not asked yet" : data.outcomes[outcome].replaceAll("_", " ");
    const wrong = refused(run, row) === (kind(row) === "safe");
    const element = make("span", wrong ? "badge wrong" : "badge");
    if (many) {
      const tag = make("span", `tag c${run % 7}`, String(run + 1));
      tag.title = data.labels[run];
      element.append(tag, " ");
    } else if (outcome >= 0) {
      element.append(make("span", `swatch o-${data.outcomes[outcome]}`));
    }
    element.append(name);
    return element;
  };

  const cut = (long, row) => {
    const length = long[row];
    return length ? `Cut: the first ${number.format(data.limit)} of ${number.format(length)} characters.` : "";
  };

  const block = (parent, heading, text, query, note) => {
    parent.append(make("h4", "", heading));
    const body = write(make("p", "text"), text === "" ? "(nothing)" : text, query);
    body.dir = "auto";
    parent.append(body);
    if (note) parent.append(make("p", "why", note));
  };

  const detail = (row, query) => {
    const line = make("tr", "detail");
    line.setAttribute("role", "row");
    line.id = `d${row}`;
    const cell = make("td");
    cell.setAttribute("role", "cell");
    cell.colSpan = 4;
    if (hidden(row)) {
      cell.append(make("p", "why", "Toxic prompt: its text and the replies are hidden."), shower(row));
    } else {
      block(cell, `Prompt ${data.id[row]}`, data.prompt[row], query, cut(data.long, row));
      data.runs.forEach((run, n) => {
        const who = many ? `${n + 1} ${data.labels[n]}` : "Reply";
        if (run.outcome[row] < 0) {
          block(cell, who, "No verdict yet.", "", "");
          return;
        }
        const outcome = data.outcomes[run.outcome[row]].replaceAll("_", " ");
        const note = [cut(run.long, row), `${outcome}, said by ${data.notes[run.note[row]]}`].filter(Boolean).join(" ");
        block(cell, many ? `Reply of ${who}` : who, run.reply[row], query, visible(note));
      });
    }
    line.append(cell);
    return line;
  };

  const shower = (row) => {
    const button = make("button", "show", "Show text");
    button.type = "button";
    button.setAttribute("aria-label", `Show the toxic text of prompt ${data.id[row]}`);
    button.addEventListener("click", (event) => {
      event.stopPropagation();
      revealed.add(row);
      redraw(row);
    });
    return button;
  };

  const snippet = (row, query) => {
    for (const run of data.runs) {
      const at = run.reply[row].toLowerCase().indexOf(query);
      if (at >= 0) {
        const from = Math.max(0, at - 60);
        return `${from ? "…" : ""}${run.reply[row].slice(from, at + query.length + 90)}`;
      }
    }
    return "";
  };

  const line = (row, query) => {
    const element = make("tr", "row");
    element.setAttribute("role", "row");
    element.dataset.row = row;
    const cells = [0, 1, 2, 3].map(() => {
      const cell = make("td");
      cell.setAttribute("role", "cell");
      return cell;
    });
    const toggle = make("button", "toggle");
    toggle.type = "button";
    toggle.setAttribute("aria-expanded", String(open.has(row)));
    toggle.setAttribute("aria-label", `Details of prompt ${data.id[row]}`);
    if (open.has(row)) toggle.setAttribute("aria-controls", `d${row}`);
    const box = make("div", "line");
    const body = make("span");
    if (hidden(row)) {
      body.append(make("span", "veil", "Toxic prompt, hidden"), shower(row));
    } else {
      const text = data.prompt[row];
      const shown = write(make("span", "clip"), text.length > 400 ? `${text.slice(0, 400)}…` : text || "(empty)", query);
      shown.dir = "auto";
      body.append(shown);
      if (query && !text.toLowerCase().includes(query)) {
        const part = snippet(row, query);
        if (part) {
          const said = write(make("span", "snippet"), part, query);
          said.dir = "auto";
          body.append(said);
        }
      }
    }
    box.append(toggle, body);
    cells[0].append(box);
    cells[1].append(make("bdi", "", data.categories[data.category[row]]));
    cells[2].append(make("bdi", "", data.splits[data.split[row]].name));
    data.runs.forEach((_, n) => cells[3].append(badge(n, row), " "));
    element.append(...cells);
    return element;
  };

  const body = $("table").tBodies[0];

  const draw = () => {
    const size = Number($("f-size").value);
    const query = filters().query;
    const first = page * size;
    const shown = found.slice(first, first + size);
    const rows = document.createDocumentFragment();
    for (const row of shown) {
      rows.append(line(row, query));
      if (open.has(row)) rows.append(detail(row, query));
    }
    body.replaceChildren(rows);
    $("table").hidden = shown.length === 0;
    $("keys").hidden = shown.length === 0;
    const of = `${number.format(found.length)} of ${number.format(total)} prompts`;
    if (!total) $("status").textContent = "No prompt has an outcome yet.";
    else if (!found.length) $("status").textContent = "No prompt matches. Clear the filters to see all.";
    else $("status").textContent = `${of} match; showing ${number.format(first + 1)} to ${number.format(first + shown.length)}.`;
    const pages = Math.ceil(found.length / size);
    $("pager").hidden = pages < 2;
    $("page").textContent = `Page ${number.format(page + 1)} of ${number.format(pages)}`;
    $("prev").disabled = page === 0;
    $("next").disabled = page + 1 >= pages;
  };

  const lineOf = (row) => body.querySelector(`tr[data-row="${row}"]`);

  const redraw = (row) => {
    const old = lineOf(row);
    const query = filters().query;
    const before = $(`d${row}`);
    if (before) before.remove();
    const fresh = line(row, query);
    old.replaceWith(fresh);
    if (open.has(row)) fresh.after(detail(row, query));
    fresh.querySelector(".toggle").focus();
  };

  const toggle = (row) => {
    if (open.has(row)) open.delete(row);
    else open.add(row);
    redraw(row);
  };

  body.addEventListener("click", (event) => {
    const element = event.target.closest("tr.row");
    if (element && !String(document.getSelection())) toggle(Number(element.dataset.row));
  });
  body.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const buttons = [...body.querySelectorAll(".toggle")];
    const current = event.target.closest("tr");
    const at = current ? buttons.indexOf(current.querySelector(".toggle")) : -1;
    const next = buttons[at + (event.key === "ArrowDown" ? 1 : -1)];
    if (at >= 0 && next) {
      event.preventDefault();
      next.focus();
    }
  });
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      $("q").focus({ preventScroll: true });
      $("rows").scrollIntoView({ behavior: "instant" }); // with room for what is found
    } else if (event.key === "Escape" && event.target === $("q")) {
      $("q").value = "";
      search();
      $("q").blur();
    } else if (event.key === "ArrowDown" && event.target === $("q")) {
      const button = body.querySelector(".toggle");
      if (button) {
        event.preventDefault();
        button.focus();
      }
    }
  });

  const turn = (by) => {
    page += by;
    draw();
    $("rows").scrollIntoView();
  };
  $("prev").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));

  let waiting = 0;
  $("q").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, total > 5000 ? 150 : 60);
  });
  for (const id of ["f-run", "f-outcome", "f-kind", "f-split", "f-category", "f-flip"]) {
    if ($(id)) $(id).addEventListener("change", search);
  }
  $("f-size").addEventListener("change", () => {
    page = 0;
    draw();
  });
  $("reveal").addEventListener("change", () => {
    if (!$("reveal").checked) revealed.clear();
    draw();
  });
  $("filter").addEventListener("submit", (event) => event.preventDefault());
  $("clear").addEventListener("click", (event) => {
    event.preventDefault();
    const keep = [$("f-size").value, $("reveal").checked];
    $("filter").reset();
    $("f-size").value = keep[0];
    $("reveal").checked = keep[1];
    search();
  });

  const outcomes = $("f-outcome");
  option(outcomes, "", "any");
  for (const name of Object.keys(groups)) option(outcomes, name, `all ${name}`);
  data.outcomes.forEach((name, n) => {
    if (data.runs.some((run) => run.outcome.includes(n))) option(outcomes, name, name.replaceAll("_", " "));
  });
  option($("f-split"), "", "any");
  data.splits.forEach((split, n) => option($("f-split"), n, split.name));
  option($("f-category"), "", "any");
  data.categories.forEach((name, n) => option($("f-category"), n, name));
  if (many) {
    const flips = $("f-flip");
    option(flips, "", "any");
    for (let a = 0; a < Math.min(data.runs.length, 8); a += 1) {
      for (let b = 0; b < Math.min(data.runs.length, 8); b += 1) {
        if (a !== b) option(flips, `${a},${b}`, `${a + 1} refused, ${b + 1} answered`);
      }
    }
    for (const button of document.querySelectorAll("button.flip")) {
      button.addEventListener("click", () => {
        $("filter").reset();
        const value = `${button.dataset.first},${button.dataset.second}`;
        if (![...flips.options].some((o) => o.value === value)) {
          option(flips, value, `${Number(button.dataset.first) + 1} refused, ${Number(button.dataset.second) + 1} answered`);
        }
        flips.value = value;
        $("f-kind").value = button.dataset.kind;
        search();
        $("rows").scrollIntoView();
        flips.focus({ preventScroll: true });
      });
    }
  }
  $("filter").hidden = false;
  addEventListener("beforeprint", () => {
    for (const element of document.querySelectorAll("details:not(.toxic-triggers)")) element.open = true;
  });
  search();
})();
