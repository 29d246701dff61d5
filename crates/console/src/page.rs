//! The page for people: the status as nested lists, read again every two seconds.

/// One self-contained page. Values reach the document as text nodes, never as markup.
pub(crate) const PAGE: &str = r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Vltava</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
  h1 { font-size: 1.4rem; margin: 0 0 .2rem; }
  nav { margin-bottom: 1.5rem; }
  table { border-collapse: collapse; margin: .2rem 0 1rem; }
  th, td { border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent);
           padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; }
  th { font-weight: 600; }
  td { font-variant-numeric: tabular-nums; }
  #state { opacity: .7; }
</style>
</head>
<body>
<h1>Vltava</h1>
<nav><a href="/metrics">metrics</a> · <a href="/status">status as JSON</a> · <a href="/healthz">health</a>
<span id="state" role="status"></span></nav>
<main id="status"></main>
<script>
  const cell = (kind, content) => {
    const element = document.createElement(kind);
    element.append(content);
    return element;
  };
  const show = (value) => {
    if (value === null || typeof value !== "object") return String(value ?? "–");
    if (Array.isArray(value) && value.length === 0) return "none";
    const table = document.createElement("table");
    for (const [key, inner] of Object.entries(value)) {
      const row = table.insertRow();
      row.append(cell("th", Array.isArray(value) ? String(Number(key) + 1) : key.replaceAll("_", " ")));
      row.append(cell("td", show(inner)));
    }
    return table;
  };
  const refresh = async () => {
    const state = document.getElementById("state");
    try {
      const answer = await fetch("/status");
      document.getElementById("status").replaceChildren(show(await answer.json()));
      state.textContent = "";
    } catch {
      state.textContent = "· the node does not answer";
    }
  };
  refresh();
  setInterval(refresh, 2000);
</script>
</body>
</html>
"##;
