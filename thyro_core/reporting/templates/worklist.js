"use strict";
(() => {
  const byId = id => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const cases = [...document.querySelectorAll(".case")];
  const place = `thyro-feedback-${data.date}-${[...new Set(cases.map(c => c.dataset.batch))].sort().join("-")}`;
  const tell = (text, bad = false) => {
    byId("say").textContent = text;
    byId("say").classList.toggle("bad", bad);
  };

  // What readers said, oldest first; nothing is ever taken out of it.
  let events = data.feedback;
  const memory = {
    get(name) { try { return localStorage.getItem(name); } catch { return null; } },
    set(name, value) { try { localStorage.setItem(name, value); return true; } catch { return false; } },
  };
  if (!data.served) {
    try { events = JSON.parse(memory.get(place)) || []; } catch { events = []; }
  }
  byId("who").value = data.who || memory.get("thyro-reader") || "";
  const who = () => byId("who").value.trim();

  const isMine = event => event.who === who();
  const stateOf = image => {
    const state = { seen: false, verdict: "", comments: [], others: [] };
    const others = new Map();
    for (const event of events.filter(each => each.image_id === image)) {
      if (event.what === "comment") state.comments.push(`${event.who}: ${event.comment}`);
      if (isMine(event)) {
        state.seen = event.what !== "unseen";
        if (["agree", "disagree"].includes(event.what)) state.verdict = event.what;
        if (event.what === "withdraw") state.verdict = "";
      } else if (["agree", "disagree", "withdraw"].includes(event.what)) {
        others.set(event.who, event.what);
      }
    }
    for (const [name, what] of others) {
      if (what !== "withdraw") state.others.push(`${name} ${what}s`);
    }
    return state;
  };

  const send = async event => {
    const reply = await fetch("feedback", {
      method: "POST", credentials: "same-origin",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": data.csrf },
      body: JSON.stringify(event),
    });
    if (!reply.ok) throw new Error((await reply.text()).slice(0, 200) || String(reply.status));
    return reply.json();
  };
  const say = async (item, what, comment = null) => {
    if (!who()) {
      tell("Give your initials first: who says it is kept with it.", true);
      byId("zoom").close();
      byId("who").focus();
      return;
    }
    let event = {
      said_at: new Date().toISOString(), who: who(), what, comment,
      batch_id: item.dataset.batch, image_id: item.dataset.image, model_id: item.dataset.model,
    };
    if (data.served) {
      try { event = await send(event); } catch (error) {
        tell(`Not kept: ${error.message}. Try again; if it goes on, load the page anew.`, true);
        return;
      }
      events.push(event);
      tell("");
    } else {
      events.push(event);
      const isKept = memory.set(place, JSON.stringify(events));
      tell(isKept
        ? "Kept in this browser alone: save the feedback, and hand it to `thyro feedback FILE`."
        : "This browser keeps nothing: save the feedback before you close the page.", !isKept);
    }
    draw(item);
    select(); // what was just marked may be filtered away
  };

  const canBeJudged = item => ["refer", "review", "routine"].includes(item.dataset.band);
  const act = (item, key) => {
    const state = stateOf(item.dataset.image);
    if (key === "s") return say(item, state.seen ? "unseen" : "seen");
    if (key === "c") return openRemark(item);
    if (!canBeJudged(item)) return tell("The model says nothing of this row: there is nothing to agree with.");
    const verdict = key === "a" ? "agree" : "disagree";
    return say(item, state.verdict === verdict ? "withdraw" : verdict);
  };
  const button = (item, key, text, pressed) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.dataset.key = key;
    if (pressed !== null) made.setAttribute("aria-pressed", pressed);
    made.addEventListener("click", () => act(item, key));
    return made;
  };
  const fill = (box, item) => {
    const state = stateOf(item.dataset.image);
    box.replaceChildren(button(item, "s", "Seen", state.seen));
    if (canBeJudged(item)) {
      box.append(
        button(item, "a", "Agree", state.verdict === "agree"),
        button(item, "d", "Disagree", state.verdict === "disagree"),
      );
    }
    box.append(button(item, "c", "Comment", null));
    for (const text of [state.others.join(", "), ...state.comments].filter(Boolean)) {
      const line = document.createElement("p");
      line.className = "meta";
      line.textContent = text;
      box.append(line);
    }
  };
  const draw = item => {
    const state = stateOf(item.dataset.image);
    item.classList.toggle("seen", state.seen);
    item.dataset.state = [state.seen ? "seen" : "unseen", state.verdict].filter(Boolean).join(" ");
    fill(item.querySelector(".marks"), item);
    if (shown === item && byId("zoom").open) fill(byId("zoom").querySelector(".marks"), item);
  };

  // Filter and order
  const textOf = new Map(cases.map(item => [item, [
    item.closest(".exam").querySelector("h3").textContent, item.textContent, item.dataset.image,
  ].join(" ").toLowerCase()]));
  const select = () => {
    const find = byId("find").value.trim().toLowerCase();
    const band = byId("band").value;
    const state = byId("state").value;
    const isFiltered = Boolean(find || band || state);
    let n = 0;
    for (const item of cases) {
      const fits = (!find || textOf.get(item).includes(find))
        && (!band || item.dataset.bands.split("|").includes(band))
        && (!state || item.dataset.state.split(" ").includes(state));
      item.hidden = !fits;
      n += fits;
    }
    for (const exam of document.querySelectorAll(".exam")) exam.hidden = !exam.querySelector(".case:not([hidden])");
    for (const section of document.querySelectorAll("main section")) {
      section.hidden = isFiltered && !section.querySelector(".case:not([hidden])");
    }
    if (isFiltered) for (const more of document.querySelectorAll("details.more")) more.open = true;
    byId("count").value = `${n} of ${cases.length} rows`;
  };
  const first = exam => exam.querySelector(".case");
  const probability = (item, other) => item.dataset.p === "" ? other : Number(item.dataset.p);
  const nameOf = exam => (exam.querySelector(".name") || exam.querySelector(".facts code")).textContent;
  const orders = {
    rank: (a, b) => first(a).dataset.rank - first(b).dataset.rank,
    high: (a, b) => probability(first(b), -1) - probability(first(a), -1),
    low: (a, b) => probability(first(a), 2) - probability(first(b), 2),
    name: (a, b) => nameOf(a).localeCompare(nameOf(b)),
    size: (a, b) => b.querySelectorAll(".case").length - a.querySelectorAll(".case").length,
  };
  const arrange = () => {
    for (const list of document.querySelectorAll("ol.exams")) {
      const compare = orders[byId("order").value];
      list.append(...[...list.children].sort((a, b) => compare(a, b) || orders.rank(a, b)));
    }
  };

  // Moving and enlarging
  let shown = null;
  const visible = () => [...document.querySelectorAll(".case:not([hidden])")];
  const current = () => document.activeElement.closest(".case");
  const move = (from, step) => {
    const rows = visible();
    const at = rows.indexOf(from);
    const next = rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + step))];
    if (!next) return null;
    const more = next.closest("details.more");
    if (more) more.open = true;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "center" });
    return next;
  };
  const fade = () => {
    const map = document.querySelector(".stack .map");
    if (map) map.style.opacity = byId("fade").value / 100;
  };
  const enlarge = (item, picture = item.querySelector("img")) => {
    shown = item;
    const stack = document.querySelector(".stack");
    const isPair = picture !== null && picture.classList.contains("pair");
    stack.replaceChildren();
    stack.classList.toggle("paired", isPair);
    document.querySelector(".fade").hidden = !isPair;
    if (picture) {
      const size = () => {
        const ratio = picture.naturalWidth / (isPair ? 2 : 1) / picture.naturalHeight;
        stack.style.aspectRatio = ratio;
        stack.style.width = `min(100%, calc(62vh * ${ratio}))`;
      };
      for (const kind of isPair ? ["image", "map"] : ["image"]) {
        const copy = document.createElement("img");
        copy.src = picture.src;
        copy.className = kind;
        copy.alt = kind === "image" ? picture.alt : "";
        stack.append(copy);
      }
      picture.decode().then(size, () => tell("The picture could not be shown.", true));
      fade();
    } else {
      stack.style.aspectRatio = "";
      stack.textContent = "";
    }
    const facts = (picture ? picture.closest("[data-part]") || item : item).querySelector(".facts");
    document.querySelector("#zoom .about").replaceChildren(facts.cloneNode(true));
    if (!picture) {
      const none = item.querySelector(".none");
      if (none) document.querySelector("#zoom .about").prepend(none.cloneNode(true));
    }
    fill(byId("zoom").querySelector(".marks"), item);
    if (!byId("zoom").open) byId("zoom").showModal();
  };
  const step = by => {
    const next = move(shown, by);
    if (next) enlarge(next);
  };
  let remarked = null;
  const openRemark = item => {
    remarked = item;
    byId("remark-text").value = "";
    byId("remark").returnValue = "";
    byId("remark").showModal();
  };
  byId("remark").addEventListener("close", () => {
    const text = byId("remark-text").value.trim();
    if (byId("remark").returnValue === "keep" && text) say(remarked, "comment", text);
    else if (remarked && !byId("zoom").open) remarked.focus();
  });
  byId("zoom").addEventListener("close", () => {
    const item = shown;
    shown = null;
    if (item) item.focus({ preventScroll: true });
  });

  // Saving
  const download = (name, kind, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: kind }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const columns = ["said_at", "who", "what", "comment", "batch_id", "image_id", "model_id"];
  const cell = value => {
    const text = String(value ?? "");
    // No spreadsheet takes a text for a formula.
    return `"${(/^[=+\-@\t\r']/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
  };
  byId("save-json").addEventListener("click", () => download(
    `thyro-feedback-${data.date}.json`, "application/json",
    JSON.stringify({ thyro_feedback: 1, date: data.date, events }, null, 1),
  ));
  byId("save-csv").addEventListener("click", () => download(
    `thyro-feedback-${data.date}.csv`, "text/csv",
    [["date", ...columns], ...events.map(event => [data.date, ...columns.map(name => event[name])])]
      .map(row => row.map(cell).join(",")).join("\n") + "\n",
  ));

  // Keys
  document.addEventListener("keydown", event => {
    const target = event.target;
    const writes = target.matches("input:not([type=range]), textarea, select");
    if (event.ctrlKey || event.metaKey || event.altKey || writes || byId("remark").open || byId("help").open) return;
    const isOpen = byId("zoom").open;
    const item = isOpen ? shown : current();
    const slide = by => { byId("fade").value = Number(byId("fade").value) + by; fade(); };
    const keys = {
      j: () => isOpen ? step(1) : move(item, 1),
      k: () => isOpen ? step(-1) : move(item, -1),
      "?": () => byId("help").showModal(),
      "/": () => { if (!isOpen) byId("find").focus(); },
      s: () => item && act(item, "s"),
      a: () => item && act(item, "a"),
      d: () => item && act(item, "d"),
      c: () => item && act(item, "c"),
    };
    if (!target.matches("input")) Object.assign(keys, { ArrowDown: keys.j, ArrowUp: keys.k });
    if (isOpen) {
      Object.assign(keys, {
        "+": () => slide(10), "-": () => slide(-10),
        m: () => { byId("fade").value = Number(byId("fade").value) ? 0 : 60; fade(); },
      });
    } else if (item && !target.closest("a, button, summary")) {
      keys.Enter = () => enlarge(item);
    }
    if (Object.hasOwn(keys, event.key)) {
      event.preventDefault();
      keys[event.key]();
    }
  });

  for (const item of cases) {
    draw(item);
    for (const picture of item.querySelectorAll("img")) {
      picture.classList.add("zoomable");
      picture.addEventListener("click", () => enlarge(item, picture));
    }
    item.addEventListener("mousedown", event => {
      if (!event.target.closest("a, button, summary, input")) item.focus({ preventScroll: true });
    });
  }
  byId("tools").addEventListener("submit", event => event.preventDefault());
  for (const id of ["find", "band", "state"]) byId(id).addEventListener("input", select);
  byId("order").addEventListener("input", arrange);
  byId("fade").addEventListener("input", fade);
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  byId("next").addEventListener("click", () => step(1));
  byId("previous").addEventListener("click", () => step(-1));
  byId("close").addEventListener("click", () => byId("zoom").close());
  byId("who").readOnly = Boolean(data.who);
  // Not on "change": that comes with the click on a row's button, which would be replaced under it.
  byId("who").addEventListener("input", () => {
    memory.set("thyro-reader", who());
    cases.forEach(draw);
    select();
  });
  byId("tools").hidden = false;
  select();
})();
