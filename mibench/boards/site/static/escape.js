// What mibench/report/escape.py does, for downloads made in the browser. Its tables come with the page's data, so that
// both escape alike; texts come without control characters already.
"use strict";

globalThis.Escaping = class Escaping {
  constructor(tables) {
    this.characters = new Map(Object.entries(tables.latex));
    this.formula = tables.formula;
  }

  // A field of a CSV file that no spreadsheet runs as a formula.
  csv(value) {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    let text = String(value);
    if (this.formula.some((sign) => text.startsWith(sign))) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  // Text that pdflatex prints as it stands.
  latex(text) {
    return Array.from(String(text), (one) => this.latexCharacter(one)).join("");
  }

  latexCharacter(one) {
    const known = this.characters.get(one);
    if (known !== undefined) return known;
    const point = one.codePointAt(0);
    if (point < 128) return one;
    const plain = Array.from(one.normalize("NFKD")).filter((part) => part.codePointAt(0) < 128);
    if (plain.length) return plain.map((part) => this.characters.get(part) ?? part).join("");
    return `{[}U+${point.toString(16).toUpperCase().padStart(4, "0")}{]}`;
  }
};
