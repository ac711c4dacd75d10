#!/usr/bin/env node
// A biotope worker that stays, in JavaScript (Node): answers each job with how long its payload is.
//
//   [workers.measure]
//   version = "v1"
//   exec = ["examples/workers/worker.js"]
//   mode = "persistent"
"use strict";

// What a job is worth. Throws, or a promise that is rejected: a failed attempt of this job alone.
async function work(job) {
  return { characters: JSON.stringify(job.payload).length, attempt: job.attempt };
}

function say(message) {
  process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
}

async function answer({ id, method, params }) {
  if (method === "hello") return say({ id, result: { protocol: 1 } });
  if (method !== "job") return say({ id, result: {} }); // wipe: nothing is kept from one cycle to the next
  try {
    say({ id, result: { value: await work(params) } });
  } catch (error) {
    say({ id, error: { code: 1, message: String(error), data: { outcome: "fail" } } });
  }
}

const lines = require("node:readline").createInterface({ input: process.stdin, crlfDelay: Infinity });
lines.on("line", (line) => {
  const request = JSON.parse(line);
  if (request.id !== undefined) answer(request); // anything without one is a notification
});
