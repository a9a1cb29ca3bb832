// Reads queries as a JSON list on standard input; prints, for each, the pieces that are no LogQL.
import { readFileSync } from "node:fs";
import { parser } from "@grafana/lezer-logql";

const faults = JSON.parse(readFileSync(0, "utf8")).map((query) => {
  const found = [];
  parser.parse(query).iterate({
    enter: (node) => {
      if (node.type.isError) found.push(query.slice(node.from, node.to + 10));
    },
  });
  return found;
});
console.log(JSON.stringify(faults));
