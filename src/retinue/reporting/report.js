(function () {
  "use strict";
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const fontFamily = getComputedStyle(document.body).fontFamily;
  const narrowBelow = 560;

  function themed(value, style) {
    if (Array.isArray(value)) return value.map((item) => themed(item, style));
    if (value === null || typeof value !== "object") return value;
    if (typeof value.var === "string") return style.getPropertyValue(value.var).trim();
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, themed(item, style)]));
  }

  function wrapped(label, width) {
    const lines = [""];
    for (const word of label.split(" ")) {
      const line = lines[lines.length - 1];
      if (line && line.length + word.length >= width) lines.push(word);
      else lines[lines.length - 1] = line ? line + " " + word : word;
    }
    return lines.join("<br>");
  }

  function axisStyle(axis, ink, narrow) {
    const styled = Object.assign(
      { automargin: true, gridcolor: ink("--grid"), linecolor: ink("--rule"), zeroline: false, fixedrange: true,
        tickfont: { size: narrow ? 11 : 12, color: ink("--soft") }, ticklabelstandoff: 4 },
      axis);
    styled.title = Object.assign({}, axis.title, { standoff: 10, font: { size: narrow ? 11.5 : 12.5, color: ink("--muted") } });
    return styled;
  }

  function longest(words) { return Math.max(...words.map((word) => word.length)); }
  function mark(index) { return String(index + 1); }

  function columnRoom(trace, place) {
    const left = 50 + 6.6 * Math.min(16, longest(trace.y));
    return Math.floor((place.clientWidth - left) / trace.x.length / 6.6);
  }

  function isCramped(trace, place) {
    return longest(trace.x.flatMap((label) => label.split(" "))) > columnRoom(trace, place);
  }

  // columns too narrow for their names carry numbers, which the rows explain
  function columnLabels(trace, place) {
    const cramped = isCramped(trace, place);
    return trace.x.map((label, i) => cramped ? mark(i) : wrapped(label, columnRoom(trace, place)));
  }

  function rowLabels(trace, place, narrow) {
    const cramped = isCramped(trace, place);
    return trace.y.map((label) => {
      const at = trace.x.indexOf(label);
      return wrapped((cramped && at >= 0 ? mark(at) + ": " : "") + label, narrow ? 18 : 22);
    });
  }

  function prepared(place, figure) {
    const style = getComputedStyle(root);
    const ink = (name) => style.getPropertyValue(name).trim();
    const narrow = place.clientWidth < narrowBelow;
    const traces = themed(figure.traces, style);
    const layout = themed(figure.layout, style);
    const zoomable = Boolean(layout.zoomable) && !touch;
    delete layout.zoomable;
    for (const trace of traces) {
      if (narrow && (trace.textwhenwide || (trace.texttemplate && trace.x.length > 6))) delete trace.texttemplate;
      delete trace.textwhenwide;
      if (trace.colorbar && narrow) trace.showscale = false;
      if (trace.mode === "markers" && narrow) trace.marker.size = 5;
      if (trace.colorbar) trace.colorbar.tickfont = { size: 11, color: ink("--soft") };
    }
    for (const name of ["xaxis", "yaxis"]) {
      const axis = axisStyle(layout[name], ink, narrow);
      if (axis.wraplabels) {
        axis.tickvals = traces[0][name[0]];
        axis.ticktext = name === "xaxis" ? columnLabels(traces[0], place) : rowLabels(traces[0], place, narrow);
        axis.tickmode = "array";
        delete axis.wraplabels;
      }
      if (name === "xaxis" && axis.tickangle === undefined) axis.tickangle = 0;
      axis.fixedrange = !zoomable;
      layout[name] = axis;
    }
    Object.assign(layout, {
      width: place.clientWidth,
      height: narrow && traces[0].type !== "heatmap" ? Math.min(place.dataset.height, 420) : Number(place.dataset.height),
      margin: { l: 8, r: 8, t: traces.length > 1 ? 34 : 10, b: 8 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: fontFamily, color: ink("--ink"), size: 12.5 },
      hoverlabel: { bgcolor: ink("--card"), bordercolor: ink("--rule"), align: "left", font: { family: fontFamily, color: ink("--ink"), size: 12.5 } },
      showlegend: traces.length > 1,
      legend: { orientation: "h", traceorder: "normal", x: 0, y: 1.01, yanchor: "bottom", font: { color: ink("--soft"), size: narrow ? 11.5 : 12.5 } },
      dragmode: zoomable ? "zoom" : false,
    });
    return { traces, layout };
  }

  function draw(place) {
    place.style.minHeight = "";
    const { traces, layout } = prepared(place, figures[place.dataset.figure]);
    return Plotly.react(place, traces, layout, { displayModeBar: false, showTips: false });
  }

  const places = Array.from(document.querySelectorAll(".chart"));
  function drawAll() { Promise.all(places.map(draw)).then(finished); }
  function finished() {
    root.dataset.drawn = String(document.querySelectorAll(".chart svg.main-svg").length);
    root.dataset.overflow = String(root.scrollWidth - window.innerWidth);
  }

  const button = document.querySelector("button.theme");
  function isDark() { return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches; }
  function label() { button.textContent = isDark() ? "Light colours" : "Dark colours"; }
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    label();
    drawAll();
  });
  dark.addEventListener("change", () => { label(); drawAll(); });
  const drawnWidth = new WeakMap();
  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (drawnWidth.get(target) === target.clientWidth) continue;
      drawnWidth.set(target, target.clientWidth);
      requestAnimationFrame(() => draw(target).then(finished));
    }
  });

  const links = new Map(Array.from(document.querySelectorAll("nav a"), (a) => [a.hash.slice(1), a]));
  const watch = new IntersectionObserver((seen) => {
    for (const entry of seen.filter((item) => item.isIntersecting)) {
      links.forEach((a, id) => a.setAttribute("aria-current", String(id === entry.target.id)));
    }
  }, { rootMargin: "-10% 0px -80% 0px" });
  document.querySelectorAll("section[id]").forEach((section) => watch.observe(section));

  function story() {
    const held = document.getElementById("stories");
    if (!held) return;
    const told = JSON.parse(held.textContent);
    const names = Object.keys(told);
    const who = document.getElementById("story-who"), note = document.getElementById("story-note");
    const ids = document.getElementById("story-ids"), shown = document.getElementById("story-told");
    names.forEach((name) => { const one = document.createElement("option"); one.value = name; ids.append(one); });
    function curve(key, title, days, values) {
      figures[key] = {
        traces: [{ type: "scatter", mode: "lines+markers", x: days, y: values, line: { color: { var: "--accent" } }, hoverinfo: "x+y" }],
        layout: { xaxis: { title: { text: "days after the cutoff" }, rangemode: "tozero" },
          yaxis: { title: { text: title }, rangemode: "tozero" } } };
    }
    function cell(row, text, kind) {
      const made = document.createElement("td");
      made.textContent = text; made.className = kind; row.append(made);
    }
    function show() {
      const one = Object.hasOwn(told, who.value.trim()) ? told[who.value.trim()] : null;
      shown.hidden = !one;
      note.textContent = one || !who.value.trim() ? "" : "Not among the customers whose story is in this file; decisions.parquet and forecasts.parquet hold everyone.";
      if (!one) return;
      document.getElementById("story-facts").replaceChildren(...one.facts.map(([name, words]) => {
        const pair = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
        dt.textContent = name; dd.textContent = words; pair.append(dt, dd);
        return pair;
      }));
      document.getElementById("story-events").replaceChildren(...one.events.map(([day, kind, amount]) => {
        const row = document.createElement("tr");
        cell(row, day, "text"); cell(row, kind, "text"); cell(row, amount, "");
        return row;
      }));
      curve("story-stays", "chance of an order", one.days, one.stays);
      curve("story-value", "value (" + held.dataset.money + ")", one.days, one.value);
      document.querySelectorAll("#story-told .later").forEach((place) => {
        if (!places.includes(place)) { place.className = "chart"; places.push(place); resized.observe(place); }
        draw(place).then(finished);
      });
    }
    who.addEventListener("input", show);
    if (names.length) { who.value = names[0]; show(); }
  }

  label();
  story();
  places.forEach((place) => resized.observe(place));
})();
