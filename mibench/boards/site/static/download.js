// Files of what the table shows now: its rows in their order, and the attacks that are shown.
"use strict";

globalThis.Download = class Download {
  constructor(data) {
    this.data = data;
    this.escaping = new Escaping(data.escape);
  }

  // The rows as tables of names and numbers; fractions in [0, 1].
  lines(rows, attacks) {
    return rows.map((row) => {
      const line = { place_first: row.place[0] ?? null, place_last: row.place[1] ?? null };
      Object.assign(line, { defense: row.name, title: row.title });
      const numbers = [["worst AA", row.worst], ["MC(all)", row.mc_all], ["MC(l_t)", row.mc_target]];
      for (const label of attacks) numbers.push([`AA ${label}`, attackOf(row, label)]);
      for (const [name, one] of numbers) {
        line[name] = one?.value ?? null;
        line[`${name} low`] = one?.low ?? null;
        line[`${name} high`] = one?.high ?? null;
      }
      Object.assign(line, { loss: row.loss, flags: row.flags.join("; "), numbers: row.trust });
      return Object.assign(line, { verified: row.verified, "not ranked": row.why });
    });
  }

  csv(rows, attacks) {
    const lines = this.lines(rows, attacks);
    const names = Object.keys(lines[0] ?? {});
    const table = [names, ...lines.map((line) => names.map((name) => line[name]))];
    return table.map((line) => line.map((one) => this.escaping.csv(one)).join(",") + "\n").join("");
  }

  json(rows, attacks) {
    const content = {
      board: this.data.board,
      title: this.data.title,
      attacks,
      rows: rows.map((row) => {
        const shown = attacks.filter((label) => attackOf(row, label)).map((label) => [label, attackOf(row, label)]);
        const { href, group, ...rest } = row;
        return { ...rest, attacks: Object.fromEntries(shown) };
      }),
    };
    return JSON.stringify(content, null, 1) + "\n";
  }

  tex(rows, attacks) {
    const latex = (text) => this.escaping.latex(text);
    const heads = ["Place", "Defense", "Worst AA ↓", "MC(all) ↑", "MC(l_t) ↑", "Loss ↓", ...attacks].map(latex);
    const body = rows.map((row) => {
      const numbers = [row.worst, row.mc_all, row.mc_target].map(percent);
      const loss = row.loss === null ? "n/a" : (100 * row.loss).toFixed(1);
      const place = [...new Set(row.place)].join("\u2013") || "\u2013";
      const all = [place, row.name, ...numbers, loss, ...attacks.map((label) => percent(attackOf(row, label)))];
      return `${all.map(latex).join(" & ")} \\\\`;
    });
    return [
      "% Needs \\usepackage{booktabs}.",
      "\\begin{table*}\n\\centering\\footnotesize\n\\setlength{\\tabcolsep}{3.5pt}",
      `\\caption{${latex(`${this.data.title}. Percentages; the columns of attacks are AA.`)}}\\vspace{4pt}`,
      `\\begin{tabular}{@{}ll*{${heads.length - 2}}{r}@{}}\n\\toprule\n${heads.join(" & ")} \\\\\n\\midrule`,
      ...body,
      "\\bottomrule\n\\end{tabular}\n\\end{table*}\n",
    ].join("\n");
  }

  save(format, rows, attacks) {
    const types = { csv: "text/csv", json: "application/json", tex: "application/x-tex" };
    const blob = new Blob([this[format](rows, attacks)], { type: `${types[format]};charset=utf-8` });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${this.data.board}.${format}`;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }
};

// A label may be any word, "constructor" too: only what the data holds counts.
globalThis.attackOf = (row, label) => (Object.hasOwn(row.attacks, label) ? row.attacks[label] : null);

function percent(one) {
  return one === null ? "n/a" : (100 * one.value).toFixed(1);
}
