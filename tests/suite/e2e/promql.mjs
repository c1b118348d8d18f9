// Parses PromQL with Prometheus's own grammar. argv: the folder of node_modules. stdin: a JSON array of expressions.
// stdout: for each its selectors, as {metric, labels}. An expression that does not parse ends it with exit code 1.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const { parser } = createRequire(`${process.argv[2]}/node_modules/`)("@prometheus-io/lezer-promql");

function selectors(expression) {
    const found = [];
    const text = (node) => expression.slice(node.from, node.to);
    parser.parse(expression).iterate({
        enter(node) {
            if (node.type.isError) throw new Error(`${expression}: wrong at ${node.from}`);
            if (node.name === "VectorSelector") found.push({ metric: "", labels: [] });
            if (node.name === "Identifier" && found.length > 0) found.at(-1).metric ||= text(node);
            if (node.name === "LabelName" && node.matchContext(["VectorSelector", "LabelMatchers", "UnquotedLabelMatcher"])) {
                found.at(-1).labels.push(text(node));
            }
        },
    });
    return found;
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(selectors)));
