// Reads ["graph TD …", …] from stdin, writes the SVG of each, coloured by CSS variables.
import { renderMermaidSVG } from "beautiful-mermaid";
import { readFileSync } from "node:fs";

const spacing = { padding: 4, layerSpacing: 22, nodeSpacing: 28 };
const drawn = JSON.parse(readFileSync(0, "utf8")).map((source) => {
  try {
    return { svg: renderMermaidSVG(source, spacing) };
  } catch (error) {
    return { error: error.message };
  }
});
process.stdout.write(JSON.stringify(drawn));
