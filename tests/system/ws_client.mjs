// Echoes through the npm package `ws`: node ws_client.mjs URL; prints one line of JSON.
import { createRequire } from "node:module";
const require = createRequire(process.env.M2GATE_NODE_MODULES + "/");
const { WebSocket } = require("ws");
const url = process.argv[2];
const sizes = [0, 125, 126, 65535, 65536, 1000000];
const wanted = sizes.flatMap((n) => ["x".repeat(n), Buffer.alloc(n, 7)]);
const socket = new WebSocket(url, ["one", "three"], { perMessageDeflate: false });
const together = wanted.length - 2; // the small ones
const same = [];
let pongs = 0;
socket.on("open", () => {
  socket.ping("hello");
  wanted.slice(0, together).forEach((message) => socket.send(message));
});
// All at once would be more than a server lets wait that is busy with the first ones (1 MiB).
const next = (i) => {
  if (i < together) return;
  if (i < wanted.length) return socket.send(wanted[i]);
  socket.send("frag", { fin: false });
  socket.send("mented", { fin: true });
};
socket.on("pong", (data) => (pongs += data.toString() === "hello" ? 1 : 0));
socket.on("message", (data, isBinary) => {
  const i = same.length;
  const message = isBinary ? data : data.toString();
  same.push(i < wanted.length ? Buffer.from(wanted[i]).equals(data) && isBinary === (i % 2 === 1) : message === "fragmented");
  if (same.length === wanted.length + 1) socket.close(1000, "done");
  else next(same.length);
});
socket.on("close", (code) => {
  console.log(JSON.stringify({ same: same.every(Boolean), count: same.length, pongs, code, protocol: socket.protocol }));
});
