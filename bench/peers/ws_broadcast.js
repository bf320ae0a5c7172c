// The peer from Node: the `ws` library, one message to every client. Its README shows this very loop.
//
//     node ws_broadcast.js MESSAGE_FILE     prints its port; a line on standard input makes it send:
//         send      client.send(text), as everybody does it; each client's frame is made anew
//         once      the frame made once, by the library's own Sender.frame, and written to each client's socket
//
// Without permessage-deflate, which is the library's default for servers, and without pings.

'use strict';

const fs = require('node:fs');
const readline = require('node:readline');
const { Sender, WebSocketServer } = require('ws');

const text = fs.readFileSync(process.argv[2]);
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, backlog: 4096, perMessageDeflate: false });

server.on('listening', () => console.log(server.address().port));

function sendToEach() {
  for (const client of server.clients) client.send(text, { binary: false });
}

function sendOnce() {
  const options = { fin: true, rsv1: false, opcode: 1, mask: false, readOnly: true };
  const frame = Buffer.concat(Sender.frame(text, options));
  for (const client of server.clients) client._socket.write(frame);
}

const input = readline.createInterface({ input: process.stdin });
input.on('line', (word) => (word === 'once' ? sendOnce() : sendToEach()));
input.on('close', () => process.exit(0));
